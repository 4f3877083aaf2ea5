"""What was interrupted or failed, finished later: releases that are owed, and attachments that are not as made.

No entry of the journal can stop the others, or the agent: whatever it holds and whatever its release runs into stays
with that entry.
"""

import json
from dataclasses import dataclass, replace

from cni.protocol.netconf import NetConf, parse_netconf
from cni.verbs.check import compare
from cni.verbs.owed import is_owed, without_lost_vf
from cni.verbs.release import Release, is_alive, open_sandbox
from cni.vf.infiniband import set_guid
from cni.vf.representor import repair_representor
from cni.vf.settings import apply_settings, find_vf
from cni.vf.trunk import apply_trunk
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import PciAddress
from sriovdp.state.journal import Attachment, Journal
from sriovdp.state.locks import Locks


@dataclass(frozen=True, slots=True)
class Recovery:
    """Of one node, by its journal and the locks of its VFs."""

    sysfs: Sysfs
    journal: Journal
    locks: Locks

    def bring_back(self, listed: Attachment) -> None:
        """Finish the VF's part of a release. Raises BusyError when another request works on it, else SriovdpError."""
        with self.locks.hold(listed.key, 0), self.locks.hold(listed.device, 0):
            attachment = self._find_owed(listed)
            if attachment is not None and not attachment.released:
                Release(self.sysfs, self.journal).bring_back(attachment)

    def free(self, listed: Attachment) -> None:
        """Finish the IPAM plugin's part of a release. Raises BusyError and SriovdpError as `bring_back`.

        The VF may be another pod's by now, and is not locked.
        """
        with self.locks.hold(listed.key, 0):
            attachment = self._find_owed(listed)
            if attachment is not None and attachment.released:
                Release(self.sysfs, self.journal).finish(attachment, None)

    def _find_owed(self, listed: Attachment) -> Attachment | None:
        """What an entry owes, as it is now: a DEL may have finished it."""
        attachment = self.journal.find_attachment(listed.container_id, listed.ifname)
        return without_lost_vf(attachment) if attachment is not None and is_owed(attachment) else None

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
            if conf.guid:
                set_guid(netlink, find_vf(self.sysfs, netlink, PciAddress(current.device)), conf.guid)
            apply_trunk(self.sysfs, current, conf.trunk)
            repair_representor(self.sysfs, netlink, current, conf.bridging)


def _reparse(attachment: Attachment) -> NetConf:
    """The configuration that an attachment was made with; what came before it in a chain says nothing of it now."""
    return replace(parse_netconf(json.dumps(attachment.config).encode(), attachment.args), previous=None)
