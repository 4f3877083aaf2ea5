"""What a program with NET_ADMIN can change of an interface, and the interface keeps when it changes its namespace.

Addresses, routes, qdiscs, filters, multicast lists and sysctls of the interface are not here: the kernel drops them
then (net/core/dev.c, __dev_change_net_namespace).
"""

import errno
import struct
from collections.abc import Mapping

from sriovdp.errors import KernelError
from sriovdp.kernel.rtnl.codec import U32, encode, index_attributes
from sriovdp.kernel.rtnl.link import HEAD_SIZE, IFF_ALLMULTI, IFF_PROMISC, encode_link

# IFLA_* that RTM_SETLINK takes as RTM_GETLINK reports them
_NUMBERS = {
    "txqueuelen": 13, "group": 27, "gso_max_segs": 40, "gso_max_size": 41, "gro_max_size": 58, "gso_ipv4_max_size": 63,
    "gro_ipv4_max_size": 64,
}  # fmt: skip
_OCTETS = {"broadcast": 2, "linkmode": 17, "proto_down": 39}
_ALIAS = 20
# what RTM_SETLINK does not take back as it was, and counters of what keeps these flags set without being one
_REPORTS = {"master": 10, "XDP program": 43, "proto_down_reason": 55}
_COUNTERS = {"promiscuity": (30, IFF_PROMISC), "allmulti": (61, IFF_ALLMULTI)}
# not set back either: IPv6 looks at the flags that a netdev has when it comes into a namespace. All that
# __dev_change_flags takes, but for UP, PROMISC and ALLMULTI: DEBUG, NOTRAILERS, NOARP, MULTICAST, PORTSEL, AUTOMEDIA,
# DYNAMIC
_FLAGS = 0x4 | 0x20 | 0x80 | 0x1000 | 0x2000 | 0x4000 | 0x8000
_HEAD = struct.Struct("=BxHiII")  # struct ifinfomsg
_RESTORABLE = frozenset({*_NUMBERS, *_OCTETS})

Tuning = Mapping[str, str]
"""What was found, by name, each as a text that stays the same until it is changed."""


def read_link_tuning(message: bytes) -> dict[str, str]:
    """What an RTM_NEWLINK carries of it. A kernel that does not know an attribute does not report it."""
    flags = _HEAD.unpack_from(message)[3]
    found = {kind: message[start:end] for kind, (start, end) in index_attributes(message, HEAD_SIZE).items()}
    tuning = {"flags": f"{flags & _FLAGS:#x}", "alias": found.get(_ALIAS, b"").rstrip(b"\0").decode(errors="replace")}
    tuning |= {name: str(U32.unpack(found[kind])[0]) for name, kind in _NUMBERS.items() if kind in found}
    tuning |= {name: found[kind].hex() for name, kind in (_OCTETS | _REPORTS).items() if kind in found}
    for name, (kind, flag) in _COUNTERS.items():
        if kind in found:  # less what the flag itself counts for
            tuning[name] = str(U32.unpack(found[kind])[0] - bool(flags & flag))
    return tuning


def find_changes(now: Tuning, wanted: Tuning) -> dict[str, str]:
    """What of the wanted tuning is otherwise now; empty texts for what was not there."""
    return {name: wanted.get(name, "") for name in sorted({*now, *wanted}) if now.get(name, "") != wanted.get(name, "")}


def select_restorable(changes: Tuning) -> dict[str, str]:
    """Those of the changes that one RTM_SETLINK can make."""
    return {name: text for name, text in changes.items() if name == "alias" or (name in _RESTORABLE and text)}


def encode_tuning(ifindex: int, changes: Tuning) -> bytes:
    """The RTM_SETLINK that makes these changes, which `select_restorable` gave. Raises KernelError."""
    try:
        return encode_link(ifindex) + b"".join(_encode(name, text) for name, text in changes.items())
    except (ValueError, TypeError, struct.error) as error:  # a journal may hold anything
        raise KernelError(f"{dict(changes)} is no tuning of an interface", errno=errno.EINVAL) from error


def _encode(name: str, text: str) -> bytes:
    if name in _NUMBERS:
        return encode(_NUMBERS[name], U32.pack(int(text)))
    return encode(_ALIAS, text.encode()) if name == "alias" else encode(_OCTETS[name], bytes.fromhex(text))
