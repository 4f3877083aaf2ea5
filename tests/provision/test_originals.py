"""Reset: PFs as they were before the first apply, whoever is in the way is named, and the record is forgotten."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sriovdp.config.values import Config
from sriovdp.errors import DeviceError, InUseError, JournalError, KernelError
from sriovdp.model import VfSettings
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision import change
from sriovdp.provision import reset as reset_module
from sriovdp.provision.apply import apply
from sriovdp.provision.reset import reset
from sriovdp.state.journal import Journal
from sriovdp.state.provisioned import PfState, list_records
from tests.fakes.sysfs import PF, Tree, connect, vf_address
from tests.provision.test_apply import MIXED, attach, make_config


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A PF with two VFs that somebody made before us: one on vfio-pci, one on igbvf with a VLAN and a MAC."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf(vfs=2)
    mac = "02:00:00:00:00:07"
    tree.settings[vf_address(PF, 1)] = VfSettings(mac, vlan=7, spoofchk=False, trust=True, max_tx_rate=100)
    tree.bind(vf_address(PF, 0), "vfio-pci")
    tree.bind(vf_address(PF, 1), "igbvf")
    return tree


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    return Journal(tmp_path / "journal")


def look(tree: Tree) -> PfState:
    """The PF now."""
    return PfState.of(take_snapshot(tree.sysfs).pfs[0])


def test_the_original_comes_back_after_several_applies(tree: Tree, journal: Journal) -> None:
    """Number of VFs, their drivers, settings, MACs and MTUs, and autoprobe; then there is nothing to reset."""
    original = look(tree)
    apply(MIXED, tree.sysfs, journal)
    (entry,) = make_config(3).physical_functions
    apply(replace(MIXED, physical_functions=(replace(entry, mtu=9000),)), tree.sysfs, journal)
    assert look(tree) != original
    told: list[str] = []
    reset(tree.sysfs, journal, told.append)
    assert look(tree) == original
    assert list_records(journal) == {}
    again: list[str] = []
    reset(tree.sysfs, journal, again.append)
    assert again == ["nothing to do: all PFs are as they were before the first apply"]


def test_what_somebody_changed_meanwhile_is_no_hindrance(tree: Tree, journal: Journal) -> None:
    """Somebody removed the VFs, and bound nothing."""
    original = look(tree)
    apply(MIXED, tree.sysfs, journal)
    tree.write(tree.pci(PF) / "sriov_numvfs", "0")
    reset(tree.sysfs, journal)
    assert look(tree) == original


def test_a_pods_vf_is_taken_away_by_force_only_and_the_pod_named(tree: Tree, journal: Journal) -> None:
    """Refused without, and then nothing is written."""
    apply(MIXED, tree.sysfs, journal)
    attach(journal, vf_address(PF, 0))
    tree.log.clear()
    with pytest.raises(InUseError, match=r"used by pod default/red \(net1\); .*--force takes their VFs away"):
        reset(tree.sysfs, journal)
    assert tree.log == []
    told: list[str] = []
    reset(tree.sysfs, journal, told.append, force=True)
    assert any("forced: VF 0 (0000:01:10.0) is used by pod default/red" in line for line in told)


def test_a_vf_that_a_program_holds_is_not_even_taken_by_force(
    tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would wait for the program, and we with it."""
    apply(MIXED, tree.sysfs, journal)
    monkeypatch.setattr(
        reset_module, "find_holder", lambda _, vf: "process 7 (testpmd)" if vf == vf_address(PF, 2) else None
    )
    attach(journal, vf_address(PF, 0))
    with pytest.raises(InUseError, match="held open by process 7"):
        reset(tree.sysfs, journal, force=True)


def test_a_reset_that_fails_can_be_tried_again(tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses once; the record stays until the PF is as it was."""
    original = look(tree)
    apply(MIXED, tree.sysfs, journal)
    with monkeypatch.context() as refusing:
        refusing.setattr(change, "write_text", lambda *_: (_ for _ in ()).throw(KernelError("no")))
        with pytest.raises(KernelError, match="the record of enp1s0 is kept, reset can be tried again"):
            reset(tree.sysfs, journal)
    reset(tree.sysfs, journal)
    assert look(tree) == original


def test_a_pf_that_is_gone_keeps_its_record(tree: Tree, journal: Journal) -> None:
    """It may come back."""
    apply(MIXED, tree.sysfs, journal)
    (tree.root / "bus/pci/devices" / PF).unlink()
    told: list[str] = []
    reset(tree.sysfs, journal, told.append)
    assert told[0] == f"warning: {PF} is not there; its record is kept"
    assert list(list_records(journal)) == [PF]


def test_one_pf_can_be_given_back_alone(tree: Tree, journal: Journal) -> None:
    """By its name or address; a name without a record is an error. One that left the config is told by apply."""
    tree.add_pf("0000:02:00.0", "enp2s0")
    apply(MIXED, tree.sysfs, journal)
    with pytest.raises(DeviceError, match=r"resetting enp9s0 failed: .*; there is a record of enp1s0, enp2s0"):
        reset(tree.sysfs, journal, only=["enp9s0"])
    reset(tree.sysfs, journal, only=["enp2s0"])
    assert [len(pf.vfs) for pf in take_snapshot(tree.sysfs).pfs] == [4, 0]
    assert list(list_records(journal)) == [PF]
    (warning,) = apply(Config(), tree.sysfs, journal).warnings
    assert warning.startswith("enp1s0 is in the config no more")


def test_the_number_of_vfs_of_others_is_not_ours_to_give_back(tree: Tree, journal: Journal) -> None:
    """Externally managed: somebody made another number of VFs since; those that are left have their drivers again."""
    (entry,) = make_config(2, {"0-1": "igb_uio"}).physical_functions
    apply(Config((replace(entry, externally_managed=True),)), tree.sysfs, journal)
    tree.write(tree.pci(PF) / "sriov_numvfs", "0")
    tree.write(tree.pci(PF) / "sriov_numvfs", "1")
    reset(tree.sysfs, journal)
    assert [vf.driver for vf in take_snapshot(tree.sysfs).pfs[0].vfs] == ["vfio-pci"]
    assert list_records(journal) == {}


def test_a_record_that_can_not_be_understood_stops_everything(tree: Tree, journal: Journal, tmp_path: Path) -> None:
    """The message names the file."""
    apply(MIXED, tree.sysfs, journal)
    path = tmp_path / f"journal/pf-{PF}.json"
    record = json.loads(path.read_text())
    for broken in ("{", json.dumps({**record, "version": 9}), json.dumps({"version": 1})):
        path.write_text(broken)
        with pytest.raises(JournalError, match=f"pf-{PF}.json cannot be understood"):
            reset(tree.sysfs, journal)
