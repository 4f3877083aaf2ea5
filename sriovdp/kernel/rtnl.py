"""The few rtnetlink messages of an ADD and a DEL, without a general library between us and the kernel.

pyroute2 decodes every attribute of every answer, which costs more than all system calls of an ADD together
(docs/performance.md). Here only what is used is read, and only the VF that is meant. The rest stays with pyroute2,
which is also the oracle of the tests. Numbers and layouts are of linux/rtnetlink.h, linux/if_link.h, linux/netlink.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from sriovdp.errors import KernelError
from sriovdp.model import VfSettings

_NEWLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE = 16, 18, 20, 22, 24
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _EXCL, _CREATE, _APPEND = 0x1, 0x4, 0x300, 0x200, 0x400, 0x800
_CAPPED, _ACK_TLVS, _DUMP_INTERRUPTED = 0x100, 0x200, 0x10
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_IFF_UP, _IFF_PROMISC, _IFF_ALLMULTI = 0x1, 0x100, 0x200
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF
_ADDRESS, _IFNAME, _MTU, _VFINFO_LIST, _NET_NS_FD, _EXT_MASK, _CARRIER = 1, 3, 4, 22, 28, 29, 33
_PROP_LIST, _ALT_IFNAME, _PARENT_DEV_NAME = 52, 53, 56
_VF_INFO, _VF_MAC, _VF_VLAN, _VF_SPOOFCHK, _VF_LINK_STATE, _VF_RATE, _VF_TRUST, _VF_VLAN_LIST = 1, 1, 2, 4, 5, 6, 9, 12
_VF_VLAN_INFO = 1
_SKIP_STATS = 8  # RTEXT_FILTER_SKIP_STATS; counters would make a VF list overflow its 64 KiB at 222 VFs
_WITH_VFS = 1 | _SKIP_STATS  # RTEXT_FILTER_VF, without which there is no VF list
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_METRICS, _RTA_TABLE, _RTA_VIA = 1, 4, 5, 6, 8, 15, 18
_RTAX_MTU, _RTAX_ADVMSS = 2, 8
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST, _SCOPE_LINK = 254, 4, 1, 253
_LINK_STATES = ("auto", "enable", "disable")
_PROTOCOLS = {0x8100: "802.1Q", 0x88A8: "802.1ad"}
_ROOM = 128 << 10  # a message with its VF list, which has 64 KiB at most
_DUMP_ATTEMPTS = 5

_MESSAGE = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_ATTRIBUTE = struct.Struct("=HH")
_U32, _PAIR, _TRIPLE = struct.Struct("=I"), struct.Struct("=II"), struct.Struct("=III")


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. `parent` is the PCI address of its device, empty if it has none; `carrier` is None while down."""

    ifindex: int
    name: str
    mac: str
    mtu: int
    flags: int
    carrier: bool | None
    altnames: tuple[str, ...]
    parent: str

    @property
    def up(self) -> bool:
        """Whether it is administratively up."""
        return bool(self.flags & _IFF_UP)

    @property
    def promisc(self) -> bool:
        """Whether somebody set it promiscuous."""
        return bool(self.flags & _IFF_PROMISC)

    @property
    def allmulti(self) -> bool:
        """Whether somebody set it to take all multicast."""
        return bool(self.flags & _IFF_ALLMULTI)


@dataclass(frozen=True, slots=True)
class Address:
    """An address of an interface in CIDR form, with IFA_F_* of linux/if_addr.h."""

    ifindex: int
    text: str
    flags: int


