"""GUIDs of InfiniBand VFs by rtnetlink: IFLA_VF_IB_NODE_GUID and IFLA_VF_IB_PORT_GUID of linux/if_link.h."""

import struct
from collections.abc import Iterator

from sriovdp.kernel.rtnl import Rtnl

_NEWLINK, _GETLINK = 16, 18
_VFINFO_LIST, _EXT_MASK, _VF_INFO = 22, 29, 1
_VF_MAC, _NODE_GUID, _PORT_GUID = 1, 10, 11
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF
_WITH_VFS = 1 | 8  # RTEXT_FILTER_VF, RTEXT_FILTER_SKIP_STATS

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ATTRIBUTE = struct.Struct("=HH")
_GUID = struct.Struct("=I4xQ")  # struct ifla_vf_guid: the GUID is a number of this host

Guids = tuple[str, str]
"""Node GUID and port GUID of a VF, like `02:00:00:00:00:00:00:01`."""


class GuidLink(Rtnl):
    """One rtnetlink socket, in the network namespace of the thread that opened it. To be used by one thread."""

    def read(self, pf_ifindex: int) -> dict[int, Guids]:
        """GUIDs of a PF's VFs, by VF index; VFs whose driver does not tell are left out."""
        message = self._get(pf_ifindex, _WITH_VFS) or b""
        found = {}
        for info in _list_nested(message[_LINK.size :], _VFINFO_LIST, _VF_INFO):
            attributes = dict(_split(info))
            if _NODE_GUID in attributes and _PORT_GUID in attributes:
                index, node = _GUID.unpack_from(attributes[_NODE_GUID])
                found[index] = (_write(node), _write(_GUID.unpack_from(attributes[_PORT_GUID])[1]))
        return found

    def write(self, pf_ifindex: int, index: int, guid: str) -> None:
        """Set both GUIDs of a VF, in a request for each: the kernel reads one of them only (do_setvfinfo).

        Raises KernelError when the PF's driver refuses.
        """
        value = _GUID.pack(index, int(guid.replace(":", ""), 16))
        for kind, name in ((_NODE_GUID, "node"), (_PORT_GUID, "port")):
            body = _encode(_VFINFO_LIST | _NESTED, _encode(_VF_INFO | _NESTED, _encode(kind, value)))
            head = _LINK.pack(0, 0, pf_ifindex, 0, 0)
            self._change(_NEWLINK, 0, head + body, f"setting the {name} GUID of VF {index} to {guid}")


def _encode(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value  # all of them are multiples of 4 bytes


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + size]
        at += max((size + 3) & ~3, _ATTRIBUTE.size)


def _list_nested(data: bytes, outer: int, inner: int) -> Iterator[bytes]:
    for kind, value in _split(data):
        if kind == outer:
            yield from (part for number, part in _split(value) if number == inner)


def _write(guid: int) -> str:
    return guid.to_bytes(8, "big").hex(":")
