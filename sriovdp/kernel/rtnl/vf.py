"""A PF's list of its VFs, and what can be set of one (IFLA_VFINFO_LIST and struct ifla_vf_* of linux/if_link.h).

The list is one attribute, whose length has 16 bits. The kernel does not check it (net/core/rtnetlink.c, rtnl_fill_vf):
with more than 334 VFs, or 277 with GUIDs, the length wraps, and what follows the list cannot be found by it.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from sriovdp.errors import KernelError
from sriovdp.kernel.rtnl.codec import PAIR, TRIPLE, U32, encode, index_attributes, list_attributes, nest
from sriovdp.model import VfSettings

Guids = tuple[str, str]
"""Node GUID and port GUID of a VF, like `02:00:00:00:00:00:00:01`."""

_NUM_VF, _VFINFO_LIST, _VF_INFO = 21, 22, 1
_MAC, _VLAN, _SPOOFCHK, _LINK_STATE, _RATE, _TRUST, _NODE_GUID, _PORT_GUID, _VLAN_LIST = 1, 2, 4, 5, 6, 9, 10, 11, 12
_VLAN_INFO = 1
_LINK_STATES = ("auto", "enable", "disable")
_PROTOCOLS = {0x8100: "802.1Q", 0x88A8: "802.1ad"}

_HEADS = struct.Struct("=HHHH")  # of a VF's attributes, and of the first one in them
_MAC_HEAD = (40, _MAC)  # struct ifla_vf_mac comes first
_GUID = struct.Struct("=I4xQ")  # struct ifla_vf_guid: the GUID is a number of this host
_MOST = 0xFFFF  # bytes of an attribute


def cut_vf_list(message: bytes, head: int) -> bytes:
    """An RTM_NEWLINK without its VF list where that hides what follows it. Raises KernelError as `list_vfs`."""
    if len(message) <= _MOST:
        return message
    place = _find_list(message, head)
    return message[: place[0] - 4] + message[place[1] :] if place else message


def list_vfs(message: bytes, head: int) -> list[tuple[int, int, int]] | None:
    """VF index, start and end of each VF's attributes; None when the PF's driver has no settings of VFs at all.

    The kernel writes no list for a driver without ndo_get_vf_config, like virtio_net or idpf. It leaves a VF out of the
    list when that call fails for it, as for a VF in reset (net/core/rtnetlink.c, rtnl_fill_vf, rtnl_fill_vfinfo).
    Raises KernelError when the list is too long for its attribute and cannot be read without its length either.
    """
    place = _find_list(message, head)
    if place is None:
        return None
    infos = list_attributes(message, *place)
    return [(U32.unpack_from(message, start + 4)[0], start, end) for _, start, end in infos]


def _find_list(message: bytes, head: int) -> tuple[int, int] | None:
    number = 0
    for kind, start, end in list_attributes(message, head):
        if kind == _NUM_VF:
            number = U32.unpack_from(message, start)[0]
        if kind == _VFINFO_LIST:
            return start, end if len(message) <= _MOST else _find_end(message, start, end, number)
    return None


def _find_end(message: bytes, start: int, end: int, number: int) -> int:
    """The end of the list by the VFs in it, which have lengths of their own. `end` is that by the list's length."""
    at, count = start, 0
    while at + _HEADS.size <= len(message):
        size, kind, *first = _HEADS.unpack_from(message, at)
        if kind != _VF_INFO or tuple(first) != _MAC_HEAD:
            break
        at += (size + 3) & ~3
        count += 1
    if (at - end) & _MOST or count > number:
        raise KernelError(
            f"the kernel's list of {number} VFs is longer than its 64 KiB, and only {count} of them can be read"
        )
    return at


def read_settings(data: bytes, start: int, end: int) -> VfSettings:
    """One VF's settings from its attributes, without GUIDs."""
    return _decode(data, index_attributes(data, start, end))


def read_with_guids(data: bytes, start: int, end: int) -> VfSettings:
    """One VF's settings from its attributes, with GUIDs where the driver reports them."""
    found = index_attributes(data, start, end)
    settings, guids = _decode(data, found), _find_guids(data, found)
    return replace(settings, node_guid=guids[0], port_guid=guids[1]) if guids else settings