class Rtnl(AbstractContextManager["Rtnl"]):
    """One rtnetlink socket, in the network namespace of the thread that opened it. To be used by one thread."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def find(self, key: str | int) -> Link | None:
        """The interface of that name, altname or index in this namespace, if there is one."""
        message = self._get(key, _SKIP_STATS)
        return _read_link(message) if message else None

    def links(self) -> list[Link]:
        """All interfaces of this namespace. Raises KernelError when changes interrupt the list again and again."""
        return [_read_link(message) for message in self._dump(_GETLINK, _LINK.pack(0, 0, 0, 0, 0))]

    def addresses(self, ifindex: int) -> list[Address]:
        """The addresses of an interface, of both families. Raises KernelError as `links` does."""
        found = (_read_address(message) for message in self._dump(_GETADDR, _ADDR.pack(0, 0, 0, 0, 0)))
        return [address for address in found if address.ifindex == ifindex]

    def find_with_vf(self, key: str | int, index: int) -> tuple[Link, VfSettings | None] | None:
        """A PF and the settings of one of its VFs, in one request. The kernel tells those of all; no other is read."""
        message = self._get(key, _WITH_VFS)
        if message is None:
            return None
        told = (_read_settings(message, start, end) for at, start, end in _vf_infos(message) if at == index)
        return _read_link(message), next(told, None)

    def vf_settings(self, pf_ifindex: int, index: int) -> VfSettings | None:
        """The settings of one VF."""
        found = self.find_with_vf(pf_ifindex, index)
        return found[1] if found else None

    def all_vf_settings(self, pf_ifindex: int) -> dict[int, VfSettings]:
        """The settings of all VFs of a PF, by VF index."""
        message = self._get(pf_ifindex, _WITH_VFS) or b""
        return {number: _read_settings(message, start, end) for number, start, end in _vf_infos(message)}

    def set_vf(self, pf_ifindex: int, index: int, changes: Mapping[str, Any], what: str) -> None:
        """Change settings of one VF, all in one request, with names and values of VfSettings.

        VLAN and QoS go together, as do the two rates: pass both. The kernel takes them one after the other, and stops
        at the one that the PF's driver refuses. Raises KernelError beginning with `what`.
        """
        info = _nest(_VF_INFO, b"".join(_encode_settings(index, changes)))
        self._change(_NEWLINK, 0, _LINK.pack(0, 0, pf_ifindex, 0, 0) + _nest(_VFINFO_LIST, info), what)

    def set_link(  # noqa: PLR0913 - the attributes of one request
        self,
        ifindex: int,
        what: str,
        *,
        state: str | None = None,
        mtu: int | None = None,
        address: str | None = None,
        ifname: str | None = None,
        net_ns_fd: int | None = None,
        flags: int = 0,
        change: int = 0,
    ) -> None:
        """Change an interface in one request, of its flags those in `change`. Raises KernelError, with `what`."""
        flags |= _IFF_UP if state == "up" else 0
        body = _LINK.pack(0, 0, ifindex, flags, change | (_IFF_UP if state else 0))
        if net_ns_fd is not None:
            body += _encode(_NET_NS_FD, _U32.pack(net_ns_fd))
        if ifname is not None:
            body += _encode(_IFNAME, ifname.encode() + b"\0")
        if mtu is not None:
            body += _encode(_MTU, _U32.pack(mtu))
        if address is not None:
            body += _encode(_ADDRESS, bytes.fromhex(address.replace(":", "")))
        self._change(_NEWLINK, 0, body, what)

    def add_address(self, ifindex: int, address: str, *, dad: bool = True) -> None:
        """Give an interface an address in CIDR form. Raises KernelError."""
        family, packed, size = _parse(address)
        body = _ADDR.pack(family, size, 0, 0, ifindex) + _encode(_IFA_LOCAL, packed) + _encode(_IFA_ADDRESS, packed)
        if not dad and family == socket.AF_INET6:
            body += _encode(_IFA_FLAGS, _U32.pack(_IFA_F_NODAD))
        self._change(_NEWADDR, _CREATE | _EXCL, body, f"adding address {address}")

    def add_route(
        self,
        ifindex: int,
        destination: str,
        gateway: str | None,
        *,
        priority: int | None = None,
        table: int = _RT_TABLE_MAIN,
        scope: int | None = None,
        metrics: Mapping[str, int] | None = None,
    ) -> None:
        """Add a route by an interface. NLM_F_APPEND: the same destination twice becomes multipath, as CNI asks.

        Without a gateway and a `scope` it is on-link. `metrics` are `mtu` and `advmss`. Raises KernelError.
        """
        family, packed, size = _parse(destination)
        if scope is None:
            scope = 0 if gateway else _SCOPE_LINK
        body = _ROUTE.pack(family, size, 0, 0, 0, _RTPROT_STATIC, scope, _RTN_UNICAST, 0)
        body += _encode(_RTA_TABLE, _U32.pack(table)) + _encode(_RTA_OIF, _U32.pack(ifindex))
        if size:
            body += _encode(_RTA_DST, packed)
        if gateway:
            hop_family, hop, _ = _parse(gateway)
            via = _encode(_RTA_VIA, struct.pack("=H", hop_family) + hop)
            body += _encode(_RTA_GATEWAY, hop) if hop_family == family else via
        if priority is not None:
            body += _encode(_RTA_PRIORITY, _U32.pack(priority))
        if metrics:
            numbers = {"mtu": _RTAX_MTU, "advmss": _RTAX_ADVMSS}
            body += _nest(_RTA_METRICS, b"".join(_encode(numbers[k], _U32.pack(v)) for k, v in metrics.items()))
        self._change(_NEWROUTE, _CREATE | _APPEND, body, f"adding route {destination}")

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        for _ in range(_DUMP_ATTEMPTS):
            messages = self._ask(kind, _DUMP, body)
            if messages is not None:
                return messages
        raise KernelError("listing was interrupted by changes too often", errno=errno.EINTR)

    def _get(self, key: str | int, ext_mask: int) -> bytes | None:
        index, name = (key, b"") if isinstance(key, int) else (0, _encode(_IFNAME, key.encode() + b"\0"))
        try:
            body = _LINK.pack(0, 0, index, 0, 0) + name + _encode(_EXT_MASK, _U32.pack(ext_mask))
            messages = self._ask(_GETLINK, 0, body)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise KernelError(f"reading interface {key} failed: {error.strerror}", errno=error.errno or 0) from error
        return messages[0] if messages else None

    def _change(self, kind: int, flags: int, body: bytes, what: str) -> None:
        try:
            self._ask(kind, flags | _ACK, body)
        except OSError as error:
            raise KernelError(f"{what} failed: {error.strerror}", errno=error.errno or 0) from error

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes] | None:
        """What the kernel answers, without headers; None when a dump was interrupted. Raises OSError if it refuses."""
        self._sequence += 1
        header = _MESSAGE.pack(_MESSAGE.size + len(body), kind, _REQUEST | flags, self._sequence, 0)
        self._socket.send(header + body)
        found: list[bytes] = []
        interrupted = False
        while True:
            data = self._socket.recv(_ROOM)
            for answer, answer_flags, start, end in _messages(data, self._sequence):
                interrupted |= bool(answer_flags & _DUMP_INTERRUPTED)
                if answer == _ERROR:
                    _check(data, answer_flags, start, end)
                    return found
                if answer == _DONE:
                    return None if interrupted else found
                found.append(data[start:end])
            if found and not flags & (_DUMP | _ACK):
                return found


def _messages(data: bytes, sequence: int) -> Iterator[tuple[int, int, int, int]]:
    """Type, flags, start and end of each message's body."""
    at = 0
    while at + _MESSAGE.size <= len(data):
        size, kind, flags, answered, _ = _MESSAGE.unpack_from(data, at)
        if answered == sequence:
            yield kind, flags, at + _MESSAGE.size, at + size
        at += max((size + 3) & ~3, _MESSAGE.size)


