"""SIGKILL of a real process at every change of a real sysfs, then apply again: it always ends where the config says."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from sriovdp.config.file import parse
from sriovdp.config.values import Config
from sriovdp.kernel import drivers
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs, read_text, write_text
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision import change
from sriovdp.provision.apply import apply
from sriovdp.provision.reset import reset
from sriovdp.state.journal import Journal
from tests.lab.node import LabNode

pytestmark = pytest.mark.lab

SYSFS = Sysfs()


def make_config(*wished: str) -> Config:
    """A config with a driver for each VF."""
    vfs = [f'{{range: "{index}", driver: {driver}, trust: true}}' for index, driver in enumerate(wished)]
    entry = f"{{select: {{vendors: ['8086'], devices: ['10c9']}}, numVfs: {len(wished)}, vfs: [{', '.join(vfs)}]}}"
    return parse(f"physicalFunctions: [{entry}]", "test")


TWO = make_config("kernel", "vfio-pci")
FIRST = make_config("kernel", "vfio-pci", "igb_uio")
SECOND = make_config("igb_uio", "kernel", "vfio-pci")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LabNode]:
    """The lab's node without VFs; the modules are loaded, so that all that is killed are changes of devices."""
    node = LabNode(tmp_path / "unused")
    node.remove_vfs()
    yield node
    node.remove_vfs()


def apply_and_die(config: Config, journal: Journal, changes: int) -> bool:
    """Apply in a process that kills itself before its next change after so many; whether it came to that."""
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"apply failed: {status}"
        return os.WIFSIGNALED(status)
    left = [changes]

    def guard(function: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **keywords: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return function(*arguments, **keywords)

        return guarded

    with suppress(BaseException):
        with (
            mock.patch.object(change, "write_text", guard(write_text)),
            mock.patch.object(drivers, "write_text", guard(write_text)),
            mock.patch.object(Journal, "write_pf", guard(Journal.write_pf)),
            mock.patch.object(Netlink, "set_vf", guard(Netlink.set_vf)),
            mock.patch.object(Netlink, "set_link", guard(Netlink.set_link)),
        ):
            apply(config, SYSFS, journal)
        os._exit(0)
    os._exit(1)


def check(node: LabNode, config: Config) -> None:
    """VFs are on the drivers of the config, with their MACs; nothing is left over."""
    wanted = [vf.driver.replace("kernel", "igbvf") for vf in config.physical_functions[0].vfs]
    assert [(node.pf / f"virtfn{index}/driver").resolve().name for index in range(len(wanted))] == wanted
    (pf,) = take_snapshot(SYSFS).pfs
    assert all(vf.settings and vf.settings.trust for vf in pf.vfs)
    assert [vf.netdev.mac == vf.settings.mac for vf in pf.vfs if vf.netdev and vf.settings] == [True]
    assert read_text(node.pf / "sriov_drivers_autoprobe") == "1"
    assert {read_text(node.pf / f"virtfn{index}/driver_override") for index in range(len(wanted))} == {"(null)"}


@pytest.mark.parametrize("part", range(2))
def test_creation_converges_after_a_kill_at_any_change(node: LabNode, tmp_path: Path, part: int) -> None:
    """From no VFs to two, half of the points in each part; and reset takes them away again."""
    for changes in range(part, 60, 2):
        node.remove_vfs()
        journal = Journal(tmp_path / str(changes))
        killed = apply_and_die(TWO, journal, changes)
        apply(TWO, SYSFS, journal)
        check(node, TWO)
        if not killed:
            assert changes > 12
            reset(SYSFS, journal)
            assert read_text(node.pf / "sriov_numvfs") == "0"
            return
    pytest.fail("there are more changes than were thought of")


def test_a_reset_after_a_kill_brings_back_what_was(node: LabNode, tmp_path: Path) -> None:
    """The VFs are there, none of them has its driver: they go, and autoprobe is as it was."""
    journal = Journal(tmp_path / "journal")
    assert apply_and_die(TWO, journal, 4)
    assert read_text(node.pf / "sriov_numvfs") == "2"
    assert read_text(node.pf / "sriov_drivers_autoprobe") == "0"
    reset(SYSFS, journal)
    assert (read_text(node.pf / "sriov_numvfs"), read_text(node.pf / "sriov_drivers_autoprobe")) == ("0", "1")


def test_change_of_drivers_converges_after_a_kill_at_any_change(node: LabNode, tmp_path: Path) -> None:
    """Back and forth between two configs, killed at one change later each time."""
    journal = Journal(tmp_path / "journal")
    apply(FIRST, SYSFS, journal)
    for changes in range(60):
        config = (SECOND, FIRST)[changes % 2]
        killed = apply_and_die(config, journal, changes)
        apply(config, SYSFS, journal)
        check(node, config)
        if not killed:
            assert changes > 10
            return
    pytest.fail("there are more changes than were thought of")
