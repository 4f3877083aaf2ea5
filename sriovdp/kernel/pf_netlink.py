"""What the inventory and provisioning ask of rtnetlink: interfaces, their addresses, VFs through their PF.

Structures and numbers are of linux/if_link.h, linux/if_addr.h and linux/rtnetlink.h.
"""

import errno
import ipaddress
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from sriovdp.errors import KernelError
from sriovdp.kernel.rtnl import Link, Rtnl
from sriovdp.model import NetDevice, VfSettings

_NEWLINK, _GETADDR = 16, 22
_DUMP = 0x300
_VFINFO_LIST, _VF_INFO = 22, 1
_NODE_GUID, _PORT_GUID = 10, 11
_IFA_ADDRESS = 1
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF
_WITH_VFS = 1 | 8  # RTEXT_FILTER_VF, RTEXT_FILTER_SKIP_STATS
_ATTEMPTS = 5  # changes interrupt a dump
_BUSY_TIMEOUT = 2.0  # seconds; a VF that is being reset is busy for a while
_BUSY_PAUSE = 0.05

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDRESS = struct.Struct("=BBBBi")  # struct ifaddrmsg
_ATTRIBUTE = struct.Struct("=HH")
_GUID = struct.Struct("=I4xQ")  # struct ifla_vf_guid: the GUID is a number of this host

Guids = tuple[str, str]
"""Node GUID and port GUID of a VF, like `02:00:00:00:00:00:00:01`."""


class PfNetlink(AbstractContextManager["PfNetlink"]):
    """One rtnetlink socket, in the network namespace of the thread that opened it. To be used by one thread."""

    def __init__(self) -> None:
        self._socket = _Socket()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def devices(self) -> tuple[NetDevice, ...]:
        """All network interfaces of this namespace. Raises KernelError."""
        return tuple(map(_read_device, self._socket.links()))

    def find(self, name: str) -> NetDevice | None:
        """The interface of that name in this namespace, if there is one."""
        link = self._socket.find(name)
        return _read_device(link) if link else None

    def addresses(self, ifindex: int) -> tuple[str, ...]:
        """The addresses of an interface in CIDR form. Raises KernelError."""
        return self._socket.read_addresses(ifindex)

    def vf_settings(self, pf_ifindex: int) -> dict[int, VfSettings]:
        """Settings of all VFs of a PF, by VF index; without GUIDs."""
        return self._socket.all_vf_settings(pf_ifindex)

    def guids(self, pf_ifindex: int) -> dict[int, Guids]:
        """GUIDs of a PF's VFs, by VF index; VFs whose driver does not tell are left out."""
        return self._socket.read_guids(pf_ifindex)

    def set_vf(self, pf_ifindex: int, index: int, changes: Mapping[str, Any]) -> None:
        """Change settings of one VF, in one request. `changes` has the names and values of VfSettings.

        VLAN and QoS go together, as do the two rates: pass both. Raises KernelError when the PF's driver refuses.
        """
        said = ", ".join(f"{name} {value}" for name, value in changes.items())
        _retry(lambda: self._socket.set_vf(pf_ifindex, index, changes, f"setting {said} of VF {index}"))

    def set_guids(self, pf_ifindex: int, index: int, guid: str) -> None:
        """Set both GUIDs of one VF. Raises KernelError when the PF's driver refuses."""
        _retry(lambda: self._socket.write_guids(pf_ifindex, index, guid))

    def set_link(self, ifindex: int, what: str, *, state: str | None = None, mtu: int | None = None) -> None:
        """Set an interface `up` or `down`, or its MTU. Raises KernelError beginning with `what`."""
        _retry(lambda: self._socket.set_link(ifindex, what, state=state, mtu=mtu))


class _Socket(Rtnl):
    """The messages that an ADD does not need."""

    def read_addresses(self, ifindex: int) -> tuple[str, ...]:
        for _ in range(_ATTEMPTS):
            messages = self._ask(_GETADDR, _DUMP, _ADDRESS.pack(0, 0, 0, 0, 0))
            if messages is not None:
                return tuple(_read_address(message) for message in messages if _is_of(message, ifindex))
        raise KernelError("listing the addresses was interrupted by changes too often", errno=errno.EINTR)

    def read_guids(self, pf_ifindex: int) -> dict[int, Guids]:
        message = self._get(pf_ifindex, _WITH_VFS) or b""
        found = {}
        for info in _list_nested(message[_LINK.size :], _VFINFO_LIST, _VF_INFO):
            attributes = dict(_split(info))
            if _NODE_GUID in attributes and _PORT_GUID in attributes:
                index, node = _GUID.unpack_from(attributes[_NODE_GUID])
                found[index] = (_write_guid(node), _write_guid(_GUID.unpack_from(attributes[_PORT_GUID])[1]))
        return found

    def write_guids(self, pf_ifindex: int, index: int, guid: str) -> None:
        """In a request for each: the kernel reads one of them only (net/core/rtnetlink.c, do_setvfinfo)."""
        value = _GUID.pack(index, int(guid.replace(":", ""), 16))
        for kind, name in ((_NODE_GUID, "node"), (_PORT_GUID, "port")):
            body = _encode(_VFINFO_LIST | _NESTED, _encode(_VF_INFO | _NESTED, _encode(kind, value)))
            head = _LINK.pack(0, 0, pf_ifindex, 0, 0)
            self._change(_NEWLINK, 0, head + body, f"setting the {name} GUID of VF {index} to {guid}")


def _retry(request: Callable[[], None]) -> None:
    """Again and again while the device is busy."""
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            request()
        except KernelError as error:
            if error.errno not in {errno.EBUSY, errno.EAGAIN} or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_PAUSE)
        else:
            return


def _read_device(link: Link) -> NetDevice:
    return NetDevice(link.name, link.ifindex, link.mac, link.mtu, up=link.up, carrier=link.carrier)


def _is_of(message: bytes, ifindex: int) -> bool:
    return bool(_ADDRESS.unpack_from(message)[4] == ifindex)


def _read_address(message: bytes) -> str:
    _, prefix, _, _, _ = _ADDRESS.unpack_from(message)
    packed = dict(_split(message[_ADDRESS.size :]))[_IFA_ADDRESS]
    return f"{ipaddress.ip_address(packed)}/{prefix}"


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


def _write_guid(guid: int) -> str:
    return guid.to_bytes(8, "big").hex(":")
