"""What is set of a VF through its PF, as steps: admin MAC or GUID, VLAN, checks, rates. No I/O.

A MAC or GUID that this program makes is a service: where no driver takes it the VF is good without. What the config
gives is wanted, so a driver that refuses it is an error.
"""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sriovdp.config.values import VfConfig
from sriovdp.model import NO_DRIVER, ZERO_MAC, PhysicalFunction, VfSettings, VirtualFunction, is_userspace
from sriovdp.provision.steps import SetAdminMac, SetGuid, SetVf, SetVfMac, Step

NO_GUID = ":".join(["00"] * 8)
_NO_SETTINGS = VfSettings(ZERO_MAC)  # of a VF whose PF has none


def make_stable_mac(pf_mac: str, index: int) -> str:
    """Admin MAC of a VF that is the same after each boot and on no other node.

    The first 6 bytes of SHA-256 of `PFMAC/INDEX` (the PF's permanent MAC in lower case, index decimal), made a locally
    administered unicast address: bit 1 of the first byte set, bit 0 cleared (IEEE 802, clause 8.4).
    """
    return _make_local(f"{pf_mac.lower()}/{index}", 6)


def make_stable_guid(pf_guid: str, index: int) -> str:
    """GUID of an InfiniBand VF that is the same after each boot and on no other node.

    The first 8 bytes of SHA-256 of `PFGUID/INDEX`, made a locally administered EUI-64 in the same way as a MAC.
    """
    return _make_local(f"{pf_guid.lower()}/{index}", 8)


def _make_local(seed: str, length: int) -> str:
    digest = hashlib.sha256(seed.encode()).digest()
    return bytes([digest[0] & 0xFC | 0x02, *digest[1:length]]).hex(":")


@dataclass(frozen=True, slots=True)
class Derived:
    """What is known of the MACs and GUIDs that this program makes for one VF.

    `made` are stable MACs that are as good as the one of now, as an apply made them from another MAC. `refused` says
    whose driver took none: that of the PF (`PF`), or that of the VF's netdev too (`VF`).
    """

    made: Collection[str] = ()
    refused: str = ""


NOTHING_DERIVED = Derived()


def plan_settings(
    pf: PhysicalFunction, index: int, vf: VirtualFunction | None, wish: VfConfig, known: Derived = NOTHING_DERIVED
) -> Iterator[Step]:
    """What to set through the PF; nothing where the PF has no netdev to do it, or where it cannot be read.

    Where the PF's driver has no settings of VFs, what the config gives is tried all the same: the kernel says why not.
    """
    if pf.netdev is None or (vf and vf.settings is None and pf.sets_vfs):
        return
    address, now = (vf.address, vf.settings or _NO_SETTINGS) if vf else (None, None)
    if pf.traits.link_type == "infiniband":
        yield from _plan_guid(pf, index, vf, known)
    else:
        yield from _plan_mac(pf, index, vf, wish, known)
    for changes in _list_changes(wish, now):
        yield SetVf(pf.address, pf.name, _explain(changes, now), index, address, changes)


def plan_netdev_mac(
    pf: PhysicalFunction,
    index: int,
    vf: VirtualFunction | None,
    wish: VfConfig,
    known: Derived = NOTHING_DERIVED,
    *,
    rebound: bool = False,
) -> Iterator[SetVfMac]:
    """The stable MAC on the VF's own netdev, where no PF can take it. `rebound`: the netdev of now will be gone."""
    if pf.netdev is None or (takes_mac(pf, vf, known) or (vf and known.refused == "VF")):
        return
    mac = find_mac(wish, pf.netdev.own_mac, index)
    has_netdev = not (wish.driver == NO_DRIVER or is_userspace(wish.driver))
    if mac is None or not is_derived(wish, index) or not has_netdev or pf.traits.link_type == "infiniband":
        return
    current = vf.netdev.mac if vf and vf.netdev and not rebound else None
    if current != mac and current not in known.made:
        reason = f"{pf.name} takes no admin MAC, and the MAC has to be the same after each boot"
        yield SetVfMac(pf.address, pf.name, reason, index, vf.address if vf else None, current, mac)


