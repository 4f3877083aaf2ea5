"""Releasing an attachment: its addresses by the IPAM plugin, its VF, its entry in the journal."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cni import timing
from cni.ipam.delegate import Deletion
from cni.vf.restore import restore_vf
from sriovdp.kernel import netns
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Attachment, Journal, read_boot_id

logger = logging.getLogger(__name__)


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
                _remove_device_info(releasing)
        finally:
            timing.mark("VF back and compared")
            owed = addresses.finish()
            timing.mark("wait for IPAM")
        if owed is not None:
            self.journal.write_attachment(replace(releasing, released=True))
            raise owed
        self.journal.remove_attachment(releasing)
        logger.info("released VF %s from %s", attachment.device, attachment.owner)


def _remove_device_info(attachment: Attachment) -> None:
    """Remove the file that ADD wrote. What is there in its place is not ours, and no reason to keep the VF."""
    if not attachment.device_info:
        return
    try:
        Path(attachment.device_info).unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        logger.warning("%s: removing device-info file %r failed: %s", attachment.owner, attachment.device_info, error)


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
