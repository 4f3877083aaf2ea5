"""How ethtool sets a driver, as short texts to compare: what differs has a name, its value is of no interest.

The kernel keeps all of it with the netdev or in the driver, in whatever network namespace the netdev is, until the
driver is bound again. Numbers are those of linux/ethtool_netlink.h, linux/ethtool.h and linux/net_tstamp.h.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
import socket
import struct
from collections.abc import Iterator

from sriovdp.errors import KernelError
from sriovdp.kernel.generic import GENERIC, HEAD, find_family
from sriovdp.kernel.rtnl.codec import (
    ERROR,
    U32,
    encode,
    encode_request,
    list_messages,
    nest,
)

_TOPICS = {7: "message level", 11: "features", 13: "private flags", 15: "rings", 17: "channels", 19: "coalescing"}
_HEADER, _DEV_INDEX, _HEADER_FLAGS, _COMPACT_BITSETS = 1, 1, 3, 1
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
_NUMBER = struct.Struct("=i")
_ROOM = 64 << 10
_SIOCETHTOOL, _SIOCGHWTSTAMP = 0x8946, 0x89B1  # linux/sockios.h
_IFREQ = struct.Struct("=16sQ16x")
_GET_RSS, _GET_RULE_COUNT = 0x46, 0x2E  # ETHTOOL_GRSSH, ETHTOOL_GRXCLSRLCNT
_RSS = struct.Struct("=IIIIB3xI")  # struct ethtool_rxfh
_RULES, _RULE_COUNT_AT = struct.Struct("=I188x"), 184  # struct ethtool_rxnfc
_TIMESTAMPS_SIZE = 12  # bytes of struct hwtstamp_config


def read_ethtool(name: str, ifindex: int) -> dict[str, str]:
    """How the driver of an interface of this namespace is set. Raises KernelError where the kernel cannot be asked.

    A topic that the driver does not have is reported as the error that says so.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, GENERIC) as asking:
            found = dict(_ask(asking, ifindex))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
            return found | dict(_ask_by_ioctl(asking, name))
    except OSError as error:
        reason = error.strerror or str(error)
        raise KernelError(f"reading the ethtool settings of {name} failed: {reason}", errno=error.errno or 0) from error


def _ask(asking: socket.socket, ifindex: int) -> Iterator[tuple[str, str]]:
    """All questions in one system call: the kernel answers them one after the other."""
    family = find_family("ethtool")
    header = nest(_HEADER, encode(_DEV_INDEX, U32.pack(ifindex)) + encode(_HEADER_FLAGS, U32.pack(_COMPACT_BITSETS)))
    asking.send(b"".join(encode_request(family, 0, number, HEAD.pack(number, 1, 0) + header) for number in _TOPICS))
    for number, topic in _TOPICS.items():
        data = asking.recv(_ROOM)
        for kind, _, start, end in list_messages(data, number):
            if kind == ERROR:
                yield topic, _name_error(-_NUMBER.unpack_from(data, start)[0])
            else:
                header_size = _ATTRIBUTE.unpack_from(data, start + HEAD.size)[0]  # has the interface's index and name
                yield topic, _digest(data[start + HEAD.size + ((header_size + 3) & ~3) : end])


def _ask_by_ioctl(asking: socket.socket, name: str) -> Iterator[tuple[str, str]]:
    """What has no netlink message, or one in new kernels only."""
    answer = _call(asking, _SIOCETHTOOL, name, _RSS.pack(_GET_RSS, 0, 0, 0, 0, 0))
    if len(answer) == _RSS.size:
        _, _, entries, key, _, _ = _RSS.unpack(answer)
        content = _RSS.pack(_GET_RSS, 0, entries, key, 0, 0) + bytes(entries * 4 + key)
        answer = _call(asking, _SIOCETHTOOL, name, content)
    yield "receive hashing", _digest(answer)
    yield "flow rules", _digest(_call(asking, _SIOCETHTOOL, name, _RULES.pack(_GET_RULE_COUNT))[_RULE_COUNT_AT:])
    yield "time stamping", _digest(_call(asking, _SIOCGHWTSTAMP, name, bytes(_TIMESTAMPS_SIZE)))


def _call(asking: socket.socket, request: int, name: str, content: bytes) -> bytes:
    """What the kernel writes over `content`; nothing for what the driver does not have. Raises OSError."""
    buffer = ctypes.create_string_buffer(content, len(content))
    try:
        fcntl.ioctl(asking, request, _IFREQ.pack(name.encode(), ctypes.addressof(buffer)))
    except OSError as error:
        _name_error(error.errno or 0)
        return b""
    return buffer.raw


def _name_error(number: int) -> str:
    """A driver's error, to compare. Raises OSError for one that is not the driver's."""
    if number in {errno.ENODEV, errno.EPERM, errno.ENOENT}:
        raise OSError(number, os.strerror(number))
    return errno.errorcode.get(number, str(number))


def _digest(answer: bytes) -> str:
    """Few bytes, as the journal has them for each attachment."""
    return hashlib.blake2b(answer, digest_size=6).hexdigest()
