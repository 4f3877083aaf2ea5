"""SIGKILL at every step: whatever was done of an apply, the next one ends where an undisturbed one does."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from sriovdp.config.ranges import VfIndices
from sriovdp.config.values import Config, PfConfig, PfSelect, VfConfig
from sriovdp.kernel import drivers
from sriovdp.kernel.sysfs import read_text
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision import change
from sriovdp.provision.apply import apply
from sriovdp.provision.reset import reset
from sriovdp.provision.settings import make_stable_mac
from sriovdp.state.journal import Journal
from sriovdp.state.provisioned import PfState, survey_records
from tests.fakes.sysfs import PF, PF_MAC, Netlink, Tree, connect


class Killed(BaseException):
    """No `except` of the product catches this, as none sees a SIGKILL."""


@dataclass
class Fuse:
    """Lets so many changes pass; from then on none does, as a dead process makes none in its `finally` either."""

    left: int = 1_000_000
    blown: bool = False

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A change that the fuse counts."""

        def guarded(*arguments: Any, **keywords: Any) -> Any:
            if self.left <= 0:
                self.blown = True
                raise Killed
            self.left -= 1
            return function(*arguments, **keywords)

        return guarded


def make_config(*wished: str, mtu: int | None = None, trust: bool | None = None) -> Config:
    """A config with a driver for each VF."""
    vfs = tuple(
        VfConfig(VfIndices((range(index, index + 1),)), driver, trust=trust) for index, driver in enumerate(wished)
    )
    return Config((PfConfig(PfSelect(vendors=("8086",)), len(wished), vfs, mtu),))


FIRST = make_config("kernel", "vfio-pci", "igb_uio", "none", mtu=9000, trust=True)
CASES = {
    "from nothing": (None, FIRST),
    "other drivers": (FIRST, make_config("igb_uio", "kernel", "vfio-pci", "kernel", trust=False)),
    "another number": (FIRST, make_config("kernel", "vfio-pci")),
    "no VFs any more": (FIRST, make_config()),
}


PLAIN = make_config("kernel", "kernel", "vfio-pci", "none")


def start(folder: Path, monkeypatch: pytest.MonkeyPatch, fuse: Fuse) -> tuple[Tree, Journal]:
    """A PF without VFs, and a product all of whose changes go through the fuse."""
    tree = connect(Tree(folder / "sys"), monkeypatch)
    tree.add_pf()
    journal = Journal(folder / "journal")
    write = fuse.wrap(tree.write)
    monkeypatch.setattr(change, "write_text", write)
    monkeypatch.setattr(drivers, "write_text", write)
    monkeypatch.setattr(journal, "write_pf", fuse.wrap(journal.write_pf))
    for name in ("set_vf", "set_link"):
        monkeypatch.setattr(Netlink, name, fuse.wrap(getattr(Netlink, name)))
    return tree, journal


@pytest.mark.parametrize(("first", "second"), CASES.values(), ids=CASES.keys())
def test_apply_converges_after_a_kill_anywhere(first: Config | None, second: Config, tmp_path: Path) -> None:
    """For every number of changes after which it is killed; then reset brings the original back."""
    for changes in count():
        with pytest.MonkeyPatch.context() as monkeypatch:
            fuse = Fuse()
            tree, journal = start(tmp_path / str(changes), monkeypatch, fuse)
            original = PfState.of(take_snapshot(tree.sysfs).pfs[0])
            if first:
                apply(first, tree.sysfs, journal)
            fuse.left = changes
            try:
                apply(second, tree.sysfs, journal)
            except Killed:
                assert fuse.blown
            fuse.left = 1_000_000
            apply(second, tree.sysfs, journal)
            check(tree, second, journal, original)
            reset(tree.sysfs, journal)
            assert PfState.of(take_snapshot(tree.sysfs).pfs[0]) == original
            assert survey_records(journal)[0] == {}
        if not fuse.blown:
            assert changes > 2, "the changes were counted"
            return


@pytest.mark.parametrize("sets_vfs", [False, True], ids=["no settings of VFs", "MACs refused"])
def test_apply_converges_where_the_pf_takes_no_mac(tmp_path: Path, *, sets_vfs: bool) -> None:
    """The netdevs get the stable MACs, and lose them in a reset, wherever the apply is killed."""
    for changes in count():
        with pytest.MonkeyPatch.context() as monkeypatch:
            fuse = Fuse()
            tree, journal = start(tmp_path / str(changes), monkeypatch, fuse)
            tree.write(tree.pci(PF) / "sriov_numvfs", "4")
            tree.sets_vfs, tree.refused_macs = sets_vfs, {0, 1, 2, 3}
            original = PfState.of(take_snapshot(tree.sysfs).pfs[0])
            fuse.left = changes
            try:
                apply(PLAIN, tree.sysfs, journal)
            except Killed:
                assert fuse.blown
            fuse.left = 1_000_000
            apply(PLAIN, tree.sysfs, journal)
            check(tree, PLAIN, journal, original)
            macs = [vf.netdev.mac for vf in take_snapshot(tree.sysfs).pfs[0].vfs if vf.netdev]
            assert macs == [make_stable_mac(PF_MAC, index) for index in range(2)]
            reset(tree.sysfs, journal)
            assert PfState.of(take_snapshot(tree.sysfs).pfs[0]) == original
        if not fuse.blown:
            assert changes > 2, "the changes were counted"
            return


def check(tree: Tree, config: Config, journal: Journal, original: PfState) -> None:
    """The PF is as the config says, nothing is left over, and the original is still known."""
    (pf,) = take_snapshot(tree.sysfs).pfs
    wanted = [vf.driver.replace("kernel", "igbvf") for vf in config.physical_functions[0].vfs]
    assert [vf.driver or "none" for vf in pf.vfs] == wanted
    assert read_text(tree.pci(PF) / "sriov_drivers_autoprobe") == "1"
    overrides = {read_text(tree.pci(vf.address) / "driver_override") for vf in pf.vfs}
    assert overrides <= {"", "(null)"}
    assert apply(config, tree.sysfs, journal).steps == ()
    if record := survey_records(journal)[0].get(pf.address):
        assert replace(record.original, up=True) == original
        assert record.phase == "done"
    else:
        assert not config.physical_functions[0].num_vfs


def test_reset_converges_after_a_kill_anywhere(tmp_path: Path) -> None:
    """A reset that is killed can be done again."""
    for changes in count():
        with pytest.MonkeyPatch.context() as monkeypatch:
            fuse = Fuse()
            tree, journal = start(tmp_path / str(changes), monkeypatch, fuse)
            original = PfState.of(take_snapshot(tree.sysfs).pfs[0])
            apply(FIRST, tree.sysfs, journal)
            fuse.left = changes
            try:
                reset(tree.sysfs, journal)
            except Killed:
                assert fuse.blown
            fuse.left = 1_000_000
            reset(tree.sysfs, journal)
            assert PfState.of(take_snapshot(tree.sysfs).pfs[0]) == original
        if not fuse.blown:
            assert changes > 1
            return
