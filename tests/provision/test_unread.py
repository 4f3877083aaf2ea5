"""VFs that the kernel leaves out of its list: never taken for as wanted, for different, or for without settings."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sriovdp.config.file import parse
from sriovdp.config.values import Config
from sriovdp.errors import DeviceError, InUseError, VerifyError
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision import apply as apply_module
from sriovdp.provision import reset as reset_module
from sriovdp.provision.apply import apply, survey
from sriovdp.provision.drift import find_drift
from sriovdp.provision.pending import find_pending
from sriovdp.provision.reset import reset
from sriovdp.provision.settings import make_stable_mac
from sriovdp.provision.unread import look_until_read
from sriovdp.state.journal import Journal
from sriovdp.state.provisioned import survey_records
from tests.fakes.sysfs import PF, Netlink, Tree, connect, vf_address
from tests.provision.test_apply import attach

_OTHER = "0000:02:00.0"
_ALWAYS = 1 << 30
_UNREAD = r"enp1s0 VF 1 \(0000:01:10.2\): its settings could not be read"


def make_config(vlan: int, num_vfs: int = 2) -> Config:
    """VFs of all PFs with a VLAN, on no driver."""
    vfs = [{"range": f"0-{num_vfs - 1}", "driver": "none", "vlan": vlan, "mac": "keep"}]
    entry = {"select": {"vendors": ["8086"]}, "numVfs": num_vfs, "vfs": vfs}
    return parse(json.dumps({"physicalFunctions": [entry]}), "test")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A PF without VFs; the product has no patience where a test gives it none."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf()
    be_patient(monkeypatch, 0.0)
    return tree


def be_patient(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """How long VFs that are left out are looked for again."""
    for module in (apply_module, reset_module):
        for name in ("PATIENCE", "VERIFY_PATIENCE"):
            monkeypatch.setattr(module, name, seconds)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    return Journal(tmp_path / "journal")


def _vlans(tree: Tree) -> list[int]:
    return [tree.settings[address].vlan for address in sorted(tree.settings)]  # PFs are changed at the same time


def test_what_is_wanted_of_it_is_not_known(tree: Tree, journal: Journal) -> None:
    """Neither nothing to do, nor drift, nor pending; apply changes nothing of its PF, and fails."""
    config = make_config(7)
    apply(config, tree.sysfs, journal)
    tree.hidden[vf_address(PF, 1)] = _ALWAYS
    todo, _ = survey(config, tree.sysfs, journal)
    assert (todo.steps, todo.is_empty, len(todo.blocked)) == ((), False, 1)
    drift = find_drift(config, tree.sysfs, journal)
    assert (drift.sentences, drift.unread) == ([], tuple(todo.blocked))
    tree.log.clear()
    with pytest.raises(DeviceError, match=rf"nothing was changed:\n  {_UNREAD}") as caught:
        apply(make_config(8), tree.sysfs, journal)
    assert not isinstance(caught.value, InUseError)
    assert (tree.log, _vlans(tree)) == ([], [7, 7])
    pending = find_pending(make_config(8), tree.sysfs, journal, {}, take_snapshot(tree.sysfs))
    assert (pending.vfs, pending.pfs) == ({}, frozenset())


def _hide_all(tree: Tree) -> None:
    tree.hidden = dict.fromkeys((vf_address(PF, index) for index in range(7)), _ALWAYS)


def make_default(**keys: object) -> Config:
    """Two VFs of all PFs on their kernel driver, with stable MACs as nothing else is said."""
    vfs = {"range": "0-1", "driver": "kernel", **keys}
    entry = {"select": {"vendors": ["8086"]}, "numVfs": 2, "vfs": [vfs]}
    return parse(json.dumps({"physicalFunctions": [entry]}), "test")


@pytest.mark.parametrize("there", [0, 2])
def test_a_list_that_is_always_empty_is_no_error_of_stable_macs(tree: Tree, journal: Journal, there: int) -> None:
    """As on the host of a DPU, whose driver refuses MACs too: netdevs get them, with one warning for the PF."""
    _hide_all(tree)
    tree.refused_macs = {0, 1}
    if there:
        tree._set_num_vfs(PF, there, autoprobe=True)
    seen = list[str]()
    apply(make_default(), tree.sysfs, journal, seen.append)
    macs = [vf.netdev.mac for _, vf in take_snapshot(tree.sysfs).vfs() if vf.netdev]
    pf = take_snapshot(tree.sysfs).pfs[0].netdev
    assert pf
    assert macs == [make_stable_mac(pf.own_mac, index) for index in range(2)]
    again = apply(make_default(), tree.sysfs, journal)
    (warning,) = again.warnings
    assert (again.steps, f"its driver igb {'lists' if there else 'takes'} no admin MAC of VF 0-1" in warning) == (
        (),
        True,
    )
    reset(tree.sysfs, journal)
    if there:
        assert {vf.netdev.mac for _, vf in take_snapshot(tree.sysfs).vfs() if vf.netdev}.isdisjoint(macs)


@pytest.mark.parametrize("given", [{"vlan": 7}, {"trust": False}, {"mac": {"0": "02:00:00:00:00:01"}}])
def test_a_list_that_is_always_empty_is_an_error_of_what_is_given(
    tree: Tree, journal: Journal, given: dict[str, object]
) -> None:
    """Nobody knows whether it is so."""
    tree._set_num_vfs(PF, 2, autoprobe=True)
    _hide_all(tree)
    with pytest.raises(DeviceError, match=r"enp1s0 VF 0 \(0000:01:10.0\): its settings could not be read"):
        apply(make_default(**given), tree.sysfs, journal)


def test_a_list_that_was_full_before_is_not_always_empty(tree: Tree, journal: Journal) -> None:
    """All VFs are in reset: they had MACs that could be read, and it is not known whether they still have them."""
    apply(make_default(), tree.sysfs, journal)
    _hide_all(tree)
    with pytest.raises(DeviceError, match="its settings could not be read"):
        apply(make_default(), tree.sysfs, journal)


def test_macs_that_were_taken_are_not_verified_by_an_empty_list(tree: Tree, journal: Journal) -> None:
    """The PF's driver took them, and lists no VF: nothing says that they are there."""
    _hide_all(tree)
    with pytest.raises(VerifyError, match=r"its settings could not be read.*; enp1s0 was brought back"):
        apply(make_default(), tree.sysfs, journal)


