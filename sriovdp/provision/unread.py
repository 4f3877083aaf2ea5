"""VFs that the kernel leaves out of a PF's list: their settings are neither as wanted nor different.

Drivers do so for a moment, as i40e while it does another operation, or as long as a VF is in reset, as ice does, which
also stalls each look by 800 ms for each such VF (intel/ice/ice_vf_lib.c, ice_check_vf_ready_for_cfg). So a look is
repeated for a while, with pauses as long as the look took.
"""

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from sriovdp.config.ranges import VfIndices
from sriovdp.config.values import PfConfig, VfConfig
from sriovdp.errors import VerifyError
from sriovdp.model import PhysicalFunction, VirtualFunction, name_vf
from sriovdp.provision.steps import SetNumVfs, Step
from sriovdp.provision.waiting import Report
from sriovdp.state.provisioned import PfState

T = TypeVar("T")

_SHORTEST_PAUSE = 0.1  # seconds
_LONGEST_PAUSE = 2.0
_SILENCE = 1.0
_FEWEST_LOOKS = 4
_HINT = "see the kernel log (dmesg) for its driver's reason, then try again"


def look_until_read(
    look: Callable[[], T], list_missing: Callable[[T], Sequence[str]], patience: float, report: Report
) -> T:
    """What a look found, repeated for `patience` seconds until everything could be read; 0 is one look.

    `list_missing` gives a sentence for each VF that could not be read, or several; a wait is reported once, by the
    first one. A slow machine gets a few looks all the same, in ten times that time at most.
    """
    began = time.monotonic()
    is_reported = False
    for looks in itertools.count(1):
        started = time.monotonic()
        found = look()
        now = time.monotonic()
        limit = patience if looks >= _FEWEST_LOOKS else 10 * patience
        missing = list_missing(found)
        if not missing or now - began >= limit:
            return found
        if not is_reported and now - began >= _SILENCE:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            report(f"{missing[0]}{more}; looking again for up to {patience:.0f} s")
            is_reported = True
        time.sleep(min(max(now - started, _SHORTEST_PAUSE), _LONGEST_PAUSE))
    raise AssertionError


def list_unread(
    pf: PhysicalFunction,
    entry: PfConfig,
    steps: Collection[Step],
    attached: Collection[str],
    *,
    is_unlisted: bool = False,
) -> Iterator[str]:
    """A sentence for each VF of which something is wanted and cannot be compared, or that a record would lack.

    VFs that are made again, and those that a pod has, need not be read. `is_unlisted` is as `lists_none` says: then
    only what the config gives counts.
    """
    if any(isinstance(step, SetNumVfs) for step in steps):
        return
    for vf in pf.unread:
        wish = entry.vf(vf.index)
        is_wanted = gives_settings(wish, vf.index) or (not is_unlisted and (bool(steps) or _wants_settings(pf, wish)))
        if is_wanted and vf.address not in attached and not vf.is_elsewhere:
            yield explain_unread(pf, vf)


def lists_none(pf: PhysicalFunction, made: Collection[int], refused: Collection[int]) -> bool:
    """Whether the kernel lists none of a PF's VFs, and is not known to have listed one before.

    A driver that is not allowed to read VFs answers so for all of them, always: mlx5_core of a host whose e-switch
    belongs to a DPU (mellanox/mlx5/core/eswitch.c, mlx5_eswitch_get_vport), mlx4_core of a slave. `made` are VFs with
    a MAC that an apply gave them, `refused` those of them where the PF did not take it.
    """
    return bool(pf.vfs) and len(pf.unread) == len(pf.vfs) and set(made) <= set(refused)


def gives_settings(wish: VfConfig, index: int) -> bool:
    """Whether the config gives something that is set through the PF; what this program makes by itself is not given."""
    settings = (wish.vlan, wish.spoofchk, wish.trust, wish.min_tx_rate, wish.max_tx_rate)
    has_mac = not isinstance(wish.mac, str) and index in wish.mac
    return has_mac or any(setting is not None for setting in settings)


def list_unread_before_return(state: PfState, pf: PhysicalFunction, *, keep_number: bool) -> list[str]:
    """A sentence for each VF whose settings have to be as they were, and cannot be read."""
    if len(pf.vfs) != len(state.vfs) and not keep_number:
        return []
    known = {vf.index for vf in state.vfs if vf.settings is not None}
    return [explain_unread(pf, vf) for vf in pf.unread if vf.index in known]


def explain_unread(pf: PhysicalFunction, vf: VirtualFunction) -> str:
    """Which VF could not be read, and why."""
    return (
        f"{name_vf(pf.name, vf.index, vf.address)}: its settings could not be read: the kernel leaves it out of the "
        f"list of {pf.name}'s VFs, as drivers do for a VF in reset"
    )


def explain_unlisted(pf: PhysicalFunction) -> str:
    """Of a PF none of whose VFs could be read: which they are, and why."""
    which = VfIndices.parse(",".join(str(vf.index) for vf in pf.unread))
    return f"{pf.name} VF {which} ({pf.address}): the kernel lists none of the PF's VFs"


def build_error(sentences: Sequence[str]) -> VerifyError:
    """The error of a PF that cannot be compared."""
    return VerifyError("; ".join(sentences), hint=_HINT)


def _wants_settings(pf: PhysicalFunction, wish: VfConfig) -> bool:
    """Whether a MAC or GUID has to be set through the PF."""
    return pf.traits.guid is not None if pf.traits.link_type == "infiniband" else wish.mac != "keep"
