"""The e-switch mode of a PF: what changes it, who is in the way, and how it is changed.

The mode is changed while the PF has no VFs, and VFs are created after it: the only order that all drivers take. ice
refuses a change with VFs (intel/ice/ice_eswitch.c, ice_eswitch_mode_set); mlx5_core brings its VFs' ports down and up
again, and some firmware fails then; bnxt_en makes representors of the VFs that it has or gets. Before Linux 5.10
mlx5_core ("SRIOV legacy not enabled", mellanox/mlx5/core/eswitch_offloads.c) wants VFs first, and so does bnxt_en
before 6.4 ("Enable VFs before setting switchdev mode", broadcom/bnxt/bnxt_vfr.c): what they refuse is tried again with
VFs that have no driver yet. With both, removing the VFs also ends the mode: it is set again then.
"""

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from sriovdp.config.values import PfConfig
from sriovdp.errors import KernelError
from sriovdp.kernel.eswitch import Eswitches
from sriovdp.model import Eswitch, PhysicalFunction
from sriovdp.provision.steps import SetEswitchMode, SetNumVfs, Step
from sriovdp.provision.waiting import Report
from sriovdp.state.provisioned import PfState

_LEGACY, _SWITCHDEV = "legacy", "switchdev"
_WANT_VFS = frozenset({errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP})
_HINTS = {
    errno.EOPNOTSUPP: "the driver cannot do this; remove eSwitchMode from the PF's entry",
    errno.ENODEV: "the driver has no devlink; remove eSwitchMode from the PF's entry",
    errno.EBUSY: "remove tc rules, IPsec states and bonds of this PF, then apply again",
}


def find_mode(pf: PhysicalFunction) -> str:
    """The mode of a PF now. A NIC that reports none works as in legacy mode."""
    return pf.eswitch.mode if pf.eswitch else _SWITCHDEV if pf.switchdev else _LEGACY


def plan_mode(pf: PhysicalFunction, mode: str | None, vfs: int, reason: str = "") -> list[Step]:
    """The steps to a mode: the VFs of now go first, and `vfs` are made by steps that follow. Nothing for None."""
    now = find_mode(pf)
    if mode is None or mode == now:
        return []
    reason = reason or f"eSwitchMode is {mode}, it is {now}"
    steps: list[Step] = []
    if pf.vfs:
        steps.append(SetNumVfs(pf.address, pf.name, reason, len(pf.vfs), 0))
    kept = pf.eswitch or Eswitch(now)
    steps.append(SetEswitchMode(pf.address, pf.name, reason, now, mode, kept.inline, kept.encap, vfs))
    return steps


def plan_rest(pf: PhysicalFunction, before: Eswitch | None, steps: Iterable[Step]) -> Iterator[Step]:
    """Inline and encap mode as they were, when an apply was interrupted between the mode and them."""
    now = pf.eswitch
    if before is None or now is None or any(isinstance(step, SetEswitchMode) for step in steps):
        return
    if (now.inline, now.encap) != (before.inline, before.encap):
        reason = "they were so before an interrupted apply"
        yield SetEswitchMode(pf.address, pf.name, reason, now.mode, now.mode, before.inline, before.encap, len(pf.vfs))


def warn_of_mode(pf: PhysicalFunction, entry: PfConfig) -> Iterator[str]:
    """Sentences about a mode that is not, or cannot be, as somebody may expect."""
    wanted, now = entry.eswitch_mode, find_mode(pf)
    if wanted is None and pf.switchdev:
        listed = ", ".join(vf.representor for vf in pf.vfs if vf.representor) or "none yet"
        yield f"{pf.name} is in switchdev mode; representors of its VFs: {listed}"
    elif wanted not in {None, now} and entry.externally_managed:
        yield f"{pf.name} is in {now} mode, eSwitchMode is {wanted}, and externallyManaged leaves that to others"
    elif wanted == _SWITCHDEV and pf.eswitch is None:
        yield f"{pf.name}: its driver {pf.driver or '(none)'} reports no e-switch mode; it may have none"


def list_mode_obstacles(pf: PhysicalFunction, steps: Iterable[Step]) -> Iterator[str]:
    """Subfunctions exist in switchdev mode only, and the drivers do not ask who uses them."""
    step = next((step for step in steps if isinstance(step, SetEswitchMode)), None)
    if step and pf.sfs and step.current != step.wanted:
        listed = ", ".join(sf.name for sf in pf.sfs)
        yield f"{pf.name} has subfunctions ({listed}), which would be lost; in the way of: {step}"


def remember_mode(state: PfState, pf: PhysicalFunction, entry: PfConfig | None) -> PfState:
    """The state with the mode of now, when the config wants one and none was recorded before."""
    if entry is None or entry.eswitch_mode is None or entry.externally_managed or state.eswitch:
        return state
    return replace(state, eswitch=pf.eswitch or Eswitch(find_mode(pf)))


def check_mode(pf: PhysicalFunction, steps: Iterable[Step]) -> None:
    """Raise KernelError when VFs would go for a mode that the driver does not have."""
    wanted = next((step for step in steps if isinstance(step, SetEswitchMode)), None)
    if wanted and pf.vfs and pf.eswitch is None:
        with Eswitches() as eswitches:
            try:
                eswitches.read(pf.address)
            except KernelError as error:
                _explain(error, pf.driver)
                error.message = f"{wanted} failed: {error.message}"
                raise


@dataclass
class ModeChange:
    """Changes the mode of one PF, whose driver is `driver`. `_waiting` is what it refused without VFs."""

    pf: str
    report: Report
    driver: str | None = None
    _waiting: SetEswitchMode | None = None
    _before: Eswitch | None = None

    def change(self, step: SetEswitchMode) -> None:
        """Set the mode, and inline and encap mode back where the driver changed them. Raises KernelError."""
        try:
            self._set(step.wanted, step.inline, step.encap)
        except KernelError as error:
            if not step.vfs or error.errno not in _WANT_VFS:
                raise _explain(error, self.driver) from error
            self._waiting = step
            self.report(f"{step.pf_name}: its driver refuses this without VFs: {error.message}")

    def note(self) -> None:
        """Remember the mode: the VFs are about to be removed and made again."""
        with Eswitches() as eswitches:
            self._before = eswitches.find(self.pf)

    def finish(self) -> None:
        """VFs are there: do what waits for them; set a mode again that went with the old ones. Raises KernelError."""
        waiting, before = self._waiting, self._before
        self._waiting = self._before = None
        try:
            if waiting:
                self._set(waiting.wanted, waiting.inline, waiting.encap)
            elif before and before.mode == _SWITCHDEV:
                self._set(before.mode, before.inline, before.encap)
        except KernelError as error:
            raise _explain(error, self.driver) from error

    def _set(self, mode: str, inline: int | None, encap: int | None) -> None:
        """Not what is so already: bnxt_en takes that for an error (bnxt_dl_eswitch_mode_set)."""
        with Eswitches() as eswitches:
            now = eswitches.find(self.pf)
            if mode != (now.mode if now else _LEGACY):
                eswitches.set_mode(self.pf, mode)
                now = eswitches.find(self.pf)
            if now and inline is not None and now.inline != inline:
                eswitches.set_inline(self.pf, inline)
            if now and encap is not None and now.encap != encap:
                eswitches.set_encap(self.pf, encap)


def _explain(error: KernelError, driver: str | None) -> KernelError:
    """The driver's name before its words, and what to do."""
    error.message = f"driver {driver or '(none)'}: {error.message}"
    error.hint = _HINTS.get(error.errno, "the kernel log (dmesg) has the reason")
    return error
