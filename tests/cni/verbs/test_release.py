"""DEL and the release of what an attachment owns: what is owed, and what DEL says."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni.protocol.wire import Request
from cni.verbs import release
from cni.verbs.dispatch import Verbs
from cni.verbs.recovery import Recovery
from cni.vf import restore
from sriovdp.errors import DeviceError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Attachment, Journal, Original, read_boot_id
from sriovdp.state.locks import Locks
from tests.fakes.recovering import recover

DEVICE = "0000:01:10.2"
IO_FAILURE, INVALID_CONFIG = 5, 7


class Node:
    """A node without any VF, where releasing one is releasing its addresses; its IPAM plugin is a script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal(folder / "state/journal")
        locks = Locks(self.journal.locks)
        self.verbs = Verbs(Sysfs(folder / "sys"), self.journal, locks)
        self.recovery = Recovery(self.verbs.sysfs, self.journal, locks)
        (folder / "bin").mkdir()
        self.install("exit 0")

    def install(self, script: str, name: str = "plugin") -> None:
        """Make this the IPAM plugin, which writes down each call."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\necho $CNI_COMMAND >>{self.folder}/calls\n{script}\n")
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """The verbs that the plugin was asked."""
        path = self.folder / "calls"
        return path.read_text().split() if path.exists() else []

    def network(self, **keys: Any) -> dict[str, Any]:
        """A network configuration."""
        return {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "ipam": {"type": "plugin"}} | keys

    def attach(self, **changes: Any) -> Attachment:
        """Write down an attachment, complete unless its changes say otherwise."""
        result = {"cniVersion": "1.1.0", "interfaces": [{"name": "net1"}], "ips": [{"address": "192.0.2.7/24"}]}
        entry = Attachment(
            container_id="c1",
            ifname="net1",
            network="net-a",
            device=DEVICE,
            mode="kernel",
            original=Original("igbvf", None, "eth1"),
            netns="/run/netns/gone",
            netns_dev=0,
            netns_ino=0,
            boot_id=read_boot_id(),
            config=self.network(),
            path=str(self.folder / "bin"),
            phase="attached",
            result=result,
        )
        entry = replace(entry, **changes)
        self.journal.write_attachment(entry)
        return entry

    def delete(self, stdin: bytes | None = None, **keys: Any) -> int:
        """DEL; gives the error's code, 0 for none."""
        given = json.dumps(self.network(**keys)).encode() if stdin is None else stdin
        reply = self.verbs.handle(Request("DEL", "c1", "", "net1", "", str(self.folder / "bin"), given), None)
        return int(json.loads(reply.stdout)["code"]) if reply.exit_code else 0

    @property
    def owed(self) -> list[tuple[bool, bool]]:
        """What of each entry is done: VF back, addresses free."""
        return [(entry.released, entry.freed) for entry in self.journal.attachments()]


FAIL = 'echo \'{"code": 11, "msg": "API server: timeout"}\'; exit 1'
REJECT = 'echo \'{"code": 7, "msg": "no subnet"}\'; exit 1'


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """The node."""
    return Node(tmp_path)


_WRONG: list[dict[str, Any]] = [
    {"ipam": "host-local"},
    {"ipam": ["x"]},
    {"ipam": {"type": ["x"]}},
    {"ipam": {"type": {"a": 1}}},
    {"ipam": {"type": "a\0b"}},
    {"ipam": {"type": "sriov"}},
    {"name": "my net"},
    {"name": 5},
    {"name": None},
    {"cniVersion": "2.0.0"},
    {"cniVersion": {"a": []}},
    {"cniDir": "/proc/self/mem"},
    {"if0": {"a": 1}},
    {"vlan": "x"},
]
BAD: list[bytes] = [
    b"",
    b"{",
    b"[]",
    b"[" * 100_000,
    b'{"name": "n", "x": ' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"a":' * 100_000,
    b'"\\ud800"',
    *(json.dumps({"cniVersion": "1.0.0", "name": "n", "type": "sriov"} | wrong).encode() for wrong in _WRONG),
]


@pytest.mark.parametrize("stdin", BAD, ids=lambda stdin: stdin[:60].decode())
def test_no_configuration_keeps_a_container_that_owns_nothing(node: Node, stdin: bytes) -> None:
    """DEL of what no container has is success, the first time and each further one."""
    assert [node.delete(stdin), node.delete(stdin)] == [0, 0]


@pytest.mark.parametrize("stdin", BAD, ids=lambda stdin: stdin[:60].decode())
def test_no_configuration_keeps_what_a_container_owns(node: Node, stdin: bytes) -> None:
    """What it owns is in the journal, with the configuration that it was made by."""
    node.attach()
    assert node.delete(stdin) == 0
    assert (node.owed, node.calls) == ([], ["DEL"])


@pytest.mark.parametrize("script", [FAIL, REJECT, "exit 3", "kill -9 $$", None])
def test_addresses_that_nobody_owns_keep_no_container(node: Node, script: str | None) -> None:
    """The ADD was undone, or never came; what its IPAM plugin says to DEL does not matter."""
    node.install(script or "")
    if script is None:
        (node.folder / "bin/plugin").unlink()
    assert [node.delete(), node.delete()] == [0, 0]


def test_del_fails_while_the_plugin_keeps_an_address(node: Node) -> None:
    """The runtime tries again, the VF is back meanwhile, and the release is not forgotten."""
    node.attach()
    node.install(FAIL)
    assert node.delete() == 11
    assert node.owed == [(True, False)]
    node.install("exit 0")
    assert node.delete() == 0
    assert node.owed == []