def _check(data: bytes, flags: int, start: int, end: int) -> None:
    """Raise what an NLMSG_ERROR says; its number 0 is success."""
    number = -struct.unpack_from("=i", data, start)[0]
    if not number:
        return
    said = os.strerror(number)
    if flags & _ACK_TLVS and flags & _CAPPED:
        for kind, text, stop in _attributes(data, start + 4 + _MESSAGE.size, end):
            if kind == 1:  # NLMSGERR_ATTR_MSG
                said += f" ({_text(data, text, stop)})"
    raise OSError(number, said)


def _attributes(data: bytes, start: int, end: int | None = None) -> list[tuple[int, int, int]]:
    """Type, start and end of each attribute's value."""
    last = (len(data) if end is None else end) - _ATTRIBUTE.size
    found = []
    unpack = _ATTRIBUTE.unpack_from  # a plain loop: it runs some 50 times for each link
    while start <= last:
        size, kind = unpack(data, start)
        found.append((kind & _TYPE_MASK, start + 4, start + size))
        start += (size + 3) & ~3 or 4
    return found


def _read_link(message: bytes) -> Link:
    _, _, ifindex, flags, _ = _LINK.unpack_from(message)
    found: dict[int, tuple[int, int]] = {kind: (start, end) for kind, start, end in _attributes(message, _LINK.size)}
    mac = message[slice(*found.get(_ADDRESS, (0, 0)))]
    altnames = _attributes(message, *found[_PROP_LIST]) if _PROP_LIST in found else ()
    return Link(
        ifindex=ifindex,
        name=_text(message, *found[_IFNAME]),
        mac=mac.hex(":"),
        mtu=_U32.unpack_from(message, found[_MTU][0])[0] if _MTU in found else 0,
        flags=flags,
        carrier=bool(message[found[_CARRIER][0]]) if flags & _IFF_UP and _CARRIER in found else None,
        altnames=tuple(_text(message, start, end) for kind, start, end in altnames if kind == _ALT_IFNAME),
        parent=_text(message, *found[_PARENT_DEV_NAME]) if _PARENT_DEV_NAME in found else "",
    )


