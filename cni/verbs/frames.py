"""What announces an address: a gratuitous ARP or an unsolicited neighbour advertisement, for Ethernet and InfiniBand.

ARP as in RFC 5227 section 3 (a request for one's own address), advertisements as in RFC 4861 section 7.2.6. On
InfiniBand the hardware type is 32 and an address has 20 bytes (RFC 4391, sections 9.1.1 and 9.2), of which those of
groups come from RFC 4391 section 4 and the interface's own broadcast address.
"""

import ctypes
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass

from sriovdp.errors import DeviceError
from sriovdp.kernel.netlink import Netlink

INFINIBAND = 20
"""Bytes of an address of IPoIB."""

_ETHERNET_TYPE, _INFINIBAND_TYPE = 1, 32  # of ARP hardware
_ARP, _IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ALL_NODES = ipaddress.IPv6Address("ff02::1").packed
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_OVERRIDE = 0x20000000
_UNIT = 8  # bytes in which the length of an option is counted
_LINK_ADDRESS = struct.Struct("@HHiHBB")  # struct sockaddr_ll of linux/if_packet.h, without the address
_STORAGE = 128  # bytes of struct sockaddr_storage
_LEAST = 8  # bytes of an address in it, however short that is
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A packet without link header, what protocol it is (EtherType), and the link address that it goes to."""

    protocol: int
    to: bytes
    packet: bytes


def build_announcement(address: str, own: bytes, broadcast: bytes = b"") -> Announcement:
    """What announces an address, in CIDR form or plain, to be at that link address.

    `broadcast` is the interface's on InfiniBand, where all groups have its partition and scope.
    """
    ip = ipaddress.ip_interface(address).ip
    everybody = broadcast or _BROADCAST
    if isinstance(ip, ipaddress.IPv4Address):
        kind = _INFINIBAND_TYPE if len(own) == INFINIBAND else _ETHERNET_TYPE
        arp = struct.pack(">HHBBH", kind, 0x0800, len(own), 4, 1) + own + ip.packed + everybody + ip.packed
        return Announcement(_ARP, everybody, arp)
    advertisement = struct.pack(">BBHI", 136, 0, 0, _OVERRIDE) + ip.packed + _build_option(own)
    pseudo_header = ip.packed + _ALL_NODES + struct.pack(">II", len(advertisement), socket.IPPROTO_ICMPV6)
    checksum = _sum(pseudo_header + advertisement)
    advertisement = advertisement[:2] + struct.pack(">H", checksum) + advertisement[4:]
    header = struct.pack(">IHBB", 6 << 28, len(advertisement), socket.IPPROTO_ICMPV6, 255) + ip.packed + _ALL_NODES
    return Announcement(_IPV6, _map_all_nodes(broadcast) if broadcast else _ALL_NODES_MAC, header + advertisement)


def _build_option(own: bytes) -> bytes:
    """Target link-layer address (RFC 4861, section 4.6.1). On InfiniBand two zeros are before it (RFC 4391, 9.3)."""
    padded = own if len(own) == len(_BROADCAST) else bytes(2) + own
    return struct.pack(">BB", 2, (2 + len(padded)) // _UNIT) + padded


def _map_all_nodes(broadcast: bytes) -> bytes:
    """The group ff02::1 (RFC 4391, section 4; include/net/if_inet6.h, ipv6_ib_mc_map)."""
    scope = 0x10 | (broadcast[5] & 0xF)
    return b"\0\xff\xff\xff\xff" + bytes((scope, 0x60, 0x1B)) + broadcast[8:10] + _ALL_NODES[6:]


def _sum(data: bytes) -> int:
    """The Internet checksum, RFC 1071."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def read_broadcast(ifname: str) -> bytes:
    """Broadcast address of an interface of this network namespace. Raises DeviceError, KernelError."""
    with Netlink() as netlink:
        found = netlink.find_with_tuning(ifname)
    if found is None:
        raise DeviceError(f"{ifname} vanished from the sandbox while its addresses were announced")
    return bytes.fromhex(found[1]["broadcast"])


def read_address(packets: socket.socket) -> bytes:
    """Link address of the interface that the socket is bound to. Raises OSError.

    Python's own getsockname() asks for 8 bytes of it, and gives whatever the memory behind them has for the rest.
    """
    place = ctypes.create_string_buffer(_STORAGE)
    size = ctypes.c_uint32(_STORAGE)
    if _libc.getsockname(packets.fileno(), place, ctypes.byref(size)) < 0:
        raise _last_error()
    length = _LINK_ADDRESS.unpack_from(place)[-1]
    return place.raw[_LINK_ADDRESS.size : _LINK_ADDRESS.size + length]


def send(packets: socket.socket, announcement: Announcement) -> None:
    """Send by the interface that the socket is bound to. Raises OSError.

    Python's own sendto() takes link addresses of 8 bytes at most.
    """
    ifindex = socket.if_nametoindex(packets.getsockname()[0])
    head = _LINK_ADDRESS.pack(
        socket.AF_PACKET, socket.htons(announcement.protocol), ifindex, 0, 0, len(announcement.to)
    )
    to, packet = head + announcement.to.ljust(_LEAST, b"\0"), announcement.packet
    if _libc.sendto(packets.fileno(), packet, len(packet), 0, to, len(to)) < 0:
        raise _last_error()


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
