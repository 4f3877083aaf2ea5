"""Routes as rtnetlink reports and adds them (struct rtmsg of linux/rtnetlink.h)."""

import ipaddress
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from sriovdp.kernel.rtnl.address import parse
from sriovdp.kernel.rtnl.codec import U32, encode, index_attributes, nest

NEWROUTE, GETROUTE = 24, 26
MAIN_TABLE = 254

_DST, _OIF, _GATEWAY, _PRIORITY, _METRICS, _MULTIPATH, _TABLE, _VIA = 1, 4, 5, 6, 8, 9, 15, 18
_METRIC_NUMBERS = {"mtu": 2, "advmss": 8}  # RTAX_*
_STATIC, _UNICAST, _SCOPE_LINK = 4, 1, 253
_HEAD = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_HOP = struct.Struct("=HBBi")  # struct rtnexthop
_BITS = {socket.AF_INET: 32, socket.AF_INET6: 128}


@dataclass(frozen=True, slots=True)
class Route:
    """A route; `destination` is a network, `0.0.0.0/0` or `::/0` for the default. `interfaces` are ifindexes."""

    destination: str
    gateway: str | None
    table: int
    interfaces: frozenset[int] = frozenset()


def encode_query(family: int, ifindex: int = 0) -> bytes:
    """Ask for all routes of a family, of all tables, or for those by one interface, as with addresses."""
    head = _HEAD.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    return head + encode(_OIF, U32.pack(ifindex)) if ifindex else head


def read_route(message: bytes) -> Route | None:
    """A route from an RTM_NEWROUTE; None for one of another family than IPv4 and IPv6."""
    family, size, _, _, table, *_ = _HEAD.unpack_from(message)
    if family not in _BITS:
        return None
    found = index_attributes(message, _HEAD.size)
    packed = message[slice(*found[_DST])] if _DST in found else bytes(_BITS[family] // 8)
    network = ipaddress.ip_network((packed, size), strict=False)
    gateway = socket.inet_ntop(family, message[slice(*found[_GATEWAY])]) if _GATEWAY in found else None
    table = U32.unpack_from(message, found[_TABLE][0])[0] if _TABLE in found else table
    interfaces = {U32.unpack_from(message, found[_OIF][0])[0]} if _OIF in found else set()
    if _MULTIPATH in found:
        interfaces |= _list_hops(message, *found[_MULTIPATH])
    return Route(str(network), gateway, table, frozenset(interfaces))


def _list_hops(message: bytes, at: int, end: int) -> set[int]:
    """The interfaces of a route over several."""
    found = set()
    while at + _HOP.size <= end:
        size, _, _, ifindex = _HOP.unpack_from(message, at)
        found.add(ifindex)
        at += max((size + 3) & ~3, _HOP.size)
    return found


def encode_route(
    ifindex: int,
    destination: str,
    gateway: str | None,
    *,
    priority: int | None = None,
    table: int = MAIN_TABLE,
    scope: int | None = None,
    metrics: Mapping[str, int] | None = None,
) -> bytes:
    """A route by an interface; without a gateway and a `scope` it is on-link. `metrics` are `mtu` and `advmss`.

    Raises KernelError when an address is invalid.
    """
    family, packed, size = parse(destination)
    if scope is None:
        scope = 0 if gateway else _SCOPE_LINK
    body = _HEAD.pack(family, size, 0, 0, 0, _STATIC, scope, _UNICAST, 0)
    body += encode(_TABLE, U32.pack(table)) + encode(_OIF, U32.pack(ifindex))
    if size:
        body += encode(_DST, packed)
    if gateway:
        hop_family, hop, _ = parse(gateway)
        via = encode(_VIA, struct.pack("=H", hop_family) + hop)
        body += encode(_GATEWAY, hop) if hop_family == family else via
    if priority is not None:
        body += encode(_PRIORITY, U32.pack(priority))
    if metrics:
        body += nest(_METRICS, b"".join(encode(_METRIC_NUMBERS[name], U32.pack(n)) for name, n in metrics.items()))
    return body
