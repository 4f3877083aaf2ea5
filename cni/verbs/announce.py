"""Announcing a new pod's addresses to its network: gratuitous ARP and unsolicited neighbour advertisements.

Frames are sent by the interface itself, so that no route of the pod can lead them elsewhere.
"""

import fcntl
import logging
import sched
import socket
import struct
import threading
from collections.abc import Collection, Iterable

from cni.protocol.spec import parse_result
from cni.verbs import frames
from cni.verbs.release import open_sandbox
from sriovdp.errors import SriovdpError
from sriovdp.kernel import netns
from sriovdp.kernel.netlink import Netlink
from sriovdp.state.journal import Attachment

logger = logging.getLogger(__name__)

_PAUSES = (0.05, 0.25, 0.7, 2.0)  # seconds before each round; a VF has its carrier some 10-1000 ms after it is up
_ENOUGH = 2  # rounds with a carrier (RFC 5227, section 1.1: ANNOUNCE_NUM)
_SIOCGIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8913, 0x1, 0x40  # linux/sockios.h, linux/if.h
_IFREQ = struct.Struct("=16sH22x")


class Announcer:
    """Announces in rounds, beside the answers, by one thread for all attachments; there is none while nothing is due.

    With a thread for each of a dozen pods that come at once, the ADDs and DELs beside them took twice as long.
    """

    def __init__(self) -> None:
        self._awake = threading.Event()
        self._rounds = sched.scheduler(delayfunc=self._rest)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, attachment: Attachment, addresses: Iterable[str]) -> None:
        """Announce addresses in CIDR form a few times. No fd of the sandbox is kept meanwhile."""
        listed = tuple(addresses)
        if listed:
            self._schedule(attachment, listed, 0, 0)

    def _schedule(self, attachment: Attachment, addresses: tuple[str, ...], number: int, heard: int) -> None:
        with self._lock:
            self._rounds.enter(_PAUSES[number], 0, self._announce, (attachment, addresses, number, heard))
            self._awake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="announce", daemon=True)
                self._thread.start()

    def _announce(self, attachment: Attachment, addresses: tuple[str, ...], number: int, heard: int) -> None:
        try:
            sent = announce_once(attachment, addresses)
        except Exception:  # that of one attachment; the others' go on
            logger.exception("%s: announcing its addresses failed", attachment.caller)
            return
        if sent is None:
            return
        heard += sent
        if heard < _ENOUGH and number + 1 < len(_PAUSES):
            self._schedule(attachment, addresses, number + 1, heard)

    def _run(self) -> None:
        while True:
            self._rounds.run()
            with self._lock:
                if self._rounds.empty():
                    self._thread = None
                    return

    def _rest(self, seconds: float) -> None:
        """Until the next round is due, or another one may be due before it."""
        if self._awake.wait(seconds):
            self._awake.clear()


def announce_once(attachment: Attachment, addresses: Iterable[str]) -> bool | None:
    """Announce addresses in CIDR form now. Gives whether the interface has a carrier; None when it is not there."""
    ifname = attachment.pod_ifname
    mac = next((one.mac for one in parse_result(attachment.result).interfaces if one.name == ifname), "")
    try:
        with open_sandbox(attachment) as sandbox_fd:
            return None if sandbox_fd is None else netns.run_in(sandbox_fd, _send, ifname, mac, tuple(addresses))
    except (OSError, SriovdpError) as error:
        logger.info("%s: announcing its addresses failed: %s", attachment.caller, error)
        return None


def _send(ifname: str, mac: str, addresses: tuple[str, ...]) -> bool | None:
    """Run in the sandbox. Nothing here waits for rtnl_lock, which the ADDs beside this one fight for, but for IPv6."""
    # without a link header, which the kernel makes: that of IPoIB is its own matter
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as packets:
        try:
            packets.bind((ifname, 0))
        except OSError:  # it was moved away
            return None
        own = frames.read_address(packets)
        _, flags = _IFREQ.unpack(fcntl.ioctl(packets, _SIOCGIFFLAGS, _IFREQ.pack(ifname.encode(), 0)))
        if own.hex(":") != mac or not flags & _IFF_UP:
            return None
        broadcast = frames.read_broadcast(ifname) if len(own) == frames.INFINIBAND else b""
        unusable = _list_unusable(ifname) if any(":" in address for address in addresses) else ()
        for address in addresses:
            if address.partition("/")[0] not in unusable:
                frames.send(packets, frames.build_announcement(address, own, broadcast))
    return bool(flags & _IFF_RUNNING)


def _list_unusable(ifname: str) -> Collection[str]:
    """Addresses that are not known to be free (RFC 4862, section 5.4).

    Advertised before that, and sent back to its sender by the NIC, one would be taken for another host's. The kernel
    advertises it once detection is over (ndisc_notify).
    """
    with Netlink() as netlink:
        found = netlink.find(ifname)
        return {address for group in netlink.pending_addresses(found.ifindex) for address in group} if found else ()