def takes_mac(pf: PhysicalFunction, vf: VirtualFunction | None, known: Derived) -> bool:
    """Whether the PF may take what this program makes for a VF. One that is created again is tried again."""
    return pf.sets_vfs and not (vf and known.refused)


def is_derived(wish: VfConfig, index: int) -> bool:
    """Whether the config wants a stable MAC for a VF."""
    return wish.mac == "stable" if isinstance(wish.mac, str) else index not in wish.mac


def find_mac(wish: VfConfig, pf_mac: str, index: int) -> str | None:
    """The admin MAC that the config wants for a VF, None when it does not care. `pf_mac` is the PF's permanent one."""
    if isinstance(wish.mac, str):
        return make_stable_mac(pf_mac, index) if wish.mac == "stable" else None
    return wish.mac.get(index) or make_stable_mac(pf_mac, index)


def _plan_mac(
    pf: PhysicalFunction, index: int, vf: VirtualFunction | None, wish: VfConfig, known: Derived
) -> Iterator[Step]:
    now = (vf.settings or _NO_SETTINGS) if vf else None
    mac = find_mac(wish, pf.netdev.own_mac, index) if pf.netdev else None
    derived = is_derived(wish, index)
    if mac is None or (now and (now.mac == mac or (derived and now.mac in known.made))):
        return
    if not pf.sets_vfs and vf and vf.netdev and vf.netdev.mac == mac:
        return  # the PF took it and does not report it (freescale/enetc/enetc_pf.c), or the netdev has it by itself
    if derived and not takes_mac(pf, vf, known):
        return
    reason = "a new VF"
    if now:
        reason = "the MAC has to be the same after each boot" if derived else "the config gives it this MAC"
    place, current = (vf.address if vf else None), (now.mac if now else None)
    yield SetAdminMac(pf.address, pf.name, reason, index, place, current, mac, derived)


def _plan_guid(pf: PhysicalFunction, index: int, vf: VirtualFunction | None, known: Derived) -> Iterator[Step]:
    """A VF without GUID cannot be used; one that somebody gave is as good as ours. A new VF has none."""
    now = vf.settings if vf else None
    has_one = now is not None and NO_GUID not in {now.node_guid, now.port_guid}
    if pf.traits.guid is None or has_one or not takes_mac(pf, vf, known):
        return
    guid = make_stable_guid(pf.traits.guid, index)
    yield SetGuid(pf.address, pf.name, "it has none" if vf else "a new VF", index, vf.address if vf else None, guid)


def _list_changes(wish: VfConfig, now: VfSettings | None) -> Iterator[dict[str, Any]]:
    """Groups of settings that the kernel takes as a whole, where one differs; all that is wanted for a new VF."""
    if wish.vlan is not None and (now is None or now.vlan != wish.vlan):
        yield {"vlan": wish.vlan, "qos": 0}
    for name in ("spoofchk", "trust"):
        wanted, current = getattr(wish, name), getattr(now, name) if now else None
        if wanted is not None and current != wanted and (wanted or current is not None or now is None):
            yield {name: wanted}
    rates = {name: getattr(wish, name) for name in ("min_tx_rate", "max_tx_rate")}
    if any(rate is not None for rate in rates.values()):
        full = {n: rate if rate is not None else (getattr(now, n) if now else 0) for n, rate in rates.items()}
        if any(rate != (getattr(now, name) if now else 0) for name, rate in full.items()):
            yield full


def _explain(changes: dict[str, Any], now: VfSettings | None) -> str:
    if now is None:
        return "a new VF"
    told = {name: value for name, value in changes.items() if name != "qos"}
    current = " and ".join(str(getattr(now, name)) for name in told)
    return f"the config wants {' and '.join(map(str, told.values()))}, it is {current}"