def test_a_moment_is_waited_for(tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """As i40e leaves VFs out while it does something else: before a change, and after it."""
    be_patient(monkeypatch, 60.0)
    apply(make_config(7), tree.sysfs, journal)
    tree.hidden[vf_address(PF, 1)] = 2
    apply(make_config(8), tree.sysfs, journal)
    assert _vlans(tree) == [8, 8]
    tree.hidden[vf_address(PF, 0)] = 2
    set_vf = Netlink.set_vf

    def hide(netlink: Netlink, pf: int, index: int, changes: dict[str, object]) -> None:
        set_vf(netlink, pf, index, changes)
        tree.hidden[vf_address(PF, 1)] = 3

    monkeypatch.setattr(Netlink, "set_vf", hide)
    apply(make_config(9), tree.sysfs, journal)
    assert _vlans(tree) == [9, 9]
    assert survey_records(journal)[0][take_snapshot(tree.sysfs).pfs[0].address].phase == "done"


@pytest.mark.parametrize(
    ("took", "patience", "until", "expected"), [(4, 3, 3, 3), (4, 3, 99, 4), (40, 3, 99, 1), (1, 0, 99, 1)]
)
def test_a_slow_machine_gets_several_looks(
    monkeypatch: pytest.MonkeyPatch, took: float, patience: float, until: int, expected: int
) -> None:
    """Where each look takes longer than the patience; no more than some, and only one without any patience."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.append(clock.pop() + seconds))
    looks: list[float] = []

    def look() -> int:
        clock[0] += took
        looks.append(clock[0])
        return len(looks)

    told: list[str] = []
    missing = lambda count: ["VF 1", "VF 2"] if count < until else []  # noqa: E731
    assert look_until_read(look, missing, patience, told.append) == expected
    assert told == ["VF 1 (and 1 more); looking again for up to 3 s"] * (expected > 1)


def test_other_pfs_are_changed(tree: Tree, journal: Journal) -> None:
    """And the error says what was done."""
    tree.add_pf(_OTHER, "enp2s0")
    apply(make_config(7), tree.sysfs, journal)
    tree.hidden[vf_address(PF, 1)] = _ALWAYS
    with pytest.raises(DeviceError, match=rf"keep what they have; 2 steps done:\n  {_UNREAD}"):
        apply(make_config(8), tree.sysfs, journal)
    assert _vlans(tree) == [7, 7, 8, 8]
    with pytest.raises(DeviceError, match="nothing was changed"):
        apply(make_config(9), tree.sysfs, journal, all_or_nothing=True)


def test_nothing_wanted_of_it_or_made_again_needs_no_look(tree: Tree, journal: Journal) -> None:
    """A VF that a pod has neither; another number of VFs is the way out of a VF that is stuck."""
    config = make_config(7)
    apply(config, tree.sysfs, journal)
    tree.hidden[vf_address(PF, 1)] = _ALWAYS
    attach(journal, vf_address(PF, 1))
    assert survey(config, tree.sysfs, journal)[0].is_empty
    (journal.directory / "c1@net1.json").unlink(missing_ok=True)
    entry = {"select": {"vendors": ["8086"]}, "numVfs": 2, "vfs": [{"range": "0-1", "driver": "none", "mac": "keep"}]}
    assert survey(parse(json.dumps({"physicalFunctions": [entry]}), "test"), tree.sysfs, journal)[0].is_empty


def test_another_number_of_vfs_is_the_way_out(tree: Tree, journal: Journal) -> None:
    """The VF that was stuck is gone."""
    apply(make_config(7), tree.sysfs, journal)
    tree.hidden[vf_address(PF, 1)] = _ALWAYS
    apply(make_config(7, 1), tree.sysfs, journal)
    assert _vlans(tree) == [7]


def test_what_was_set_is_not_verified_by_silence(tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A VF that stays away after its settings: the PF is brought back, or it is said that this is not known either."""
    monkeypatch.setattr(Netlink, "set_vf", _hide_after(tree, Netlink.set_vf, vf_address(PF, 1)))
    with pytest.raises(VerifyError, match=rf"{_UNREAD}.*; enp1s0 was brought back to what it was before"):
        apply(make_config(7), tree.sysfs, journal)
    assert (_vlans(tree), survey_records(journal)[0]) == ([], {})
    monkeypatch.undo()


def test_undo_does_not_call_silence_success(tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record stays as it was in the middle of a change."""
    apply(make_config(7), tree.sysfs, journal)
    with monkeypatch.context() as patched:
        patched.setattr(Netlink, "set_vf", _hide_after(tree, Netlink.set_vf, vf_address(PF, 1)))
        with pytest.raises(VerifyError, match=rf"{_UNREAD}.*; undoing that failed too: {_UNREAD}"):
            apply(make_config(8), tree.sysfs, journal)
    (record,) = survey_records(journal)[0].values()
    assert record.is_interrupted
    with pytest.raises(DeviceError, match=_UNREAD):
        apply(make_config(8), tree.sysfs, journal)
    assert survey_records(journal)[0][record.address].is_interrupted


def test_reset_does_not_call_silence_success(tree: Tree, journal: Journal) -> None:
    """A PF that had VFs before the first apply keeps its record; the other one is reset."""
    tree.add_pf(_OTHER, "enp2s0")
    for pf in (PF, _OTHER):
        tree._set_num_vfs(pf, 2, autoprobe=False)
    apply(make_config(7), tree.sysfs, journal)
    tree.hidden[vf_address(PF, 1)] = _ALWAYS
    with pytest.raises(DeviceError, match=_UNREAD):
        reset(tree.sysfs, journal)
    assert _vlans(tree) == [7, 7, 0, 0]
    assert survey_records(journal)[0].keys() == {PF}
    tree.hidden.clear()
    reset(tree.sysfs, journal)
    assert _vlans(tree) == [0, 0, 0, 0]


def _hide_after(tree: Tree, set_vf: Callable[..., None], address: str) -> Callable[..., None]:
    def hide(netlink: Netlink, pf: int, index: int, changes: dict[str, object]) -> None:
        set_vf(netlink, pf, index, changes)
        tree.hidden[address] = _ALWAYS

    return hide
