"""DEL, and releasing an attachment: its addresses by the IPAM plugin, its VF, its journal entry."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cni import timing
from cni.device_info import remove_device_info
from cni.foreign_state import ForeignState
from cni.ipam.delegate import Deletion, IpamError, MissingPluginError, delete_addresses
from cni.policy import Policy
from cni.protocol.netconf import Network, parse_network
from cni.protocol.wire import Request
from cni.verbs.draft import draft_attachment
from cni.vf.restore import restore_vf
from sriovdp.errors import SriovdpError
from sriovdp.kernel import netns
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Attachment, Journal, Original, read_boot_id
from sriovdp.state.locks import Locks

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Del:
    """The verb DEL, on one node. `foreign_state` is what sriov-cni left there."""

    sysfs: Sysfs
    journal: Journal
    locks: Locks
    foreign_state: ForeignState
    policy: Policy

    def run(self, request: Request, netns_fd: int | None) -> None:
        """Release what this container's interface owns; nothing owned is success.

        A VF that cannot be brought back now is kept in the journal for the agent to repair; the pod need not wait.
        Raises IpamError when the IPAM plugin failed, so that the runtime tries again.
        """
        network = parse_network(request.stdin, "DEL")
        with self.locks.hold(request.key):
            known = self.journal.find_attachment(request.container_id, request.ifname)
            if known is None:
                known = self._adopt(request, network, netns_fd)
            if known is None:
                _delete_unknown(request, network)
                return
            with self.locks.hold(known.device):
                timing.mark("configuration and locks")
                attachment = self.journal.find_attachment(request.container_id, request.ifname)
                if attachment is not None:
                    self._release_or_leave_it_to_the_agent(attachment, netns_fd)

    def _adopt(self, request: Request, network: Network, netns_fd: int | None) -> Attachment | None:
        """Take over from sriov-cni what it attached for this container, to be released."""
        state = ForeignState.choose(network.state_folder, self.policy, self.foreign_state)
        found = state.find(request, network, netns_fd, self.sysfs)
        if found is None:
            return None
        with self.locks.hold(found.device):
            if any(entry.device == found.device and not entry.released for entry in self.journal.survey()[0]):
                found = replace(found, released=True)  # another pod's by now; nothing but the addresses is ours
            logger.info("VF %s was attached to %s by another plugin; releasing it", found.device, found.owner)
            self.journal.write_attachment(found)
            state.forget(found)
        return found

    def _release_or_leave_it_to_the_agent(self, attachment: Attachment, netns_fd: int | None) -> None:
        try:
            Release(self.sysfs, self.journal).finish(without_lost_vf(attachment), netns_fd)
        except IpamError:
            raise
        except SriovdpError as error:
            logger.error("VF %s did not come back, the agent goes on trying: %s", attachment.device, error)


def _delete_unknown(request: Request, network: Network) -> None:
    """DEL of what no journal has: an ADD that came to nothing, or a second DEL."""
    if not network.name:
        return  # and no IPAM plugin was asked for anything
    try:
        delete_addresses(draft_attachment(request, network, "", Original("", None)))
    except MissingPluginError as error:
        logger.warning("nothing to release for %s: %s", request.container_id, error)


@dataclass(frozen=True, slots=True)
class Release:
    """Gives back what attachments own, on one node."""

    sysfs: Sysfs
    journal: Journal

    def finish(self, attachment: Attachment, netns_fd: int | None) -> None:
        """Give the addresses and the VF back, and forget the attachment. `netns_fd` is the caller's CNI_NETNS.

        What can not be done stays in the journal, to be tried again. Raises IpamError when the IPAM plugin failed, and
        SriovdpError when the VF did not come back as it was; the other of the two is done all the same.
        """
        releasing = replace(attachment, phase="releasing")
        self.journal.write_attachment(releasing)
        timing.mark("journal")
        addresses = Deletion(releasing)
        timing.mark("start of IPAM")
        try:
            if not releasing.released:
                with open_sandbox(releasing, netns_fd) as sandbox_fd:
                    restore_vf(self.sysfs, releasing, sandbox_fd)
                remove_device_info(releasing)
        finally:
            timing.mark("VF back and compared")
            owed = addresses.finish()
            timing.mark("wait for IPAM")
        if owed is not None:
            self.journal.write_attachment(replace(releasing, released=True))
            raise owed
        self.journal.remove_attachment(releasing)
        logger.info("released VF %s from %s", attachment.device, attachment.owner)


@contextmanager
def open_sandbox(attachment: Attachment, netns_fd: int | None = None) -> Iterator[int | None]:
    """Give an fd of the attachment's sandbox: the caller's if it is that one, else by what leads to it, or None."""
    wanted = netns.NetnsId(attachment.netns_dev, attachment.netns_ino)
    if netns_fd is not None and netns.identify(netns_fd) == wanted:
        yield netns_fd
        return
    opened = netns.open_namespace(attachment.netns, wanted)
    try:
        yield opened
    finally:
        if opened is not None:
            os.close(opened)


def is_alive(attachment: Attachment) -> bool:
    """Whether the attachment's sandbox still exists."""
    if attachment.boot_id != read_boot_id():
        return False
    with open_sandbox(attachment) as sandbox_fd:
        return sandbox_fd is not None


def is_owed(attachment: Attachment) -> bool:
    """Whether it has to be released: a release or an ADD that did not get to its end, or one of another boot.

    Whoever is at work holds the lock of the VF, so this is to be asked with the lock held.
    """
    return attachment.phase != "attached" or attachment.boot_id != read_boot_id()


def without_lost_vf(attachment: Attachment) -> Attachment:
    """The attachment as far as it is to be released: a reboot made the VFs again, so only addresses may be left."""
    return replace(attachment, released=attachment.released or attachment.boot_id != read_boot_id())
