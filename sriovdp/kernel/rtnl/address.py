"""Addresses of interfaces as rtnetlink reports and adds them (linux/if_addr.h)."""

import errno
import socket
import struct
from dataclasses import dataclass

from sriovdp.errors import KernelError
from sriovdp.kernel.rtnl.codec import U32, encode, index_attributes

NEWADDR, GETADDR = 20, 22

_ADDRESS, _LOCAL, _FLAGS = 1, 2, 8
_NODAD, _DADFAILED, _TENTATIVE = 0x02, 0x08, 0x40
_HEAD = struct.Struct("=BBBBi")  # struct ifaddrmsg
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class Address:
    """An interface's own address in CIDR form, with IFA_F_* of linux/if_addr.h."""

    ifindex: int
    text: str
    flags: int

    @property
    def tentative(self) -> bool:
        """Whether duplicate address detection still runs."""
        return bool(self.flags & _TENTATIVE) and not self.duplicate

    @property
    def duplicate(self) -> bool:
        """Whether duplicate address detection found it at another host."""
        return bool(self.flags & _DADFAILED)


def encode_query(ifindex: int = 0) -> bytes:
    """Ask for all addresses, or for those of one interface: not every kernel, and no socket but a strict one, does."""
    return _HEAD.pack(0, 0, 0, 0, ifindex)


def read_address(message: bytes) -> Address | None:
    """An address from an RTM_NEWADDR; None for one of another family than IPv4 and IPv6."""
    family, size, flags, _, ifindex = _HEAD.unpack_from(message)
    if family not in _FAMILIES:
        return None
    found = index_attributes(message, _HEAD.size)
    place = found.get(_LOCAL) or found[_ADDRESS]  # of a point-to-point link the second is the other end's
    if _FLAGS in found:  # all 32 of them
        flags = U32.unpack_from(message, found[_FLAGS][0])[0]
    return Address(ifindex, f"{socket.inet_ntop(family, message[slice(*place)])}/{size}", flags)


def encode_address(ifindex: int, address: str, *, dad: bool) -> bytes:
    """An address in CIDR form for an interface. Raises KernelError as `parse`."""
    family, packed, size = parse(address)
    body = _HEAD.pack(family, size, 0, 0, ifindex) + encode(_LOCAL, packed) + encode(_ADDRESS, packed)
    if not dad and family == socket.AF_INET6:
        body += encode(_FLAGS, U32.pack(_NODAD))
    return body


def parse(address: str) -> tuple[int, bytes, int]:
    """Family, bytes and prefix length of an address, which may be without one. Raises KernelError if it is invalid."""
    text, _, size = address.partition("/")
    family, bits = (socket.AF_INET6, 128) if ":" in text else (socket.AF_INET, 32)
    try:
        return family, socket.inet_pton(family, text), int(size or bits)
    except (OSError, ValueError) as error:
        raise KernelError(f"{address!r} is no IP address", errno=errno.EINVAL) from error
