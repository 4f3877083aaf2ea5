"""The way back: the steps that bring a PF to a state that was recorded. No I/O. Undoing and resetting are both this."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sriovdp.model import NO_DRIVER, ZERO_MAC, PhysicalFunction, VfSettings, VirtualFunction, is_userspace
from sriovdp.provision.eswitch import plan_mode
from sriovdp.provision.steps import (
    BindDriver,
    SetAdminMac,
    SetAutoprobe,
    SetLink,
    SetMtu,
    SetNumVfs,
    SetVf,
    SetVfMac,
    SetVfMtu,
    Step,
)
from sriovdp.state.provisioned import PfState, VfState

NONE_REFUSED: Mapping[str, str] = MappingProxyType({})
_REASON = "it was so before"
_NEW_VF = VfSettings(ZERO_MAC, spoofchk=True, trust=False, link_state="auto")
"""What the kernel's drivers give a VF that is new."""


def plan_return(
    state: PfState, pf: PhysicalFunction, refused: Mapping[str, str] = NONE_REFUSED, *, keep_number: bool = False
) -> tuple[Step, ...]:
    """Find what has to be done to a PF to have it as it was, in the order in which it is to be done.

    `refused` are the VFs, by index, whose MAC is on their netdev only. With `keep_number` somebody else says how many
    VFs there are: those that are still there get back what they had.
    """
    steps: list[Step] = []
    if keep_number:
        kept = {vf.index for vf in pf.vfs}
        state = replace(state, vfs=tuple(vf for vf in state.vfs if vf.index in kept))
    mode = state.eswitch.mode if state.eswitch and not keep_number else None
    steps += plan_mode(pf, mode, len(state.vfs), _REASON)
    there = 0 if steps else len(pf.vfs)
    recreated = bool(steps) or (there != len(state.vfs) and not keep_number)
    if recreated and there != len(state.vfs):
        steps.append(SetNumVfs(pf.address, pf.name, _REASON, there, len(state.vfs)))
    now = {} if recreated else {vf.index: vf for vf in pf.vfs}
    for vf in state.vfs:
        steps += _return_settings(pf, vf, now.get(vf.index))
    binds = [bind for vf in state.vfs if (bind := _return_driver(pf, vf, now.get(vf.index)))]
    steps += [bind for bind in binds if is_userspace(bind.wanted)]
    steps += [bind for bind in binds if not is_userspace(bind.wanted)]
    bound = {bind.index for bind in binds}
    for vf in state.vfs:
        rebound = recreated or vf.index in bound
        if not pf.sets_vfs or vf.settings is None or str(vf.index) in refused:
            steps += _return_mac(pf, vf, now.get(vf.index), rebound=rebound)
        steps += _return_mtu(pf, vf, now.get(vf.index), rebound=rebound)
    return (*steps, *_return_pf(state, pf))


def _return_pf(state: PfState, pf: PhysicalFunction) -> Iterator[Step]:
    if pf.netdev and state.mtu and pf.netdev.mtu != state.mtu:
        yield SetMtu(pf.address, pf.name, _REASON, pf.netdev.mtu, state.mtu)
    if pf.autoprobe != state.autoprobe:
        yield SetAutoprobe(pf.address, pf.name, _REASON, state.autoprobe)
    if pf.netdev and state.up is False and pf.netdev.up and not pf.traits.host_use:
        yield SetLink(pf.address, pf.name, _REASON, up=False)


def _return_settings(pf: PhysicalFunction, was: VfState, vf: VirtualFunction | None) -> Iterator[Step]:
    now = _NEW_VF if vf is None else vf.settings
    if pf.netdev is None or was.settings is None or now is None:
        return
    address = vf.address if vf else None
    changes: dict[str, Any] = now.changes_to(was.settings)
    changes.pop("vlan_proto", None)
    if (mac := changes.pop("mac", None)) is not None:
        yield SetAdminMac(pf.address, pf.name, _REASON, was.index, address, now.mac, mac)
    for group in (("vlan", "qos"), ("min_tx_rate", "max_tx_rate"), ("spoofchk",), ("trust",), ("link_state",)):
        if group[0] in changes:
            part = {name: changes[name] for name in group}
            yield SetVf(pf.address, pf.name, _REASON, was.index, address, part)


def _return_driver(pf: PhysicalFunction, was: VfState, vf: VirtualFunction | None) -> BindDriver | None:
    current = vf.driver if vf else None
    address = vf.address if vf else None
    if current != was.driver:
        wanted = was.driver or NO_DRIVER  # without an IOMMU it was allowed then
        return BindDriver(pf.address, pf.name, _REASON, was.index, address, current, wanted, noiommu=True)
    if vf is None or vf.netdev is None or current is None or vf.settings is None or was.settings is None:
        return None
    if was.settings.mac in {vf.settings.mac, ZERO_MAC}:
        return None
    reason = "a driver takes an admin MAC over when it is bound"
    return BindDriver(pf.address, pf.name, reason, was.index, address, current, current, again=True)


def _return_mac(pf: PhysicalFunction, was: VfState, vf: VirtualFunction | None, *, rebound: bool) -> Iterator[Step]:
    current = vf.netdev.mac if vf and vf.netdev and not rebound else None
    if was.mac and current != was.mac and (rebound or current is not None):
        yield SetVfMac(pf.address, pf.name, _REASON, was.index, vf.address if vf else None, current, was.mac)


def _return_mtu(pf: PhysicalFunction, was: VfState, vf: VirtualFunction | None, *, rebound: bool) -> Iterator[Step]:
    current = vf.netdev.mtu if vf and vf.netdev and not rebound else None
    if was.mtu and current != was.mtu and (rebound or current is not None):
        yield SetVfMtu(pf.address, pf.name, _REASON, was.index, vf.address if vf else None, current, was.mtu)
