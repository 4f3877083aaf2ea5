"""A PF that is pulled out while it is changed: the first error is reported, and nothing is claimed of what is gone."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from sriovdp.errors import DeviceError, KernelError, SriovdpError
from sriovdp.kernel import drivers
from sriovdp.provision import change
from sriovdp.provision.apply import apply
from sriovdp.provision.change import Change
from sriovdp.provision.steps import Step
from sriovdp.state.journal import Journal
from sriovdp.state.provisioned import survey_records
from tests.fakes.sysfs import PF, Tree, connect, vf_address
from tests.provision.test_apply import make_config
from tests.provision.test_usage import PF as PF_ADDRESS

TWO = make_config(2)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A PF without VFs."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf()
    return tree


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    return Journal(tmp_path / "journal")


def pull(tree: Tree) -> None:
    """Take the PF and its VFs out."""
    devices = tree.root / "bus/pci/devices"
    for address in (PF, *(vf_address(PF, index) for index in range(2))):
        (devices / address).unlink(missing_ok=True)


def make_write(tree: Tree, name: str, then: Callable[[], None]) -> Callable[[Path, str], None]:
    """A write to sysfs; to an attribute of that name it fails, after `then`; all that is gone fails too."""

    def write(path: Path, text: str) -> None:
        if path.name == name:
            then()
        if path.name == name or not path.exists():
            raise KernelError(f"writing {text} to {path} failed: No such device", errno=errno.ENODEV)
        tree.write(path, text)

    return write


@pytest.mark.parametrize("name", ["sriov_numvfs", "drivers_probe"])
def test_the_first_error_is_reported(tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Not that autoprobe or a driver_override could not be put back after it. The record waits for the PF."""
    write = make_write(tree, name, lambda: pull(tree))
    monkeypatch.setattr(change, "write_text", write)
    monkeypatch.setattr(drivers, "write_text", write)
    with pytest.raises(SriovdpError) as caught:
        apply(TWO, tree.sysfs, journal)
    said = str(caught.value)
    assert f"/{name} failed: No such device (ENODEV); enp1s0 ({PF}) is gone, and nothing was undone; its record" in said
    assert "autoprobe" not in said
    assert "as it was" not in said
    assert survey_records(journal)[0][PF_ADDRESS].is_interrupted


def test_an_error_while_the_pf_is_there_is_the_first_one_too(
    tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of autoprobe the undo looks after."""

    def fail_later() -> None:
        tree_write = make_write(tree, "sriov_drivers_autoprobe", lambda: None)
        monkeypatch.setattr(change, "write_text", tree_write)

    monkeypatch.setattr(drivers, "write_text", make_write(tree, "drivers_probe", fail_later))
    with pytest.raises(KernelError, match=r"VF 0: bind to its kernel driver failed: writing .*/drivers_probe failed"):
        apply(TWO, tree.sysfs, journal)


def test_a_pf_that_vanishes_after_its_last_step_is_not_verified(
    tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left to do of what is gone, and it is not as wanted."""
    run = Change.run

    def run_and_pull(self: Change, steps: list[Step]) -> None:
        run(self, steps)
        pull(tree)

    monkeypatch.setattr(Change, "run", run_and_pull)
    with pytest.raises(
        DeviceError, match=rf"enp1s0 \({PF}\): this PF is gone; enp1s0 \({PF}\) is gone, and nothing was"
    ):
        apply(TWO, tree.sysfs, journal)
    assert survey_records(journal)[0][PF_ADDRESS].is_interrupted


def test_what_this_run_made_is_not_used_by_others(
    tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A netdev that never comes; and a network manager that takes what is new. A pod or a program is a user."""

    def never(*_: object, **__: object) -> str:
        (tree.pci(vf_address(PF, 0)) / "net/v0110f0/upper_eth9").mkdir()
        raise DeviceError("no netdev 30 s after it was bound to igbvf")

    monkeypatch.setattr(drivers, "wait_for_netdev", never)
    with pytest.raises(DeviceError, match=r"no netdev 30 s .*; enp1s0 was brought back to what it was before"):
        apply(TWO, tree.sysfs, journal)
    assert survey_records(journal)[0] == {}
    monkeypatch.setattr("sriovdp.provision.usage.find_holder", lambda *_: "process 7 (testpmd)")
    with pytest.raises(DeviceError, match=r"enp1s0 was left as it is now: .*VF 1 .* is used by process 7 \(testpmd\)"):
        apply(make_config(2, {"0": "kernel", "1": "vfio-pci"}), tree.sysfs, journal)
