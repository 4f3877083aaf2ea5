"""The e-switch mode of a PF: its steps, and drivers of other kernels than the lab's, as their sources have it."""

import errno
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

import pytest

from sriovdp.config.file import parse
from sriovdp.config.values import Config
from sriovdp.errors import KernelError
from sriovdp.model import Eswitch, Node
from sriovdp.provision import eswitch
from sriovdp.provision.eswitch import ModeChange
from sriovdp.provision.plan import Leftovers, plan
from sriovdp.provision.steps import SetEswitchMode
from tests.provision.test_plan import PF, STABLE, make_node


def make_config(mode: str, more: str = "") -> Config:
    """A config for the PF of the tests of plans."""
    return parse(
        f"physicalFunctions: [{{select: {{pfNames: [enp1s0]}}, numVfs: 2, eSwitchMode: {mode}{more}}}]", "test"
    )


def list_first(config: Config, node: Node, left: Leftovers | None = None) -> list[str]:
    """The steps at the PF itself."""
    found = plan(config, node, (), {PF.address: left} if left else {}).steps
    return [str(step) for step in found if not hasattr(step, "index")]


def test_vfs_go_before_a_mode_and_come_after_it() -> None:
    """The only order that all drivers take."""
    node = make_node(("igbvf", STABLE[0]), (None, STABLE[1]), pf=replace(PF, eswitch=Eswitch("legacy")))
    assert list_first(make_config("switchdev"), node) == [
        "enp1s0: remove its 2 VFs",
        "enp1s0: set e-switch mode switchdev",
        "enp1s0: create 2 VFs",
    ]
    assert list_first(make_config("legacy"), node) == []


def test_externally_managed_pfs_keep_their_mode() -> None:
    """With a warning."""
    node = make_node(pf=replace(PF, eswitch=Eswitch("legacy")))
    done = plan(make_config("switchdev", ", externallyManaged: true"), node)
    assert done.steps == ()
    assert any("leaves that to others" in warning for warning in done.warnings)


def test_inline_and_encap_mode_come_back_after_a_kill() -> None:
    """Between the change of the mode and theirs."""
    left = Leftovers(autoprobe=True, eswitch=Eswitch("legacy", 1, 1))
    node = make_node(pf=replace(PF, eswitch=Eswitch("switchdev", 0, 1), switchdev=True))
    assert "enp1s0: set e-switch inline and encap mode back in mode switchdev" in list_first(
        make_config("switchdev"), node, left
    )


@dataclass
class _Driver:
    """A driver's e-switch. `old` ones want VFs for switchdev mode, and lose it with them; `resets` inline mode."""

    old: bool = False
    resets: bool = False
    vfs: int = 0
    mode: str = "legacy"
    inline: int = 1

    def __call__(self) -> "_Driver":
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def find(self, _: str) -> Eswitch:
        """What devlink reports."""
        return Eswitch(self.mode, self.inline)

    def set_mode(self, _: str, mode: str) -> None:
        """bnxt_en refuses the mode that it has (bnxt_dl_eswitch_mode_set)."""
        if mode == self.mode:
            raise KernelError("already", errno=errno.EINVAL)
        if mode == "switchdev" and self.old and not self.vfs:
            raise KernelError("Enable VFs before setting switchdev mode", errno=errno.EPERM)
        self.mode, self.inline = mode, 0 if self.resets else self.inline

    def set_inline(self, _: str, inline: int) -> None:
        """As devlink has it."""
        self.inline = inline

    def write_vfs(self, vfs: int) -> None:
        """Write `sriov_numvfs`."""
        self.vfs = vfs
        if not vfs and self.old:
            self.mode = "legacy"


@pytest.fixture
def said() -> list[str]:
    """What is reported."""
    return []


def _begin(monkeypatch: pytest.MonkeyPatch, driver: _Driver, said: list[str]) -> ModeChange:
    monkeypatch.setattr(eswitch, "Eswitches", driver)
    return ModeChange(PF.address, said.append, "bnxt_en")


def _step(mode: str, vfs: int = 2) -> SetEswitchMode:
    return SetEswitchMode(PF.address, "enp1s0", "", "legacy", mode, 1, None, vfs)


def test_a_driver_that_wants_vfs_first_gets_them(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    """bnxt_en before Linux 6.4, mlx5_core before 5.10."""
    driver = _Driver(old=True)
    change = _begin(monkeypatch, driver, said)
    change.change(_step("switchdev"))
    assert driver.mode == "legacy"
    assert "Enable VFs before" in said[0]
    driver.write_vfs(2)
    change.finish()
    assert driver.mode == "switchdev"


def test_without_vfs_to_come_its_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    """With the driver's name and words."""
    change = _begin(monkeypatch, _Driver(old=True), said)
    with pytest.raises(KernelError, match="driver bnxt_en: Enable VFs before"):
        change.change(_step("switchdev", 0))


def test_a_mode_that_goes_with_the_vfs_is_set_again(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    """When only their number changes."""
    driver = _Driver(old=True, vfs=2, mode="switchdev")
    change = _begin(monkeypatch, driver, said)
    change.note()
    driver.write_vfs(0)
    driver.write_vfs(4)
    change.finish()
    assert driver.mode == "switchdev"


def test_what_is_so_already_is_not_set(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    """The VFs of an old bnxt_en took the mode with them, and it refuses the mode that it has."""
    driver = _Driver(old=True, vfs=2, mode="switchdev")
    change = _begin(monkeypatch, driver, said)
    driver.write_vfs(0)
    change.change(_step("legacy"))
    assert driver.mode == "legacy"


def test_inline_mode_is_kept(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    """A driver may change it with the mode."""
    driver = _Driver(resets=True)
    with suppress(KernelError):
        _begin(monkeypatch, driver, said).change(_step("switchdev"))
    assert (driver.mode, driver.inline) == ("switchdev", 1)