def _read_address(message: bytes) -> Address:
    family, size, flags, _, ifindex = _ADDR.unpack_from(message)
    found = {kind: (start, end) for kind, start, end in _attributes(message, _ADDR.size)}
    packed = message[slice(*found[_IFA_ADDRESS])]
    if _IFA_FLAGS in found:  # all 32 of them
        flags = _U32.unpack_from(message, found[_IFA_FLAGS][0])[0]
    return Address(ifindex, f"{socket.inet_ntop(family, packed)}/{size}", flags)


def _vf_infos(message: bytes) -> Iterator[tuple[int, int, int]]:
    """VF index, start and end of each IFLA_VF_INFO, which begins with the VF's MAC."""
    for kind, start, end in _attributes(message, _LINK.size):
        if kind == _VFINFO_LIST:
            for _, info, stop in _attributes(message, start, end):
                yield _U32.unpack_from(message, info + _ATTRIBUTE.size)[0], info, stop


def _parse(address: str) -> tuple[int, bytes, int]:
    """Family, bytes, and prefix length of an address, which may be without one. Raises KernelError for what is none."""
    text, _, size = address.partition("/")
    family, bits = (socket.AF_INET6, 128) if ":" in text else (socket.AF_INET, 32)
    try:
        return family, socket.inet_pton(family, text), int(size or bits)
    except (OSError, ValueError) as error:
        raise KernelError(f"{address!r} is no address", errno=errno.EINVAL) from error


def _text(data: bytes, start: int, end: int) -> str:
    return data[start:end].rstrip(b"\0").decode(errors="replace")


def _read_settings(data: bytes, start: int, end: int) -> VfSettings:
    found = {kind: at for kind, at, _ in _attributes(data, start, end)}
    _, vlan, qos = _TRIPLE.unpack_from(data, found[_VF_VLAN]) if _VF_VLAN in found else (0, 0, 0)
    _, least, most = _TRIPLE.unpack_from(data, found[_VF_RATE]) if _VF_RATE in found else (0, 0, 0)
    proto = struct.unpack_from(">H", data, found[_VF_VLAN_LIST] + 16)[0] if _VF_VLAN_LIST in found else 0x8100
    state = _PAIR.unpack_from(data, found[_VF_LINK_STATE])[1] if _VF_LINK_STATE in found else len(_LINK_STATES)
    mac_at = found[_VF_MAC] + 4
    return VfSettings(
        mac=data[mac_at : mac_at + 6].hex(":"),
        vlan=vlan,
        qos=qos,
        vlan_proto=_PROTOCOLS.get(proto, "802.1Q"),
        spoofchk=_read_switch(data, found.get(_VF_SPOOFCHK)),
        trust=_read_switch(data, found.get(_VF_TRUST)),
        link_state=_LINK_STATES[state] if state < len(_LINK_STATES) else None,
        min_tx_rate=least,
        max_tx_rate=most,
    )


def _read_switch(data: bytes, at: int | None) -> bool | None:
    """The kernel fills in -1 (all bits) where the driver does not tell."""
    value = None if at is None else _PAIR.unpack_from(data, at)[1]
    return bool(value) if value in {0, 1} else None


def _encode_settings(index: int, changes: Mapping[str, Any]) -> Iterator[bytes]:
    if "mac" in changes:
        mac = bytes.fromhex(changes["mac"].replace(":", ""))
        yield _encode(_VF_MAC, _U32.pack(index) + mac.ljust(32, b"\0"))
    if "vlan" in changes:
        vlan = _TRIPLE.pack(index, changes["vlan"], changes["qos"])
        proto = changes.get("vlan_proto", "802.1Q")
        if proto == "802.1Q":  # older kernels and drivers know the plain form only, which says so
            yield _encode(_VF_VLAN, vlan)
        else:
            number = next(number for number, name in _PROTOCOLS.items() if name == proto)
            yield _nest(_VF_VLAN_LIST, _encode(_VF_VLAN_INFO, vlan + struct.pack(">HH", number, 0)))
    if "max_tx_rate" in changes:
        yield _encode(_VF_RATE, _TRIPLE.pack(index, changes["min_tx_rate"], changes["max_tx_rate"]))
    if "link_state" in changes:
        yield _encode(_VF_LINK_STATE, _PAIR.pack(index, _LINK_STATES.index(changes["link_state"])))
    for name, kind in (("spoofchk", _VF_SPOOFCHK), ("trust", _VF_TRUST)):
        if name in changes:
            yield _encode(kind, _PAIR.pack(index, int(changes[name])))


def _encode(kind: int, value: bytes) -> bytes:
    return (_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value).ljust((len(value) + 7) & ~3, b"\0")


def _nest(kind: int, attributes: bytes) -> bytes:
    return _encode(kind | _NESTED, attributes)
