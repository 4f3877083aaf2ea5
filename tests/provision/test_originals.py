"""Reset: PFs as they were before the first apply, who is in the way is named, and the record is forgotten."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sriovdp.config.values import Config
from sriovdp.errors import DamageError, DeviceError, InUseError, KernelError
from sriovdp.model import PciAddress, VfSettings
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision import change
from sriovdp.provision import reset as reset_module
from sriovdp.provision.apply import apply
from sriovdp.provision.change import Change
from sriovdp.provision.reset import reset
from sriovdp.provision.steps import Step
from sriovdp.state.journal import Journal
from sriovdp.state.provisioned import PfState, survey_records
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
    assert survey_records(journal)[0] == {}
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
    assert any("forced: enp1s0 VF 0 (0000:01:10.0) is used by pod default/red" in line for line in told)


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
    assert told[0].startswith(f"warning: {PF}: this PF is gone; its record is kept, as the PF may come back; `sriovdp")
    assert list(survey_records(journal)[0]) == [PF]
    reset(tree.sysfs, journal, force=True)
    assert list(survey_records(journal)[0]) == [PF], "it has to be named"
    reset(tree.sysfs, journal, told.append, force=True, only=[PF])
    assert f"{PF}: this PF is gone; its record is removed" in told
    assert survey_records(journal)[0] == {}


def test_a_pf_that_fails_does_not_keep_the_others(
    tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its record, and the error is its own; of several each one is listed."""
    tree.add_pf("0000:02:00.0", "enp2s0")
    apply(MIXED, tree.sysfs, journal)
    broken = {PF}
    run = Change.run

    def fail(change: Change, steps: Sequence[Step]) -> None:
        if change.pf in broken:
            raise DeviceError(f"{change.pf} is broken")
        run(change, steps)

    monkeypatch.setattr(Change, "run", fail)
    with pytest.raises(DeviceError, match=f"^{PF} is broken; the record of enp1s0 is kept"):
        reset(tree.sysfs, journal)
    assert [len(pf.vfs) for pf in take_snapshot(tree.sysfs).pfs] == [4, 0]
    assert list(survey_records(journal)[0]) == [PF]
    apply(MIXED, tree.sysfs, journal)
    broken.add(PciAddress("0000:02:00.0"))
    with pytest.raises(DeviceError, match=rf"resetting 2 PFs failed:\n  {PF} is broken.*\n  0000:02:00.0 is broken"):
        reset(tree.sysfs, journal)


def test_one_pf_can_be_given_back_alone(tree: Tree, journal: Journal) -> None:
    """By its name or address; a name without a record is an error. One that left the config is reported by apply."""
    tree.add_pf("0000:02:00.0", "enp2s0")
    apply(MIXED, tree.sysfs, journal)
    with pytest.raises(DeviceError, match=r"resetting enp9s0 failed: .*; there is a record of enp1s0, enp2s0"):
        reset(tree.sysfs, journal, only=["enp9s0"])
    reset(tree.sysfs, journal, only=["enp2s0"])
    assert [len(pf.vfs) for pf in take_snapshot(tree.sysfs).pfs] == [4, 0]
    assert list(survey_records(journal)[0]) == [PF]
    (warning,) = apply(Config(), tree.sysfs, journal).warnings
    assert warning.startswith("enp1s0 is no longer in the config")


def test_the_number_of_vfs_of_others_is_not_ours_to_give_back(tree: Tree, journal: Journal) -> None:
    """Externally managed: somebody made another number of VFs since; those that are left have their drivers again."""
    (entry,) = make_config(2, {"0-1": "igb_uio"}).physical_functions
    apply(Config((replace(entry, externally_managed=True),)), tree.sysfs, journal)
    tree.write(tree.pci(PF) / "sriov_numvfs", "0")
    tree.write(tree.pci(PF) / "sriov_numvfs", "1")
    reset(tree.sysfs, journal)
    assert [vf.driver for vf in take_snapshot(tree.sysfs).pfs[0].vfs] == ["vfio-pci"]
    assert survey_records(journal)[0] == {}


Break = Callable[[dict[str, Any]], object]
BROKEN: list[Break] = [
    lambda _: "{",
    lambda _: "[" * 5000,
    lambda _: "[]",
    lambda record: {**record, "version": 9},
    lambda record: {**record, "version": [1]},
    lambda _: {"version": 1},
    lambda record: {**record, "address": "0000:02:00.0"},
    lambda record: {**record, "address": {"a": 1}},
    lambda record: {**record, "original": []},
    lambda record: {**record, "original": {**record["original"], "vfs": [None]}},
    lambda record: {**record, "original": {**record["original"], "mtu": "1500"}},
    lambda record: {**record, "macs": {"x": "02:00:00:00:00:01"}},
    lambda record: {**record, "macs": {"0": None}},
    lambda record: {**record, "steps": 3},
    lambda record: {**record, "boot_id": None},
]


@pytest.fixture
def record_file(tree: Tree, journal: Journal, tmp_path: Path) -> Path:
    """The record of one of two PFs that an apply changed."""
    tree.add_pf("0000:02:00.0", "enp2s0")
    apply(MIXED, tree.sysfs, journal)
    return tmp_path / f"journal/pf-{PF}.json"


@pytest.mark.parametrize("broken", BROKEN)
def test_a_damaged_record_concerns_its_own_pf_only(
    tree: Tree, journal: Journal, record_file: Path, broken: Break
) -> None:
    """The PF keeps what it has, and the message names the file; all others are changed, and reset."""
    content = broken(json.loads(record_file.read_text()))
    record_file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InUseError, match=rf"enp1s0: .*pf-{PF}.json cannot be understood"):
        apply(make_config(2), tree.sysfs, journal)
    assert [len(pf.vfs) for pf in take_snapshot(tree.sysfs).pfs] == [4, 2]
    with pytest.raises(DamageError, match=f"pf-{PF}.json cannot be understood"):
        reset(tree.sysfs, journal)
    assert [len(pf.vfs) for pf in take_snapshot(tree.sysfs).pfs] == [4, 0]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path.name)])
def test_what_is_no_file_is_a_damaged_record(
    tree: Tree, journal: Journal, record_file: Path, make: Callable[[Path], None]
) -> None:
    """A folder, a FIFO (which is not waited for), a link; beside it, a file that names no PF is left alone."""
    record_file.unlink()
    make(record_file)
    record_file.with_name("pf-x.json").write_text("{")
    reset(tree.sysfs, journal, only=["enp2s0"])
    with pytest.raises(DamageError, match=f"pf-{PF}.json cannot be understood"):
        reset(tree.sysfs, journal)


def test_an_interrupted_record_of_version_0_1_is_read(tree: Tree, journal: Journal, record_file: Path) -> None:
    """It has neither `macs` nor who manages the number of VFs."""
    record = json.loads(record_file.read_text())
    for key in ("macs", "externally_managed"):
        del record[key]
    record_file.write_text(json.dumps(record))
    reset(tree.sysfs, journal)
    assert len(take_snapshot(tree.sysfs).pfs[0].vfs) == 2
