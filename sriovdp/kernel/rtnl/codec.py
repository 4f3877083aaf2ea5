"""Attributes and messages as all netlink protocols have them (linux/netlink.h)."""

import os
import struct
from collections.abc import Iterator

ACK, DUMP, EXCL, CREATE, APPEND = 0x4, 0x300, 0x200, 0x400, 0x800
ERROR, DONE = 2, 3
INTERRUPTED = 0x10  # NLM_F_DUMP_INTR

_REQUEST, _CAPPED, _ACK_TLVS = 0x1, 0x100, 0x200
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF
_ACK_MESSAGE = 1  # NLMSGERR_ATTR_MSG

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
_NUMBER = struct.Struct("=i")
U32, PAIR, TRIPLE = struct.Struct("=I"), struct.Struct("=II"), struct.Struct("=III")


def encode(kind: int, value: bytes) -> bytes:
    """One attribute, padded to 4 bytes."""
    return (_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value).ljust((len(value) + 7) & ~3, b"\0")


def nest(kind: int, attributes: bytes) -> bytes:
    """One attribute that consists of others."""
    return encode(kind | _NESTED, attributes)


def encode_text(kind: int, text: str) -> bytes:
    """One attribute with a string, which ends with a zero byte."""
    return encode(kind, text.encode() + b"\0")


def list_attributes(data: bytes, start: int, end: int | None = None) -> list[tuple[int, int, int]]:
    """Type, start and end of each attribute's value."""
    last = (len(data) if end is None else end) - _ATTRIBUTE.size
    found = []
    unpack = _ATTRIBUTE.unpack_from  # a plain loop: it runs some 50 times for each link
    while start <= last:
        size, kind = unpack(data, start)
        found.append((kind & _TYPE_MASK, start + 4, start + size))
        start += (size + 3) & ~3 or 4
    return found


def index_attributes(data: bytes, start: int, end: int | None = None) -> dict[int, tuple[int, int]]:
    """Start and end of each attribute's value, by type; the last one of a type counts."""
    last = (len(data) if end is None else end) - _ATTRIBUTE.size
    found = {}
    unpack = _ATTRIBUTE.unpack_from  # as above
    while start <= last:
        size, kind = unpack(data, start)
        found[kind & _TYPE_MASK] = start + 4, start + size
        start += (size + 3) & ~3 or 4
    return found


def read_text(data: bytes, start: int, end: int) -> str:
    """The string in an attribute."""
    return data[start:end].rstrip(b"\0").decode(errors="replace")


def encode_request(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A message to the kernel."""
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, sequence, 0) + body


def list_messages(data: bytes, sequence: int) -> Iterator[tuple[int, int, int, int]]:
    """Type, flags, start and end of the body of each message that answers the request with that number."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, flags, answered, _ = _HEADER.unpack_from(data, at)
        if answered == sequence:
            yield kind, flags, at + _HEADER.size, at + size
        at += max((size + 3) & ~3, _HEADER.size)


def check_status(data: bytes, flags: int, start: int, end: int) -> None:
    """Raise the OSError that an NLMSG_ERROR or NLMSG_DONE carries, with the kernel's own words; 0 is success."""
    number = -_NUMBER.unpack_from(data, start)[0] if end - start >= _NUMBER.size else 0
    if number <= 0:
        return
    said = os.strerror(number)
    if flags & _ACK_TLVS and flags & _CAPPED:
        for kind, text, stop in list_attributes(data, start + _NUMBER.size + _HEADER.size, end):
            if kind == _ACK_MESSAGE:
                said += f" ({read_text(data, text, stop)})"
    raise OSError(number, said)
