"""Noticing at once what happens to devices: the kernel's uevents and rtnetlink's link messages.

What a message says in detail does not matter: the node is looked at again. `struct nlmsghdr` and `struct ifinfomsg` are
those of linux/netlink.h and linux/rtnetlink.h.

Uevents come from the kernel itself, so no udevd is needed. The kernel sends those of netdevs to the network namespace
that the netdev is in (lib/kobject_uevent.c), and rtnetlink only reports links of its own one: the agent has to be in
the namespace of the host, which is where the PFs are.
"""

import asyncio
import logging
import re
import socket
import struct
from collections.abc import Callable, Collection
from typing import Any

logger = logging.getLogger(__name__)

_NETLINK_ROUTE, _RTMGRP_LINK = 0, 1
_SUBSYSTEMS = (
    "pci",
    "auxiliary",
    "vfio",
    "uio",
    "vdpa",
    "infiniband",
    "infiniband_verbs",
    "drivers",
    "module",
    "net",
)
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiI")
_RTM_NEWLINK = 16
_BUFFER = 65536  # bytes
_AT_ONCE = 100  # messages that are read before others have their turn: in a storm they never end
_NETDEV = re.compile(r"/devices/.*/([0-9a-f]{4,}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])/(?:\S+/)?net/[^/]+")
_SOON = 5.0  # seconds for what a look should see without hurry

Note = Callable[[str, float], None]
"""Takes a reason for a look, and within how many seconds it should be; 0 is as soon as can be."""


class KernelEvents:
    """Notes a reason when a device came, went, or got another driver, or when one of the `links` (ifindexes) changed.

    Every message that is lost counts as one that matters. Where the kernel refuses to be listened to, there are no
    reasons, and `is_listening` is False.
    """

    def __init__(self, note: Note) -> None:
        self._note = note
        self.links: Collection[int] = ()
        """Those of PFs."""
        self.vfs: Collection[str] = ()
        """PCI addresses of VFs: their netdevs come and go with pods."""
        self._listener: socket.socket | None = None
        self._monitor: Any = None
        self._flags: dict[int, int] = {}

    @property
    def is_listening(self) -> bool:
        """Whether the kernel reports all that matters."""
        return self._listener is not None and self._monitor is not None

    async def start(self) -> None:
        """Listen on the running loop, until `stop`."""
        loop = asyncio.get_running_loop()
        try:
            self._listener = _open_listener()
            loop.add_reader(self._listener, self._read_links, self._listener)
        except OSError as error:
            logger.warning("cannot listen to rtnetlink, changes of links are seen later: %s", error.strerror)
        try:
            self._monitor = await asyncio.to_thread(_open_monitor)
            loop.add_reader(self._monitor.fileno(), self._read_uevents, self._monitor)
        except (ImportError, OSError) as error:
            hint = "install libudev (package libudev1)" if isinstance(error, ImportError) else "run the agent as root"
            logger.warning("cannot listen to uevents, changes of devices are seen later: %s; %s", error, hint)

    def stop(self) -> None:
        """Listen no longer. A second stop has nothing to do."""
        loop = asyncio.get_running_loop()
        if self._listener is not None:
            loop.remove_reader(self._listener)
            self._listener.close()
        if self._monitor is not None:
            loop.remove_reader(self._monitor.fileno())
        self._listener = self._monitor = None

    def _read_links(self, listener: socket.socket) -> None:
        try:
            for _ in range(_AT_ONCE):
                self.judge_links(listener.recv(_BUFFER))
        except BlockingIOError:
            pass
        except OSError as error:  # ENOBUFS: messages were lost
            self._note(f"messages of rtnetlink were lost ({error.strerror})", 0.0)

    def _read_uevents(self, monitor: Any) -> None:
        try:
            for _ in range(_AT_ONCE):
                device = monitor.poll(timeout=0)
                if device is None:
                    return
                self.judge_uevent(device.action, device.subsystem, device.device_path)
        except OSError as error:  # ENOBUFS: messages were lost
            self._note(f"uevents were lost ({error.strerror})", 0.0)

    def judge_uevent(self, action: str | None, subsystem: str | None, path: str) -> None:
        """Note that a device of one of the subsystems came, went or changed. `path` is its DEVPATH.

        Of netdevs only those of PCI functions count, as each ordinary pod has a veth; that of a VF comes and goes with
        its pods, so it is not urgent.
        """
        within = 0.0
        if subsystem == "net":
            match = _NETDEV.match(path)
            if match is None:
                return
            within = _SOON if match[1] in self.vfs else 0.0
        self._note(f"uevent {action} {subsystem} {path.rpartition('/')[2]}", within)

    def judge_links(self, message: bytes) -> None:
        """Note each message of a datagram that says that one of our links is not what it was.

        The kernel reports a PF too whenever one of its VFs is set, which each ADD and DEL does; and when its MTU or its
        name changes. That is not urgent.
        """
        at = 0
        while at + _HEADER.size + _LINK.size <= len(message):
            length, kind, *_ = _HEADER.unpack_from(message, at)
            _, _, index, flags = _LINK.unpack_from(message, at + _HEADER.size)
            if index in self.links:
                is_same = kind == _RTM_NEWLINK and self._flags.get(index) == flags
                self._note(f"rtnetlink: link {index} changed", _SOON if is_same else 0.0)
                self._flags[index] = flags
            at += max((length + 3) & ~3, _HEADER.size)


def _open_listener() -> socket.socket:
    """A socket that gets rtnetlink's messages of links. Raises OSError."""
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    try:
        listener.setblocking(False)
        listener.bind((0, _RTMGRP_LINK))
    except OSError:
        listener.close()
        raise
    return listener


def _open_monitor() -> Any:
    """A monitor of the kernel's own uevents. Raises ImportError without libudev, and OSError."""
    import pyudev  # noqa: PLC0415 - 30 ms, and the pools are with the kubelet before that

    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
    for subsystem in _SUBSYSTEMS:
        monitor.filter_by(subsystem)
    monitor.start()
    return monitor
