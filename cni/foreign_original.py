"""How a VF was before another plugin took it, as far as that plugin's state file says.

The file may be truncated or of another version: what is of a wrong type or shape is left out, never guessed.
"""

import re
from collections.abc import Mapping
from typing import Any

from cni.foreign_infiniband import is_infiniband, read_infiniband
from cni.protocol.keys import is_ifname
from sriovdp.errors import SriovdpError
from sriovdp.kernel import drivers
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import KERNEL_DRIVER, PciAddress, VfSettings, is_userspace
from sriovdp.state.journal import Original

_PROTOCOLS = {0x88A8: "802.1ad", 0xA888: "802.1ad"}  # the second is how v2.8 cached it
_LINK_STATES = ("auto", "enable", "disable")
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?:(?::[0-9a-f]{2}){14})?")  # 20 bytes on InfiniBand
_MAX_NUMBER = 2**32 - 1


def read_original(document: Mapping[str, Any], sysfs: Sysfs, device: PciAddress) -> Original:
    """The VF's original. Field names are those of sriov-cni's pkg/types/types.go.

    sriov-cni never changes a driver. The plugin of 2017 does in DPDK mode and notes the old one; that note is not
    followed, since it names a module to load: the VF's own kernel driver comes back.
    """
    driver = drivers_of(sysfs, device)
    if "pci_addr" in document:
        return Original(_find_own_driver(sysfs, device) if is_userspace(driver) else driver, None)
    if is_infiniband(document):
        return read_infiniband(document, sysfs, device, driver)
    given = document.get("OrigVfState")
    state: Mapping[str, Any] = given if isinstance(given, dict) else {}
    name = state.get("HostIFName") if not is_userspace(driver) else None
    name = name if isinstance(name, str) and is_ifname(name) else None
    settings = _read_settings(state)
    if not name and settings:
        return Original(driver, settings)
    return Original(driver, settings, name, mac=_mac(state, "EffectiveMAC"), mtu=_number(state, "MTU"))


def drivers_of(sysfs: Sysfs, device: PciAddress) -> str:
    """The VF's driver now, empty when it has none or is gone."""
    try:
        return drivers.current_driver(sysfs, device) or ""
    except SriovdpError:
        return ""


def _find_own_driver(sysfs: Sysfs, device: PciAddress) -> str:
    """The driver that the VF's modalias asks for; the present one when this kernel has none."""
    try:
        return drivers.resolve_driver(sysfs, device, KERNEL_DRIVER)
    except SriovdpError:
        return drivers_of(sysfs, device)


def _read_settings(state: Mapping[str, Any]) -> VfSettings | None:
    """What the PF held for the VF; None without the MAC, which sriov-cni always notes."""
    mac = _mac(state, "AdminMAC")
    if mac is None:
        return None
    link_state = state.get("LinkState")
    switches = {
        name: state.get(key) if isinstance(state.get(key), bool) else None
        for name, key in (("spoofchk", "SpoofChk"), ("trust", "Trust"))
    }
    return VfSettings(
        mac=mac,
        vlan=_number(state, "Vlan"),
        qos=_number(state, "VlanQoS"),
        vlan_proto=_PROTOCOLS.get(_number(state, "VlanProto"), "802.1Q"),
        link_state=dict(enumerate(_LINK_STATES)).get(link_state) if type(link_state) is int else None,
        min_tx_rate=_number(state, "MinTxRate"),
        max_tx_rate=_number(state, "MaxTxRate"),
        **switches,
    )


def _mac(state: Mapping[str, Any], key: str) -> str | None:
    value = state.get(key)
    found = value.lower() if isinstance(value, str) else ""
    return found if _MAC.fullmatch(found) else None


def _number(state: Mapping[str, Any], key: str) -> int:
    value = state.get(key)
    return value if type(value) is int and 0 <= value <= _MAX_NUMBER else 0
