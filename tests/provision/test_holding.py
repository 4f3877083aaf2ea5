"""Apply and reset beside CNI requests of another process: neither changes a VF that the other works on."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sriovdp.config.file import parse
from sriovdp.config.values import Config
from sriovdp.errors import BusyError, InUseError
from sriovdp.model import PciAddress
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision import change
from sriovdp.provision.apply import apply
from sriovdp.provision.holding import list_vfs
from sriovdp.provision.reset import reset
from sriovdp.state.journal import Journal, read_boot_id
from tests.fakes.sysfs import PF, Tree, connect, vf_address

# a process that holds the lock of a VF as an ADD does, writes an entry, and lets go on command
HOLDER = """
import json, sys
from pathlib import Path
from sriovdp.state.journal import Attachment, Journal, Original
from sriovdp.state.locks import Locks
journal = Journal(Path(sys.argv[1]))
with Locks(journal.locks).hold(sys.argv[2]):
    print("held", flush=True)
    entry = sys.stdin.readline()
    if entry.strip():
        values = json.loads(entry)
        journal.write_attachment(Attachment(original=Original("igbvf", None), **values))
"""
# a process that asks for the lock of a VF as an ADD does, and prints what it is answered with
ASKER = """
import sys
from pathlib import Path
from cni.protocol.spec import code_of
from sriovdp.errors import SriovdpError
from sriovdp.state.journal import Journal
from sriovdp.state.locks import Locks
try:
    with Locks(Journal(Path(sys.argv[1])).locks).hold(sys.argv[2], 0.2):
        print(0)
except SriovdpError as error:
    print(code_of(error))
