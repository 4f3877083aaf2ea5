"""`eSwitchMode` on the software NIC: apply, reset, what is in use, what a driver refuses, a kill at each change."""

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from sriovdp.config.file import parse
from sriovdp.config.values import Config
from sriovdp.errors import KernelError, SriovdpError
from sriovdp.kernel import drivers
from sriovdp.kernel.eswitch import Eswitches
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs, write_text
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision import change
from sriovdp.provision.apply import apply
from sriovdp.provision.reset import reset
from sriovdp.state.journal import Journal
from tests.lab.vnic_cards import Card, run, stations

pytestmark = pytest.mark.lab(pfs=0, vnic="mlx5:2")

_Load = Callable[..., list[Card]]
SYSFS = Sysfs()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal of its own."""
    return Journal(tmp_path / "journal")


def make_config(card: Card, mode: str, vfs: int = 2, driver: str = "kernel") -> Config:
    """A config with this mode."""
    ranges = f"vfs: [{{range: 0-{vfs - 1}, driver: {driver}}}], " if vfs else ""
    entry = f"{{select: {{pciAddresses: ['{card.address}']}}, numVfs: {vfs}, {ranges}eSwitchMode: {mode}}}"
    return parse(f"physicalFunctions: [{entry}]", "test")


def mode_of(card: Card) -> str:
    """What `devlink` shows."""
    shown = json.loads(run("devlink", "-j", "dev", "eswitch", "show", f"pci/{card.address}").stdout)
    return str(shown["dev"][f"pci/{card.address}"]["mode"])


def set_mode(card: Card, mode: str) -> None:
    """By `devlink`."""
    done = run("devlink", "dev", "eswitch", "set", f"pci/{card.address}", "mode", mode)
    assert done.returncode == 0, done.stderr


def representors() -> list[str]:
    """Names of representors' ports, by the kernel."""
    ports = json.loads(run("devlink", "-j", "port").stdout)["port"].values()
    found = [port["netdev"] for port in ports if port["flavour"] == "pcivf"]
    return sorted(Path(f"/sys/class/net/{name}/phys_port_name").read_text().strip() for name in found)


@pytest.mark.parametrize("profile", ["ice", "mlx5", "bnxt"])
def test_a_pf_is_put_into_switchdev_mode_and_back(vnic: _Load, journal: Journal, profile: str) -> None:
    """With VFs before and after, on drivers with different rules; the snapshot names the representors."""
    (card,) = vnic(f"{profile}:4")
    card.up()
    card.write_numvfs(2)
    apply(make_config(card, "switchdev", 4), SYSFS, journal)
    assert (mode_of(card), card.numvfs(), len(representors())) == ("switchdev", 4, 4)
    (pf,) = take_snapshot(SYSFS).pfs
    assert pf.switchdev
    ports = [Path(f"/sys/class/net/{vf.representor}/phys_port_name").read_text().strip() for vf in pf.vfs]
    assert ports == [f"pf0vf{n}" for n in range(4)]
    assert apply(make_config(card, "switchdev", 4), SYSFS, journal).steps == ()
    reset(SYSFS, journal)
    assert (mode_of(card), card.numvfs(), representors()) == ("legacy", 2, [])


def test_a_mode_that_is_not_in_the_config_is_left_alone(vnic: _Load, journal: Journal) -> None:
    """Neither apply nor reset touches it."""
    (card,) = vnic("mlx5:2")
    set_mode(card, "switchdev")
    entry = f"{{select: {{pciAddresses: ['{card.address}']}}, numVfs: 2}}"
    done = apply(parse(f"physicalFunctions: [{entry}]", "test"), SYSFS, journal)
    assert (mode_of(card), card.numvfs()) == ("switchdev", 2)
    assert not any("mode" in str(step) for step in done.steps)
    set_mode(card, "legacy")
    reset(SYSFS, journal)
    assert (mode_of(card), card.numvfs()) == ("legacy", 0)


def test_switchdev_mode_of_before_comes_back(vnic: _Load, journal: Journal) -> None:
    """Also when the mode came into the config later than the PF."""
    (card,) = vnic("mlx5:2")
    set_mode(card, "switchdev")
    entry = f"{{select: {{pciAddresses: ['{card.address}']}}, numVfs: 1}}"
    apply(parse(f"physicalFunctions: [{entry}]", "test"), SYSFS, journal)
    apply(make_config(card, "legacy"), SYSFS, journal)
    assert (mode_of(card), card.numvfs()) == ("legacy", 2)
    reset(SYSFS, journal)
    assert (mode_of(card), card.numvfs()) == ("switchdev", 0)


def test_a_pf_without_vfs_gets_its_mode(vnic: _Load, journal: Journal) -> None:
    """`numVfs: 0` and a mode."""
    (card,) = vnic("ice:2")
    apply(make_config(card, "switchdev", 0), SYSFS, journal)
    assert mode_of(card) == "switchdev"
    reset(SYSFS, journal)
    assert mode_of(card) == "legacy"


