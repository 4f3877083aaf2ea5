"""Whatever a node's files hold, each check ends, and what it could not read is a finding or is said."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sriovdp.cli.doctor import prepare, write
from sriovdp.cli.options import DEFAULT_CONFIG
from sriovdp.doctor.check import Finding, check
from sriovdp.doctor.examined import Examined, Folders
from sriovdp.doctor.verdict import CHECKS, Verdict, describe, examine
from sriovdp.doctor.view import UnseenError, View
from sriovdp.model import Node
from sriovdp.reading import UnreadableError
from tests.doctor.fake_node import PF, FakeNode, diagnose

_NOBODY = 65534
_TEXTS = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(
        [
            *(b"", b"0", b"-1", b"9" * 400, b"\x00" * 50, b"\xff\xfe", b"[" * 20000, b'{"a":' * 5000, b"\x1b[2J\n" * 5),
            *(
                b'["ok"]',
                b"[1, 2]",
                b'{"plugins": 7}',
                b'{"plugins": [{"type": {}}, 3], "type": ["x"]}',
                b'{"type": "../../x"}',
            ),
            *(
                b"plugins = 3",
                b"[plugins]\n'io.containerd.grpc.v1.cri' = 7",
                b"version = 2\nversion = 3",
                b"featureGates: [1]",
            ),
            *(
                b"Max locked memory",
                b"Max locked memory  x y z",
                b"TOTAL",
                b"TOTAL x",
                b"0x0 0x1",
                b"[none",
                b"16.0",
                b"x8",
            ),
        ]
    ),
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> FakeNode:
    """A node with an entry in the journal; tests put back what they change."""
    node = FakeNode(tmp_path_factory.mktemp("hostile") / "node").write()
    node.attach()
    return node


@contextmanager
def changed(path: Path) -> Iterator[None]:
    """Let a file be changed or replaced, and put it back."""
    before, mode = path.read_bytes(), path.stat().st_mode
    try:
        yield
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(before)
        path.chmod(mode)


@pytest.fixture(scope="module")
def files(node: FakeNode) -> list[Path]:
    """Files that a doctor reads; not what the snapshot reads, which has tests of its own."""
    examined = prepare(node.root, DEFAULT_CONFIG, "", None, None, Folders())
    examine(examined)
    view = examined.view
    files = [Path(view.place(path)) for path in view.texts]
    files += [node.root / f"doctor/{name}.json" for name in view.answers]
    files += [*(node.root / "var/lib/sriovdp/journal").glob("*.json"), node.root / "etc/sriovdp/config.yaml"]
    return sorted(file for file in set(files) if file.is_file())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_content_of_any_file(node: FakeNode, files: list[Path], data: st.DataObject) -> None:
    """No check raises, no sign reaches the terminal that moves its cursor."""
    path = data.draw(st.sampled_from(files))
    with changed(path):
        path.write_bytes(data.draw(_TEXTS))
        verdicts = diagnose(node)
    assert len(verdicts) == len(CHECKS)
    assert all(click.unstyle(line).isprintable() for line in write(verdicts, show_all=True))
    json.dumps(describe(verdicts))


def test_each_file_as_something_else(node: FakeNode, files: list[Path]) -> None:
    """A FIFO is not waited for, a folder and a loop of links are no file, a link leads to nothing outside."""
    makers = (os.mkfifo, os.mkdir, lambda p: p.symlink_to(p.name), lambda p: p.symlink_to("/etc/shadow"))
    assert len(files) > 30
    for number, path in enumerate(files):
        with changed(path):
            path.unlink()
            makers[number % len(makers)](path)
            assert len(diagnose(node)) == len(CHECKS)


def test_a_link_stays_below_the_root(node: FakeNode) -> None:
    """As in a chroot: /etc/passwd is that of the node, and .. does not lead out."""
    secret = node.root.parent / "secret"
    secret.write_text("secret\n")
    for target in ("../../../../secret", str(secret), f"/../..{secret}"):
        link = node.root / "etc/link"
        link.symlink_to(target)
        assert View(node.root).text("/etc/link") is None
        link.unlink()
    (node.root / "etc/link").symlink_to("/etc/os-release")
    assert "trixie" in (View(node.root).text("/etc/link") or "")
    (node.root / "etc/link").unlink()


def test_a_large_file_is_not_read(node: FakeNode) -> None:
    """Two MiB where a line is expected."""
    with changed(node.root / "proc/cpuinfo"), pytest.raises(UnreadableError, match="bytes, more than"):
        (node.root / "proc/cpuinfo").write_bytes(b"x" * (2 << 20))
        View(node.root).text("/proc/cpuinfo")


def test_what_needs_root_is_skipped_and_named(node: FakeNode) -> None:
    """Without root: the checks that could not see say so, the others go on."""
    journal, boot = node.root / "var/lib/sriovdp/journal", node.root / "proc/sys/kernel/random/boot_id"
    for parent in (*node.root.parents, node.root):
        if parent.stat().st_uid == os.getuid():
            parent.chmod(parent.stat().st_mode | 0o055)
    journal.chmod(0o700)
    boot.chmod(0o600)
    os.seteuid(_NOBODY)
    try:
        verdicts = diagnose(node)
    finally:
        os.seteuid(0)
        boot.chmod(0o644)
    lines = list(write(verdicts, show_all=False))
    skipped = {verdict.check.name: verdict.findings[-1].text for verdict in verdicts if verdict.status == "skipped"}
    assert skipped["boot"] == "/proc/sys/kernel/random/boot_id: Permission denied; run it as root"
    assert skipped["journal"] == "/var/lib/sriovdp/journal: Permission denied; run it as root"
    assert lines[-1].endswith("; not seen without root: pod-devices, journal, boot")
    assert next(verdict for verdict in verdicts if verdict.check.name == "devices").status == "ok"


def test_what_this_user_may_not_ask_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config, an agent and a kubelet that only root may read or ask: skipped, each with the reason."""
    node = FakeNode(tmp_path / "node").write()
    for parent in (*node.root.parents, node.root):
        if parent.stat().st_uid == os.getuid():
            parent.chmod(parent.stat().st_mode | 0o055)
    for path in ("etc/sriovdp/config.yaml", "run/sriovdp/agent.sock", "var/lib/kubelet/pod-resources/kubelet.sock"):
        (node.root / path).chmod(0o600)
    monkeypatch.setattr("sriovdp.doctor.view._is_same", lambda *_: True)  # a live node
    monkeypatch.setattr(View, "place", lambda self, path: f"{self.root}{path}")
    monkeypatch.setattr("sriovdp.doctor.examined.take_snapshot", lambda _: Node())
    wanted = [one for one in CHECKS if one.name in {"config", "agent", "pod-resources", "drift"}]
    os.seteuid(_NOBODY)
    try:
        verdicts = {one.check.name: one for one in diagnose(node, wanted)}
    finally:
        os.seteuid(0)
    assert {name: one.findings[-1].text for name, one in verdicts.items()} == {
        "config": "/etc/sriovdp/config.yaml: Permission denied; run it as root",
        "drift": "/etc/sriovdp/config.yaml: Permission denied; run it as root",
        "agent": "agent: Permission denied; run it as root",
        "pod-resources": "pod-resources: Permission denied; run it as root",
    }
    assert {one.status for one in verdicts.values()} == {"skipped"}