def _decode(data: bytes, places: Mapping[int, tuple[int, int]]) -> VfSettings:
    found = {kind: start for kind, (start, _) in places.items()}
    _, vlan, qos = TRIPLE.unpack_from(data, found[_VLAN]) if _VLAN in found else (0, 0, 0)
    _, least, most = TRIPLE.unpack_from(data, found[_RATE]) if _RATE in found else (0, 0, 0)
    proto = struct.unpack_from(">H", data, found[_VLAN_LIST] + 16)[0] if _VLAN_LIST in found else 0x8100
    state = PAIR.unpack_from(data, found[_LINK_STATE])[1] if _LINK_STATE in found else len(_LINK_STATES)
    mac_at = found[_MAC] + 4
    return VfSettings(
        mac=data[mac_at : mac_at + 6].hex(":"),
        vlan=vlan,
        qos=qos,
        vlan_proto=_PROTOCOLS.get(proto, "802.1Q"),
        spoofchk=_read_switch(data, found.get(_SPOOFCHK)),
        trust=_read_switch(data, found.get(_TRUST)),
        link_state=_LINK_STATES[state] if state < len(_LINK_STATES) else None,
        min_tx_rate=least,
        max_tx_rate=most,
    )


def _read_switch(data: bytes, at: int | None) -> bool | None:
    """The kernel fills in -1 (all bits) where the driver does not report it."""
    value = None if at is None else PAIR.unpack_from(data, at)[1]
    return bool(value) if value in {0, 1} else None


def read_guids(data: bytes, start: int, end: int) -> Guids | None:
    """One VF's GUIDs from its attributes; None when the driver does not report them."""
    return _find_guids(data, index_attributes(data, start, end))


def _find_guids(data: bytes, found: Mapping[int, tuple[int, int]]) -> Guids | None:
    if _NODE_GUID not in found or _PORT_GUID not in found:
        return None
    node, port = (_GUID.unpack_from(data, found[kind][0])[1] for kind in (_NODE_GUID, _PORT_GUID))
    return node.to_bytes(8, "big").hex(":"), port.to_bytes(8, "big").hex(":")


def encode_settings(index: int, changes: Mapping[str, Any]) -> bytes:
    """What to set of one VF, with names and values of VfSettings. VLAN and QoS go together, as do the two rates."""
    return nest(_VFINFO_LIST, nest(_VF_INFO, b"".join(_list_settings(index, changes))))


def encode_guids(index: int, guids: Guids) -> Iterator[tuple[str, str, bytes]]:
    """A request for each GUID, with its name before it: the kernel reads one of them only (net/core/rtnetlink.c)."""
    for kind, name, guid in ((_NODE_GUID, "node", guids[0]), (_PORT_GUID, "port", guids[1])):
        value = _GUID.pack(index, int(guid.replace(":", ""), 16))
        yield name, guid, nest(_VFINFO_LIST, nest(_VF_INFO, encode(kind, value)))


def _list_settings(index: int, changes: Mapping[str, Any]) -> Iterator[bytes]:
    if "mac" in changes:
        mac = bytes.fromhex(changes["mac"].replace(":", ""))
        yield encode(_MAC, U32.pack(index) + mac.ljust(32, b"\0"))
    if "vlan" in changes:
        vlan = TRIPLE.pack(index, changes["vlan"], changes["qos"])
        proto = changes.get("vlan_proto", "802.1Q")
        if proto == "802.1Q":  # older kernels and drivers have the plain form only
            yield encode(_VLAN, vlan)
        else:
            number = next(number for number, name in _PROTOCOLS.items() if name == proto)
            yield nest(_VLAN_LIST, encode(_VLAN_INFO, vlan + struct.pack(">HH", number, 0)))
    if "max_tx_rate" in changes:
        yield encode(_RATE, TRIPLE.pack(index, changes["min_tx_rate"], changes["max_tx_rate"]))
    if "link_state" in changes:
        yield encode(_LINK_STATE, PAIR.pack(index, _LINK_STATES.index(changes["link_state"])))
    for name, kind in (("spoofchk", _SPOOFCHK), ("trust", _TRUST)):
        if name in changes:
            yield encode(kind, PAIR.pack(index, int(changes[name])))