def test_a_pf_with_a_vf_in_use_keeps_its_mode(vnic: _Load, journal: Journal) -> None:
    """The netdev of one is in another network namespace."""
    (card,) = vnic("mlx5:2")
    card.up()
    apply(make_config(card, "legacy"), SYSFS, journal)
    with stations(card.vf_netdev(1)):
        with pytest.raises(SriovdpError, match="another network namespace"):
            apply(make_config(card, "switchdev"), SYSFS, journal)
        assert (mode_of(card), card.numvfs()) == ("legacy", 2)


@pytest.mark.parametrize(
    ("profile", "words"), [("i40e", "driver i40e.*reports no e-switch mode"), ("idpf", "driver idpf.*No such")]
)
def test_a_driver_without_modes_is_named(vnic: _Load, journal: Journal, profile: str, words: str) -> None:
    """Its VFs stay; the error has its words and a hint. Legacy mode is what it has."""
    (card,) = vnic(f"{profile}:2")
    card.up()
    apply(make_config(card, "legacy"), SYSFS, journal)
    before = card.vf(0).stat().st_ino
    with pytest.raises(KernelError, match=f"{card.netdev}.*{words}.*remove eSwitchMode"):
        apply(make_config(card, "switchdev"), SYSFS, journal)
    assert (card.numvfs(), card.vf(0).stat().st_ino) == (2, before)


def test_subfunctions_are_in_the_way(vnic: _Load, journal: Journal) -> None:
    """Legacy mode has none."""
    (card,) = vnic("mlx5:2")
    set_mode(card, "switchdev")
    words = ["flavour", "pcisf", "pfnum", "0", "sfnum", "7"]
    assert run("devlink", "port", "add", f"pci/{card.address}", *words).returncode == 0
    port = f"pci/{card.address}/{0x8000 + 7}"
    assert run("devlink", "port", "function", "set", port, "state", "active").returncode == 0
    with pytest.raises(SriovdpError, match="has subfunctions"):
        apply(make_config(card, "legacy"), SYSFS, journal)
    assert mode_of(card) == "switchdev"


def test_a_failure_after_the_mode_brings_it_back(vnic: _Load, journal: Journal) -> None:
    """VFs that cannot be made."""
    (card,) = vnic("ice:4/numvfs_at_most=1")
    card.up()
    with pytest.raises(SriovdpError, match="brought back to what it was before"):
        apply(make_config(card, "switchdev", 3), SYSFS, journal)
    assert (mode_of(card), card.numvfs()) == ("legacy", 0)


@contextmanager
def dying(changes: int) -> Iterator[None]:
    """This process kills itself before its next change after so many."""
    left = [changes]

    def guard(function: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **keywords: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return function(*arguments, **keywords)

        return guarded

    with (
        mock.patch.object(change, "write_text", guard(write_text)),
        mock.patch.object(drivers, "write_text", guard(write_text)),
        mock.patch.object(Journal, "write_pf", guard(Journal.write_pf)),
        mock.patch.object(Netlink, "set_vf", guard(Netlink.set_vf)),
        mock.patch.object(Netlink, "set_link", guard(Netlink.set_link)),
        mock.patch.object(Eswitches, "set_mode", guard(Eswitches.set_mode)),
    ):
        yield


def apply_and_die(config: Config, journal: Journal, changes: int) -> bool:
    """Apply in a process that is killed after so many changes; whether it came to that."""
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"apply failed: {status}"
        return os.WIFSIGNALED(status)
    try:
        with dying(changes):
            apply(config, SYSFS, journal)
    except BaseException:  # noqa: BLE001 - this process must not go on with the test
        traceback.print_exc(file=sys.__stderr__)
        os._exit(1)
    os._exit(0)


def test_killed_at_each_change(vnic: _Load, journal: Journal) -> None:
    """The next apply ends where the config says, and reset where it all began."""
    (card,) = vnic("ice:2/netdev_ms=0")
    config = make_config(card, "switchdev")
    changes = 0
    while True:
        card.write_numvfs(1)
        died = apply_and_die(config, journal, changes)
        apply(config, SYSFS, journal)
        assert (mode_of(card), card.numvfs(), len(representors())) == ("switchdev", 2, 2), changes
        reset(SYSFS, journal)
        assert (mode_of(card), card.numvfs()) == ("legacy", 1), changes
        card.write_numvfs(0)
        if not died:
            break
        changes += 1
    assert changes > 6


def test_plan_says_what_happens(vnic: _Load, tmp_path: Path) -> None:
    """In words, with what it disturbs."""
    (card,) = vnic("ice:2")
    card.up()
    card.write_numvfs(2)
    file = tmp_path / "config.yaml"
    file.write_text(
        f"physicalFunctions: [{{select: {{pciAddresses: ['{card.address}']}}, numVfs: 2, eSwitchMode: switchdev}}]\n"
    )
    command = [sys.executable, "-m", "sriovdp.cli.main", "plan", "--config", str(file), "--state-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(card.netdev)]
    assert [line.partition("  ")[0] for line in lines[:3]] == [
        f"{card.netdev}: remove its 2 VFs",
        f"{card.netdev}: set e-switch mode switchdev",
        f"{card.netdev}: create 2 VFs",
    ]
    assert "eSwitchMode is switchdev, it is legacy" in lines[1]