def test_a_check_that_fails_is_a_finding(node: FakeNode) -> None:
    """With its error, and the others go on."""

    @check("odd", "kernel", "none")
    def odd(_: Examined) -> Iterator[Finding]:
        """Something."""
        yield Finding("ok", str(1 // int("0")) + "\x1b")

    examined = Examined(View(node.root))
    first, second = examine(examined, [odd, replace(CHECKS[0], name="after")])
    said = "the check odd failed: ZeroDivisionError: integer division or modulo by zero"
    assert first.findings == (Finding("warn", said, "report it, with `sriovdp report`"),)
    assert second.status == "ok"


def test_devices_that_cannot_be_read_are_one_fault(node: FakeNode) -> None:
    """A broken recording stops no check that does not need the devices."""
    with changed(node.root / "sys/netlink.json"):
        (node.root / "sys/netlink.json").write_text("{")
        verdicts = diagnose(node)
    assert (verdicts[0].check.name, verdicts[0].status) == ("devices", "fail")
    assert [verdict.check.name for verdict in verdicts if verdict.status == "fail"] == ["devices"]


def test_an_answer_that_was_not_recorded_is_said(tmp_path: Path) -> None:
    """Of a bare recording of sysfs only the checks of devices have something to see."""
    node = FakeNode(tmp_path / "node").write()
    verdicts = {one.check.name: one for one in diagnose_bare(node.root / "sys")}
    assert verdicts["devices"].status == "ok"
    assert verdicts["kernel"].findings[-1].text == "/proc: not recorded of this node"
    with pytest.raises(UnseenError, match="kernel-log: not recorded"):
        View(node.root / "sys").ask("kernel-log", lambda: ["x"])
    assert not [name for name, one in verdicts.items() if one.status in {"fail", "warn"}]


def diagnose_bare(root: Path) -> list[Verdict]:
    """What is found of a folder that `record` wrote."""
    return examine(prepare(root, DEFAULT_CONFIG, "", None, None, Folders()))


def test_many_faults_are_one_line_or_twenty_and_a_number(tmp_path: Path) -> None:
    """A node with 128 unbound VFs, each with another override."""
    node = FakeNode(tmp_path / "node")
    node.function["sriov"] |= {"total": 128, "vfs": [{"count": 128}]}
    node.config["physicalFunctions"][0]["numVfs"] = 128
    node.write()
    for folder in node.pci(PF).parent.glob("0000:3b:0[2-9]*"):
        (folder / "driver_override").write_text(f"vfio-pci{folder.name}\n")
    verdicts = {one.check.name: one for one in diagnose(node)}
    assert [one.text for one in verdicts["vf-driver"].findings] == [
        "ens1f0 VF 0-1,4-127: on no driver, the config wants kernel",
        "ens1f0 VF 2-3: on no driver, the config wants vfio-pci",
    ]
    assert (len(verdicts["leftovers"].findings), verdicts["leftovers"].left_out) == (20, 44)
