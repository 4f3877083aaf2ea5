"""What was interrupted or failed, finished later: releases that are owed, and attachments that are not as made.

No entry of the journal can stop the others, or the agent: whatever it holds and whatever its release runs into stays
with that entry.
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
from sriovdp.state.locks import Locks

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovery:
    """Of one node, by its journal and the locks of its VFs."""

    sysfs: Sysfs
    journal: Journal
    locks: Locks

    def finish(self, listed: Attachment) -> None:
        """Finish what an entry owes, as it is now: a DEL may have, and another pod may have the VF by now.

        Raises BusyError when somebody is at it, IpamError when only the addresses are not free, SriovdpError when the
        VF is not as it was.
        """
        with self.locks.hold(listed.key, 0), self.locks.hold(listed.device, 0):
            attachment = self.journal.find_attachment(listed.container_id, listed.ifname)
            if attachment is not None and is_owed(attachment):
                Release(self.sysfs, self.journal).finish(without_lost_vf(attachment), None)

    def recover(self) -> dict[str, str]:
        """Finish what every entry owes, one after the other. Gives the VFs that no pod should get, with the reason."""
        listed, damages = self.journal.survey()
        failed = {damage.device: damage.reason for damage in damages if damage.device}
        for entry in listed:
            if is_owed(entry) and (reason := self._try(entry)):
                failed[entry.device] = reason
        return failed

    def _try(self, entry: Attachment) -> str:
        """Finish what an entry owes; gives why its VF is not back, empty when it is."""
        try:
            self.finish(entry)
        except BusyError:
            return ""
        except IpamError as error:
            logger.error("%s: its addresses are not free: %s", entry.owner, error)
            return ""
        except SriovdpError as error:
            return f"not back from {entry.owner}: {error}"
        except Exception as error:
            logger.exception("VF %s is not back from %s", entry.device, entry.owner)
            return f"not back from {entry.owner}: {error!r}"
        return ""

    def verify(self, listed: Attachment) -> list[str]:
        """What is not as it should be with an attachment, a sentence each."""
        attachment = self.journal.find_attachment(listed.container_id, listed.ifname)
        if attachment is None:
            return []
        if is_owed(attachment):
            return [f"its release was not finished ({attachment.phase})"]
        with open_sandbox(attachment) as sandbox_fd:
            return compare(self.sysfs, attachment, _reparse(attachment), sandbox_fd)

    def repair(self, listed: Attachment) -> None:
        """Finish a release, release what has no sandbox any more, and set again what the PF holds for a running pod."""
        with self.locks.hold(listed.key), self.locks.hold(listed.device), Netlink() as netlink:
            current = self.journal.find_attachment(listed.container_id, listed.ifname)
            if current is None:
                return
            if is_owed(current) or not is_alive(current):
                Release(self.sysfs, self.journal).finish(without_lost_vf(current), None)
                return
            conf = _reparse(current)
            changes = dict(conf.settings) | ({"mac": conf.mac} if conf.mac else {})
            if changes and current.original.settings:
                vf = find_vf(self.sysfs, netlink, PciAddress(current.device))
                wanted = replace(current.original.settings, **changes)
                apply_settings(netlink, vf, wanted, skip_unsupported=bool(current.unsupported))


def _reparse(attachment: Attachment) -> NetConf:
    """The configuration that an attachment was made with; what came before it in a chain says nothing of it now."""
    return replace(parse_netconf(json.dumps(attachment.config).encode(), attachment.args), previous=None)