"""
TRY_AGAIN = 11


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A PF with two VFs, which the product takes for this machine's."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf()
    tree._set_num_vfs(PF, 2, autoprobe=True)
    return tree


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    return Journal(tmp_path / "journal")


def make_config(count: int) -> Config:
    """A config of that many VFs."""
    return parse(json.dumps({"physicalFunctions": [{"select": {"vendors": ["8086"]}, "numVfs": count}]}), "test")


@contextmanager
def hold_elsewhere(journal: Journal, address: str) -> Iterator[Callable[[str], None]]:
    """Another process has a VF's lock, until it is given what to write into the journal: an attachment, or nothing."""
    command = [sys.executable, "-c", HOLDER, str(journal.directory), address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "held\n"

        def end(entry: str = "") -> None:
            process.communicate(f"{entry}\n")

        try:
            yield end
        finally:
            process.kill()


def ask_elsewhere(journal: Journal, address: str) -> int:
    """The code that an ADD for a VF would be answered with by another process, 0 when it would get the VF."""
    command = [sys.executable, "-c", ASKER, str(journal.directory), address]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def describe(device: str) -> str:
    """An attachment of a pod, as the journal is given it."""
    sandbox = {"netns": "/run/netns/x", "netns_dev": 1, "netns_ino": 2, "boot_id": read_boot_id()}
    named = {"container_id": "c1", "ifname": "net1", "network": "net", "device": device, "mode": "kernel"}
    return json.dumps({**sandbox, **named, "args": "K8S_POD_NAME=red", "phase": "attached"})


def test_use_that_begins_after_the_first_look_is_seen(tree: Tree, journal: Journal) -> None:
    """An ADD is at work when apply has looked: apply waits for its end, asks again, and leaves the PF alone."""
    vf = vf_address(PF, 0)
    with hold_elsewhere(journal, vf) as end:
        waited: list[int] = []

        def report(_: str) -> None:
            """Nothing is done before the ADD has ended."""
            assert waited

        def find_owners() -> dict[str, str]:
            """The first look finds no user; then the ADD goes on while apply waits."""
            if not waited:
                waited.append(1)
                end(describe(vf))
            return {}

        with pytest.raises(InUseError, match=r"nothing was changed:\n.*VF 0 .* is used by pod default/red"):
            apply(make_config(4), tree.sysfs, journal, report, allocated=find_owners)
    assert [name for name, _ in tree.log if name == "sriov_numvfs"] == []


@pytest.mark.parametrize("index", [0, 3])
def test_a_request_that_does_not_end_is_an_obstacle(tree: Tree, journal: Journal, index: int) -> None:
    """At a VF of now, and at one to come; the error names the PF and the VF."""
    vf = vf_address(PF, index)
    refused = pytest.raises(InUseError, match=f"enp1s0: another request works on {vf}")
    with hold_elsewhere(journal, vf), refused:
        apply(make_config(4), tree.sysfs, journal, timeout=0.2)
    assert tree.log == []


def test_an_add_is_asked_to_try_again_until_the_change_is_verified(
    tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each step, for VFs of now and new ones; afterwards it gets the VF."""
    codes: list[int] = []

    def write(path: Path, text: str) -> None:
        tree.write(path, text)
        if path.name in {"sriov_numvfs", "sriov_drivers_autoprobe"}:
            codes.extend(ask_elsewhere(journal, vf_address(PF, index)) for index in (0, 3))

    monkeypatch.setattr(change, "write_text", write)
    apply(make_config(4), tree.sysfs, journal)
    assert set(codes) == {TRY_AGAIN}
    assert ask_elsewhere(journal, vf_address(PF, 0)) == ask_elsewhere(journal, vf_address(PF, 3)) == 0
    codes.clear()
    reset(tree.sysfs, journal)
    assert set(codes) == {TRY_AGAIN}
    assert ask_elsewhere(journal, vf_address(PF, 0)) == 0


def test_new_vfs_are_held_where_their_addresses_were_not_known(
    tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recorded or an old kernel has neither offset nor stride."""
    (tree.pci(PF) / "sriov_offset").unlink()
    (pf,) = take_snapshot(tree.sysfs).pfs
    assert list(list_vfs(pf, 4)) == [vf_address(PF, 0), vf_address(PF, 1)]
    codes: list[int] = []
    monkeypatch.setattr(change.Change, "_set_vf", lambda *_: codes.append(ask_elsewhere(journal, vf_address(PF, 3))))
    with pytest.raises(Exception, match="not as the config says"):
        apply(make_config(4), tree.sysfs, journal)
    assert set(codes) == {TRY_AGAIN}


def test_reset_asks_under_the_locks_too(tree: Tree, journal: Journal) -> None:
    """A VF that an ADD works on is waited for; one that a pod got meanwhile stays."""
    apply(make_config(4), tree.sysfs, journal)
    vf, written = vf_address(PF, 1), len(tree.log)
    with hold_elsewhere(journal, vf) as end:
        with pytest.raises(BusyError, match=f"enp1s0: resetting failed, nothing was changed: .* works on {vf}"):
            reset(tree.sysfs, journal, timeout=0.2)
        end(describe(vf))
        with pytest.raises(InUseError, match="is used by pod default/red"):
            reset(tree.sysfs, journal)
    assert len(tree.log) == written


def test_more_vfs_than_open_files_are_held(tree: Tree, journal: Journal) -> None:
    """The soft limit of this process grows with the locks, as far as the hard one allows."""
    script = """
import resource, sys
from pathlib import Path
from sriovdp.provision.holding import HeldVfs
from sriovdp.state.locks import Locks
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))
with HeldVfs(Locks(Path(sys.argv[1]))) as held:
    held.hold(f"0000:01:{n >> 3:02x}.{n & 7}" for n in range(256))
    print(len(list(Path(sys.argv[1]).iterdir())))
print(len(list(Path(sys.argv[1]).iterdir())))
"""
    command = [sys.executable, "-c", script, str(journal.locks)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "256\n0\n"


def test_addresses_of_vfs_to_come_are_the_kernels(tree: Tree) -> None:
    """By offset and stride, as the tree makes them."""
    (pf,) = take_snapshot(tree.sysfs).pfs
    assert list(list_vfs(pf, 4))[2:] == [PciAddress(vf_address(PF, index)) for index in range(4)]
