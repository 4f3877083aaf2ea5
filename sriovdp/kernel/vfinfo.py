"""A VF's settings in rtnetlink's form: IFLA_VFINFO_LIST of linux/if_link.h, as pyroute2 has it."""

from collections.abc import Mapping
from typing import Any

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from sriovdp.model import VfSettings

_LINK_STATES = ("auto", "enable", "disable")  # IFLA_VF_LINK_STATE_* of linux/if_link.h, by number
_PROTOCOLS = {0x8100: "802.1Q", 0x88A8: "802.1ad"}
_NUMBERS = {name: number for number, name in _PROTOCOLS.items()}

# linux/if_link.h has two bytes of padding at the end of ifla_vf_vlan_info; pyroute2 leaves them out, and without them
# the kernel answers EINVAL in do_setvfinfo of net/core/rtnetlink.c
_vlan_info = ifinfmsg.vflist.vfinfo.vf_vlist.ivvi
if len(_vlan_info.fields) == 4:  # noqa: PLR2004 - the named ones
    _vlan_info.fields = (*_vlan_info.fields, ("padding", "H"))


def decode_settings(info: Any) -> VfSettings:
    """The settings in one IFLA_VF_INFO."""
    vlan = info.get("IFLA_VF_VLAN") or {"vlan": 0, "qos": 0}
    tagged = info.get("IFLA_VF_VLAN_LIST")
    entry = tagged.get("IFLA_VF_VLAN_INFO") if tagged else None
    rate = info.get("IFLA_VF_RATE") or {"min_tx_rate": 0, "max_tx_rate": 0}
    state = info.get("IFLA_VF_LINK_STATE")
    return VfSettings(
        mac=info.get("IFLA_VF_MAC")["mac"],
        vlan=vlan["vlan"],
        qos=vlan["qos"],
        vlan_proto=_PROTOCOLS.get(entry["proto"], "802.1Q") if entry else "802.1Q",
        spoofchk=_read_switch(info.get("IFLA_VF_SPOOFCHK"), "spoofchk"),
        trust=_read_switch(info.get("IFLA_VF_TRUST"), "trust"),
        link_state=_LINK_STATES[state["link_state"]] if state and state["link_state"] < len(_LINK_STATES) else None,
        min_tx_rate=rate["min_tx_rate"],
        max_tx_rate=rate["max_tx_rate"],
    )


def encode_settings(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes with the names and values of VfSettings as pyroute2 takes them for one VF."""
    encoded: dict[str, Any] = {}
    if "mac" in changes:
        encoded["mac"] = changes["mac"]
    if "vlan" in changes:
        vlan = {"vlan": changes["vlan"], "qos": changes["qos"]}
        proto = changes.get("vlan_proto", "802.1Q")
        # older kernels and drivers know the plain form only, which says 802.1Q
        encoded["vlan"] = vlan if proto == "802.1Q" else [vlan | {"proto": _NUMBERS[proto]}]
    if "max_tx_rate" in changes:
        encoded["rate"] = {"min_tx_rate": changes["min_tx_rate"], "max_tx_rate": changes["max_tx_rate"]}
    if "link_state" in changes:
        encoded["link_state"] = _LINK_STATES.index(changes["link_state"])
    for switch in ("spoofchk", "trust"):
        if switch in changes:
            encoded[switch] = int(changes[switch])
    return encoded


def _read_switch(attribute: Any | None, name: str) -> bool | None:
    """The kernel fills in -1 (all bits) where the driver does not tell."""
    return None if attribute is None or attribute[name] not in (0, 1) else bool(attribute[name])
