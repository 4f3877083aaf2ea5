"""VLANs of a bridge's port, as rtnetlink reports and changes them (linux/if_bridge.h)."""

import struct
from collections.abc import Iterable, Iterator, Mapping

from sriovdp.kernel.rtnl.codec import U32, encode, list_attributes, nest
from sriovdp.vlans import VlanIds

SETLINK = 19
UNTAGGED_PVID = 0x2 | 0x4
"""BRIDGE_VLAN_INFO_PVID and _UNTAGGED: frames without a tag are of this VLAN, on their way in and out."""

_BEGIN, _END = 0x8, 0x10  # BRIDGE_VLAN_INFO_RANGE_*
_FAMILY = 7  # AF_BRIDGE
_HEAD = struct.Struct("=BxHiII")  # struct ifinfomsg
_VLAN = struct.Struct("=HH")  # struct bridge_vlan_info
_AF_SPEC, _EXT_MASK, _VLAN_INFO = 26, 29, 2
_WITH_VLANS = 4  # RTEXT_FILTER_BRVLAN_COMPRESSED: one by one, 4,094 of them do not fit into the kernel's answer


def encode_query() -> bytes:
    """Ask for all ports of bridges with their VLANs."""
    return _HEAD.pack(_FAMILY, 0, 0, 0, 0) + encode(_EXT_MASK, U32.pack(_WITH_VLANS))


def encode_vlans(ifindex: int, vlans: Mapping[int, int]) -> bytes:
    """VLANs of a port with their flags, to be added or removed."""
    infos = b"".join(encode(_VLAN_INFO, _VLAN.pack(flags, vid)) for flags, vid in _list_infos(vlans))
    return _HEAD.pack(_FAMILY, 0, ifindex, 0, 0) + nest(_AF_SPEC, infos)


def _list_infos(vlans: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Flags and number of each, or of the first and the last of several."""
    for flags in sorted(set(vlans.values())):
        for span in VlanIds.of(vid for vid, its in vlans.items() if its == flags).spans:
            if len(span) == 1:
                yield flags, span.start
            else:
                yield flags | _BEGIN, span.start
                yield flags | _END, span.stop - 1


def read_vlans(messages: Iterable[bytes], ifindex: int) -> dict[int, int]:
    """The VLANs of a port, each with its flags."""
    found: dict[int, int] = {}
    for message in messages:
        if _HEAD.unpack_from(message)[2] != ifindex:
            continue
        for kind, start, end in list_attributes(message, _HEAD.size):
            if kind == _AF_SPEC:
                infos = (at for part, at, _ in list_attributes(message, start, end) if part == _VLAN_INFO)
                found |= _read_infos(_VLAN.unpack_from(message, at) for at in infos)
    return found


def _read_infos(infos: Iterable[tuple[int, ...]]) -> Iterator[tuple[int, int]]:
    first = 0
    for flags, vid in infos:
        if flags & _BEGIN:
            first = vid
            continue
        for each in range(first if flags & _END else vid, vid + 1):
            yield each, flags & UNTAGGED_PVID
