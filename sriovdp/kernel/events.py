"""Noticing at once what happens to devices: the kernel's uevents and rtnetlink's link messages; and not too often.

What a message says in detail does not matter: the subscriber looks at the node again. `struct nlmsghdr` and `struct
ifinfomsg` are those of linux/netlink.h and linux/rtnetlink.h; a uevent is a list of KEY=value strings.
"""

import asyncio
import contextlib
import logging
import socket
import struct
import time
from collections.abc import Collection

logger = logging.getLogger(__name__)

_NETLINK_ROUTE, _RTMGRP_LINK = 0, 1
_NETLINK_KOBJECT_UEVENT, _UEVENTS_OF_KERNEL = 15, 1
_SUBSYSTEMS = frozenset(
    f"SUBSYSTEM={name}".encode()
    for name in ("pci", "auxiliary", "vfio", "uio", "vdpa", "infiniband", "infiniband_verbs")
)
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiI")
_RTM_NEWLINK = 16
_BUFFER = 65536  # bytes
_AT_ONCE = 100  # messages that are read before others have their turn: in a storm they never end
_BURST, _PAUSE = 10, 3.0  # looks that may follow each other at once, and seconds after which there may be one more


class Pace:
    """How soon an event may be followed by a look at the node: at once, as long as there are few of them.

    A link that flaps, or a storm of uevents, causes `burst` looks, and then one in `pause` seconds.
    """

    def __init__(self, burst: int = _BURST, pause: float = _PAUSE) -> None:
        self._burst = burst
        self._pause = pause
        self._left = float(burst)
        self._at = time.monotonic()

    def take(self) -> float:
        """Count one look; gives for how many seconds it has to wait."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) / self._pause) - 1
        self._at = now
        return max(0.0, -self._left * self._pause)


class KernelEvents:
    """Sets `event` when a device came, went, or got another driver, or when one of the `links` (ifindexes) changed.

    Every message that is lost counts as one that matters. Where the kernel refuses to be listened to, no event is set.
    """

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.links: Collection[int] = ()
        self._sockets: list[socket.socket] = []
        self._flags: dict[int, int] = {}

    def start(self) -> None:
        """Listen on the running loop, until `stop`."""
        for protocol, group in ((_NETLINK_ROUTE, _RTMGRP_LINK), (_NETLINK_KOBJECT_UEVENT, _UEVENTS_OF_KERNEL)):
            try:
                listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
                listener.setblocking(False)
                listener.bind((0, group))
            except OSError as error:
                logger.warning("cannot listen to the kernel's events (netlink %d): %s", protocol, error)
                continue
            self._sockets.append(listener)
            asyncio.get_running_loop().add_reader(listener, self._read, listener)

    def stop(self) -> None:
        """Listen no longer. A second stop has nothing to do."""
        for listener in self._sockets:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._sockets.clear()

    def _read(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                for _ in range(_AT_ONCE):
                    message = listener.recv(_BUFFER)
                    matters = self._is_uevent if listener.proto == _NETLINK_KOBJECT_UEVENT else self._is_of_link
                    if matters(message):
                        self.event.set()
            except BlockingIOError:
                raise
            except OSError:  # ENOBUFS: messages were lost
                self.event.set()

    def _is_uevent(self, message: bytes) -> bool:
        return not _SUBSYSTEMS.isdisjoint(message.split(b"\0"))

    def _is_of_link(self, message: bytes) -> bool:
        """Whether one of the messages in a datagram says that one of our links is not what it was.

        The kernel reports a PF too whenever one of its VFs is set, which each ADD and DEL does.
        """
        matters = False
        at = 0
        while at + _HEADER.size + _LINK.size <= len(message):
            length, kind, *_ = _HEADER.unpack_from(message, at)
            _, _, index, flags = _LINK.unpack_from(message, at + _HEADER.size)
            if index in self.links:
                matters |= kind != _RTM_NEWLINK or self._flags.get(index) != flags
                self._flags[index] = flags
            at += max((length + 3) & ~3, _HEADER.size)
        return matters