@pytest.mark.parametrize("script", [REJECT, None])
def test_plugin_that_is_gone_or_rejects_keeps_no_container(node: Node, script: str | None) -> None:
    """Its addresses are owed, which the journal has and the agent goes on to free."""
    node.attach()
    node.install(script or "")
    if script is None:
        (node.folder / "bin/plugin").unlink()
    assert [node.delete(), node.delete()] == [0, 0]
    assert node.owed == [(True, False)]
    node.install("exit 0")
    assert recover(node.recovery) == {}
    assert node.owed == []


@pytest.mark.parametrize(
    "content", [b"", b"exit 0\n", b"#!/no/such/interpreter\n", b"\x7fELF of another machine", None]
)
def test_plugin_that_is_no_program_is_a_missing_one(node: Node, content: bytes | None) -> None:
    """Of another machine, cut, or a folder: the container goes, and its addresses are freed once there is one."""
    node.attach()
    path = node.folder / "bin/plugin"
    if content is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(content)
    assert [node.delete(), node.delete()] == [0, 0]
    assert node.owed == [(True, False)]
    if content is None:
        path.rmdir()
    node.install("exit 0")
    assert recover(node.recovery) == {}
    assert node.owed == []


def test_corrected_network_is_used_when_the_recorded_one_fails(node: Node) -> None:
    """Somebody found the typo; the journal has the configuration of before."""
    node.attach(config=node.network(ipam={"type": "plugin", "subnet": "10.1.1.0/33"}))
    node.install("grep -q /33 && { " + FAIL + "; }; exit 0")
    assert node.delete(ipam={"type": "plugin", "subnet": "10.1.1.0/24"}) == 0
    assert (node.owed, node.calls) == ([], ["DEL", "DEL"])


@pytest.mark.parametrize(("script", "left"), [(FAIL, [(True, False)]), (REJECT, []), (None, [])])
def test_interrupted_add_keeps_no_container(node: Node, script: str | None, left: list[object]) -> None:
    """Whether the plugin gave anything is not known: it is asked, by the agent too, and the pod can go."""
    node.attach(phase="adding", result={})
    node.install(script or "")
    if script is None:
        (node.folder / "bin/plugin").unlink()
    assert node.delete() == 0
    assert node.owed == left


def test_vf_that_does_not_come_back_has_its_addresses_freed_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two are owed apart from each other."""
    real = restore.restore_vf

    def fail(*_: object) -> None:
        raise DeviceError("it is stuck")

    monkeypatch.setattr(release, "restore_vf", fail)
    node.attach()
    assert node.delete() == 0
    assert node.owed == [(False, True)]
    assert "it is stuck" in recover(node.recovery)[DEVICE]
    assert node.calls == ["DEL"]
    monkeypatch.setattr(release, "restore_vf", real)
    assert recover(node.recovery) == {}
    assert (node.owed, node.calls) == ([], ["DEL"])


@pytest.mark.parametrize("error", [ZeroDivisionError("never seen"), RecursionError(), ValueError("embedded null byte")])
def test_what_no_code_foresaw_keeps_no_container(node: Node, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Its VF is owed and out of use, its addresses are free."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(release, "restore_vf", fail)
    node.attach()
    assert node.delete() == 0
    assert node.owed == [(False, True)]


def test_damaged_entry_keeps_no_container(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """Its VF stays out of use, which the file says as long as it is there; its addresses are freed."""
    node.attach()
    path = node.folder / "state/journal/attachment-c1-net1.json"
    path.write_text(path.read_text()[:200])
    assert node.delete() == 0
    assert node.calls == ["DEL"]
    assert [damage.device for damage in node.journal.survey()[1]] == [DEVICE]
    assert "attachment-c1-net1" in caplog.text


def test_plugin_that_hangs_does_not_keep_the_vf(node: Node) -> None:
    """Another pod can have it, with the container's addresses still under way."""
    node.attach(config=node.network(ipam={"type": "whereabouts"}))
    node.install(f"while [ ! -e {node.folder}/go ]; do sleep 0.05; done", "whereabouts")
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(node.delete()))
    thread.start()
    try:
        with node.verbs.locks.hold("warm"):
            while node.owed != [(True, False)]:
                thread.join(0.02)
                assert thread.is_alive()
        with node.verbs.locks.hold(DEVICE, 30):
            assert thread.is_alive()
    finally:
        (node.folder / "go").touch()
        thread.join(30)
    assert (codes, node.owed) == ([0], [])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Node, Callable[[], None], Callable[[], None]]]:
    """A node with its state on a disk of its own, and how to fill that and make room again."""
    (tmp_path / "state").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=200", "tmpfs", str(tmp_path / "state")]
    subprocess.run(mount, check=True)

    def fill() -> None:
        with (tmp_path / "state/fill").open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
            while True:
                stream.write(b"x" * 512)

    def make_room() -> None:
        (tmp_path / "state/fill").unlink()

    try:
        yield Node(tmp_path), fill, make_room
    finally:
        subprocess.run(["umount", tmp_path / "state"], check=True)


@pytest.mark.netns
def test_del_on_a_full_disk_does_nothing_and_says_so(
    disk: tuple[Node, Callable[[], None], Callable[[], None]],
) -> None:
    """The runtime tries again; nothing is half done, and nothing forgotten."""
    node, fill, make_room = disk
    node.attach()
    with node.verbs.locks.hold("warm"):
        pass
    fill()
    assert [node.delete(), node.delete()] == [IO_FAILURE, IO_FAILURE]
    assert node.calls == []
    assert [entry.phase for entry in node.journal.attachments()] == ["attached"]
    make_room()
    assert node.delete() == 0
    assert (node.owed, node.calls) == ([], ["DEL"])
