"""What is set of a VF through its PF, as steps: admin MAC or GUID, VLAN, checks, rates. No I/O."""

import hashlib
from collections.abc import Collection, Iterator
from typing import Any

from sriovdp.config.values import VfConfig
from sriovdp.model import PhysicalFunction, VfSettings, VirtualFunction
from sriovdp.provision.steps import SetAdminMac, SetGuid, SetVf, Step

NO_GUID = ":".join(["00"] * 8)


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


def plan_settings(
    pf: PhysicalFunction, index: int, vf: VirtualFunction | None, wish: VfConfig, made: Collection[str] = ()
) -> Iterator[Step]:
    """What to set through the PF; nothing where the PF has no netdev to do it, or where it cannot be read.

    `made` are stable MACs of this VF that are as good as the one of now, as an apply made them from another MAC.
    """
    if pf.netdev is None or (vf and vf.settings is None):
        return
    address, now = (vf.address, vf.settings) if vf else (None, None)
    if pf.traits.link_type == "infiniband":
        yield from _plan_guid(pf, index, vf)
    else:
        yield from _plan_mac(pf, index, vf, wish, made)
    for changes in _list_changes(wish, now):
        yield SetVf(pf.address, pf.name, _explain(changes, now), index, address, changes)


def is_derived(wish: VfConfig, index: int) -> bool:
    """Whether the config wants a stable MAC for a VF."""
    return wish.mac == "stable" if isinstance(wish.mac, str) else index not in wish.mac


def find_mac(wish: VfConfig, pf_mac: str, index: int) -> str | None:
    """The admin MAC that the config wants for a VF, None when it does not care. `pf_mac` is the PF's permanent one."""
    if isinstance(wish.mac, str):
        return make_stable_mac(pf_mac, index) if wish.mac == "stable" else None
    return wish.mac.get(index) or make_stable_mac(pf_mac, index)


def _plan_mac(
    pf: PhysicalFunction, index: int, vf: VirtualFunction | None, wish: VfConfig, made: Collection[str]
) -> Iterator[Step]:
    now = vf.settings if vf else None
    mac = find_mac(wish, pf.netdev.own_mac, index) if pf.netdev else None
    derived = is_derived(wish, index)
    if mac is None or (now and (now.mac == mac or (derived and now.mac in made))):
        return
    reason = "a new VF"
    if now:
        reason = "the MAC has to be the same after each boot" if derived else "the config gives it this MAC"
    yield SetAdminMac(pf.address, pf.name, reason, index, vf.address if vf else None, now.mac if now else None, mac)


def _plan_guid(pf: PhysicalFunction, index: int, vf: VirtualFunction | None) -> Iterator[Step]:
    """A VF without GUID cannot be used; one that somebody gave is as good as ours. A new VF has none."""
    now = vf.settings if vf else None
    if pf.traits.guid is None or (now and NO_GUID not in {now.node_guid, now.port_guid}):
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
