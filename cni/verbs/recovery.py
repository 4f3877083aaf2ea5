"""What was interrupted or failed, finished later: releases that are owed, and attachments that are not as made.

No entry of the journal can stop the others, or the agent: whatever it holds and whatever its release runs into stays
with that entry, and its VF is given to nobody.
"""

import json
import logging
from dataclasses import dataclass, replace

from cni.ipam.delegate import IpamError
from cni.protocol.netconf import NetConf, parse_netconf
from cni.verbs.check import compare
from cni.verbs.release import Release, is_alive, is_owed, open_sandbox, without_lost_vf
from cni.vf.settings import apply_settings, find_vf
from sriovdp.errors import BusyError, SriovdpError
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import PciAddress
from sriovdp.state.journal import Attachment, Journal
from sriovdp.state.locks import TIMEOUT, Locks

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovery:
    """Of one node, by its journal and the locks of its VFs."""

    sysfs: Sysfs
    journal: Journal
    locks: Locks

    def recover(self, *, at_start: bool) -> dict[str, str]:
        """Finish what was interrupted or failed. At the agent's start that waits for whoever is at work just now.

        What cannot be finished now stays in the journal for the next time. Gives the VFs that are not as they were, by
        PCI address, with the reason: no pod should get them.
        """
        listed, damages = self.journal.survey()
        failed = {damage.device: damage.reason for damage in damages if damage.device}
        for damage in damages if at_start else ():
            logger.error("%s", damage.reason)
        for entry in listed:
            if not is_owed(entry):
                continue
            try:
                with self.locks.hold(entry.device, TIMEOUT if at_start else 0):
                    self._finish(entry)
            except BusyError:
                continue  # somebody is at it
            except SriovdpError as error:
                logger.error("VF %s is not back from %s: %s", entry.device, entry.owner, error)
                if not isinstance(error, IpamError):
                    failed[entry.device] = f"not back from {entry.owner}: {error}"
            except Exception as error:  # whatever an entry holds: the others go on, and so does the agent
                logger.exception("VF %s is not back from %s", entry.device, entry.owner)
                failed[entry.device] = f"not back from {entry.owner}: {error!r}"
        return failed

    def verify(self, attachment: Attachment) -> list[str]:
        """What is not as it should be with an attachment, a sentence each."""
        if is_owed(attachment):
            return [f"its release was not finished ({attachment.phase})"]
        with open_sandbox(attachment) as sandbox_fd:
            return compare(self.sysfs, attachment, _reparse(attachment), sandbox_fd)

    def repair(self, attachment: Attachment) -> None:
        """Finish a release, release what has no sandbox any more, and set again what the PF holds for a running pod."""
        with self.locks.hold(attachment.device), Netlink() as netlink:
            current = self.journal.find_attachment(attachment.container_id, attachment.ifname)
            if current is None:
                return
            if is_owed(current):
                self._finish(current)
            elif not is_alive(current):
                Release(self.sysfs, self.journal).finish(current, None)
            else:
                conf = _reparse(current)
                changes = dict(conf.settings) | ({"mac": conf.mac} if conf.mac else {})
                if changes and current.original.settings:
                    vf = find_vf(self.sysfs, netlink, PciAddress(current.device))
                    wanted = replace(current.original.settings, **changes)
                    apply_settings(netlink, vf, wanted, skip_unsupported=bool(current.unsupported))

    def _finish(self, listed: Attachment) -> None:
        """Finish what is owed, as it is now: a DEL may have, and another pod may have the VF by now."""
        attachment = self.journal.find_attachment(listed.container_id, listed.ifname)
        if attachment is not None and is_owed(attachment):
            Release(self.sysfs, self.journal).finish(without_lost_vf(attachment), None)


def _reparse(attachment: Attachment) -> NetConf:
    """The configuration that an attachment was made with; what came before it in a chain says nothing of it now."""
    return replace(parse_netconf(json.dumps(attachment.config).encode(), attachment.args), previous=None)
