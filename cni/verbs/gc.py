"""GC: releasing what the runtime no longer knows of (specification, section 4)."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cni.ipam.delegate import collect_garbage
from cni.protocol.netconf import parse_network
from cni.protocol.spec import DEVICE_FAILURE, INVALID_CONFIG
from cni.protocol.wire import Request
from cni.verbs.draft import draft_attachment
from cni.verbs.release import Release
from sriovdp.errors import CniError, InUseError, SriovdpError, naming
from sriovdp.kernel import netns
from sriovdp.kernel.device_name import DeviceName
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Attachment, Journal, Original
from sriovdp.state.locks import Locks

logger = logging.getLogger(__name__)

_KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")  # libcni sends both
_FORGOTTEN = "%s: releasing it, as the runtime no longer lists %s"


@dataclass(frozen=True, slots=True)
class Gc:
    """The verb GC, on one node."""

    sysfs: Sysfs
    journal: Journal
    locks: Locks

    def run(self, request: Request) -> None:
        """Release the attachments of this network that are not listed. Goes on after failures, and raises them."""
        network = parse_network(request.stdin, "GC")
        valid = parse_valid(network.raw)
        garbage = [entry for entry in self.journal.survey()[0] if is_garbage(entry, network.name, valid)]
        failures = [failure for entry in garbage for failure in self._release(entry)]
        try:
            collect_garbage(draft_attachment(request, network, "", Original("", None)))
        except SriovdpError as error:
            failures.append(str(error))
        if failures:
            raise CniError(DEVICE_FAILURE, f"GC is not complete: {'; '.join(failures)}")

    def note(self, request: Request) -> None:
        """Write down what a GC from before the agent's start releases, for the recovery to do. No IPAM plugin is asked.

        All that it does not list and that is in the journal was there when it was sent. Raises CniError, JournalError.
        """
        network = parse_network(request.stdin, "GC")
        valid = parse_valid(network.raw)
        for listed in self.journal.survey()[0]:
            if listed.phase != "attached" or not is_garbage(listed, network.name, valid):
                continue
            name = DeviceName(self.sysfs, listed.device)
            try:
                refuse_if_running(listed, self.sysfs)
            except InUseError as error:
                logger.warning("%s", error)
                continue
            if current := self.journal.find_attachment(listed.container_id, listed.ifname):
                logger.warning(_FORGOTTEN, name, listed.owner)
                self.journal.write_attachment(replace(current, phase="releasing"))

    def _release(self, listed: Attachment) -> Iterator[str]:
        """Release one attachment; gives why it is not done."""
        name = DeviceName(self.sysfs, listed.device)
        try:
            with naming(name), self.locks.hold(listed.key, 0), self.locks.hold(listed.device, 0):
                refuse_if_running(listed, self.sysfs)
                if current := self.journal.find_attachment(listed.container_id, listed.ifname):
                    logger.warning(_FORGOTTEN, name, listed.owner)
                    Release(self.sysfs, self.journal).finish(current, None)
        except SriovdpError as error:
            yield str(error)
        except Exception as error:
            logger.exception("%s: releasing it from %s failed", name, listed.owner)
            yield f"{name}: releasing it from {listed.owner} failed: {error!r}"


def parse_valid(raw: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Container id and CNI_IFNAME of each attachment that stays.

    Raises CniError when there is no such list: that would be every attachment of the network.
    """
    listed = next((raw[key] for key in _KEYS if raw.get(key) is not None), None)
    try:
        return {(entry["containerID"], entry["ifname"]) for entry in listed}  # type: ignore[union-attr] # None raises
    except (TypeError, KeyError):
        raise CniError(
            INVALID_CONFIG,
            f"{_KEYS[0]} is {listed!r}",
            hint='it must be a list of {"containerID": ..., "ifname": ...}; an empty one releases all',
        ) from None


def is_garbage(attachment: Attachment, network: str, valid: set[tuple[str, str]]) -> bool:
    """Whether an attachment is of that network and not listed. Other networks may be other runtimes'."""
    return attachment.network == network and (attachment.container_id, attachment.ifname) not in valid


def refuse_if_running(attachment: Attachment, sysfs: Sysfs) -> None:
    """Raise InUseError when programs run in the sandbox: a runtime that forgets a pod does not make it an idle one."""
    running = netns.find_processes(netns.NetnsId(attachment.netns_dev, attachment.netns_ino))
    if running and attachment.netns_ino:
        raise InUseError(
            f"{DeviceName(sysfs, attachment.device)}: GC does not release it from {attachment.owner}: "
            f"process {running[0]} runs in its sandbox",
            hint="end it, or let the runtime send DEL",
        )
