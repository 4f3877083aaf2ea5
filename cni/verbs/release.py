"""DEL, and releasing an attachment: its addresses by the IPAM plugin, its VF, its journal entry."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from cni import timing
from cni.device_info import remove_device_info
from cni.foreign_state import ForeignState
from cni.ipam.delegate import Deletion, IpamError, delete_addresses
from cni.policy import Policy
from cni.protocol.infiniband import TYPE as IB_TYPE
from cni.protocol.netconf import Network, parse_network
from cni.protocol.wire import Request
from cni.verbs.draft import draft_attachment
from cni.verbs.owed import without_lost_vf
from cni.vf.representor import restore_representor
from cni.vf.restore import restore_vf
from cni.vf.trunk import restore_trunk
from sriovdp.errors import BusyError, DamageError, DeviceError, JournalError, SriovdpError, naming
from sriovdp.kernel import netns
from sriovdp.kernel.device_name import DeviceName
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
        """Release what this container's interface owns; nothing owned is success, whatever the configuration says.

        What cannot be done now and is in the journal is done later by the agent; the pod need not wait for it. Raises
        IpamError when the IPAM plugin keeps an address, so that the runtime tries again, and JournalError when the
        release cannot be written down: then nothing was done.
        """
        network = _read_network(request)
        with self.locks.hold(request.key):
            known = self._find(request, network, netns_fd)
            if known is None:
                _delete_unknown(request, network)
                return
            with naming(DeviceName(self.sysfs, known.device)), ExitStack() as held:
                held.enter_context(self.locks.hold(known.device))
                timing.mark("configuration and locks")
                attachment = self.journal.find_attachment(request.container_id, request.ifname)
                if attachment is not None:
                    self._release(attachment, network, netns_fd, held)

    def _find(self, request: Request, network: Network | None, netns_fd: int | None) -> Attachment | None:
        """What the container's interface owns by the journal, or by another plugin's state."""
        try:
            known = self.journal.find_attachment(request.container_id, request.ifname)
        except DamageError as error:
            # its VF stays out of use for as long as the file is there, which is all that can be done about it
            logger.error("%s: DEL succeeds, and no pod gets its VF: %s", request.caller, error)
            return None
        if known is None and network is not None:
            try:
                known = self._adopt(request, network, netns_fd)
            except (JournalError, BusyError):
                raise
            except Exception:  # whatever another plugin's files hold: this container can go
                logger.exception("%s: cannot release what another plugin attached", request.caller)
        return known

    def _adopt(self, request: Request, network: Network, netns_fd: int | None) -> Attachment | None:
        """Take over from sriov-cni or ib-sriov-cni what it attached for this container, to be released."""
        own = self.foreign_state.beside(IB_TYPE) if network.raw.get("type") == IB_TYPE else self.foreign_state
        state = ForeignState.choose(network.state_folder, self.policy, own, request.caller)
        found = state.find(request, network, netns_fd, self.sysfs)
        if found is None:
            return None
        with self.locks.hold(found.device):
            if any(entry.device == found.device and not entry.released for entry in self.journal.survey()[0]):
                found = replace(found, released=True)  # another pod's by now; nothing but the addresses is ours
            name = DeviceName(self.sysfs, found.device)
            logger.info("%s: releasing it from %s, to which another plugin attached it", name, found.owner)
            self.journal.write_attachment(found)
            state.forget(found)
        return found

    def _release(self, attachment: Attachment, network: Network | None, netns_fd: int | None, held: ExitStack) -> None:
        """Release, or leave it to the agent once the journal has it. `held` is the lock of the VF."""
        try:
            release = Release(self.sysfs, self.journal, network, held.close)
            release.finish(without_lost_vf(attachment), netns_fd)
        except JournalError:
            raise
        except IpamError as error:
            if was_complete(attachment) and not error.is_final:
                raise
            logger.warning("%s: DEL succeeds, and the agent retries to free addresses: %s", attachment.caller, error)
        except SriovdpError as error:
            name = DeviceName(self.sysfs, attachment.device)
            logger.error("%s: not released from %s, the agent retries: %s", name, attachment.owner, error.reason)


def _read_network(request: Request) -> Network | None:
    """The request's configuration; None when it is of no use, which is no reason to keep a pod."""
    try:
        return parse_network(request.stdin, "DEL")
    except SriovdpError as error:
        logger.warning("%s: DEL goes by the journal, as its configuration is invalid: %s", request.caller, error)
        return None


def _delete_unknown(request: Request, network: Network | None) -> None:
    """DEL of what no journal has: an ADD that came to nothing, a second DEL, or a journal that was lost.

    The IPAM plugin is asked for the last one's sake. What it says does not matter: nothing is owned.
    """
    if network is None or not network.name:
        return  # and no IPAM plugin was asked for anything
    try:
        delete_addresses(draft_attachment(request, network, "", Original("", None)))
    except Exception as error:  # noqa: BLE001 - whatever the configuration or the plugin's answer holds
        logger.warning("%s: it has no VF, and its IPAM plugin failed: %s", request.caller, error)


def _keep_lock() -> None:
    """The VF's lock is held until the end."""


@dataclass(frozen=True, slots=True)
class Release:
    """Gives back what attachments own, on one node.

    `network` is what the caller's configuration says today, for an IPAM plugin that fails with the recorded one.
    `let_go` is called when the VF is back, for another pod to have it while the IPAM plugin still works.
    """

    sysfs: Sysfs
    journal: Journal
    network: Network | None = None
    let_go: Callable[[], None] = _keep_lock

    def finish(self, attachment: Attachment, netns_fd: int | None, *, is_given: bool = True) -> None:
        """Give the addresses and the VF back, and forget the attachment. `netns_fd` is the caller's CNI_NETNS.

        What cannot be done stays in the journal, to be tried again. Without `is_given` the IPAM plugin never gave an
        address: its DEL is tried once. Raises JournalError when nothing was done, DeviceError when the VF did not come
        back as it was, and IpamError when the IPAM plugin failed; the other of the two is done all the same.
        """
        releasing = replace(attachment, phase="releasing")
        self.journal.write_attachment(releasing)
        timing.mark("journal")
        addresses = None if releasing.freed else Deletion(releasing)
        timing.mark("start of IPAM")
        try:
            failure = None if releasing.released else self._restore(releasing, netns_fd)
            timing.mark("VF back and compared")
            if failure is None and not releasing.released and addresses is not None and addresses.is_running:
                releasing = replace(releasing, released=True)
                self.journal.write_attachment(releasing)
                self.let_go()
        finally:
            owed = addresses.finish() if addresses else None
        if owed is not None:
            owed = self._free_by_todays_network(releasing, owed)
        timing.mark("wait for IPAM")
        if owed is not None and not (is_given and is_still_owed(attachment, owed)):
            logger.warning(
                "%s: no address was reserved, and DEL of the IPAM plugin failed: %s", attachment.caller, owed
            )
            owed = None
        self._note(releasing, failure, freed=owed is None)
        if owed is not None:
            raise owed

    def bring_back(self, attachment: Attachment) -> None:
        """Give only the VF back, which waits for no IPAM plugin. Raises JournalError, and DeviceError as `finish`."""
        releasing = replace(attachment, phase="releasing")
        self.journal.write_attachment(releasing)
        if failure := self._restore(releasing, None):
            raise failure
        self._note(releasing, None, freed=releasing.freed)

    def _restore(self, attachment: Attachment, netns_fd: int | None) -> SriovdpError | None:
        """Bring the VF back; gives why it did not come back."""
        try:
            with naming(self._name(attachment)), open_sandbox(attachment, netns_fd) as sandbox_fd:
                self._restore_all(attachment, sandbox_fd)
        except SriovdpError as error:
            return error
        except Exception as error:  # whatever the entry holds: its addresses are freed, and others go on
            name = self._name(attachment)
            logger.exception("%s: restoring it after %s failed", name, attachment.owner)
            return DeviceError(f"{name}: restoring it failed: {error!r}")
        remove_device_info(attachment, self.sysfs)
        return None

    def _restore_all(self, attachment: Attachment, sandbox_fd: int | None) -> None:
        """The VF, and what stands for it on the host; what one of them runs into does not keep the others."""
        with ExitStack() as steps:
            steps.callback(restore_representor, self.sysfs, attachment)
            steps.callback(restore_trunk, self.sysfs, attachment)
            if attachment.boot_id == read_boot_id():  # a reboot made the VF again
                restore_vf(self.sysfs, attachment, sandbox_fd)

    def _name(self, attachment: Attachment) -> DeviceName:
        return DeviceName(self.sysfs, attachment.device)

    def _free_by_todays_network(self, attachment: Attachment, owed: IpamError) -> IpamError | None:
        """Ask again with the configuration that the caller has now: it may be corrected."""
        network = self.network
        if network is None or not network.name or network.raw.get("ipam") == attachment.config.get("ipam"):
            return owed
        return Deletion(replace(attachment, config=network.raw)).finish()

    def _note(self, releasing: Attachment, failure: SriovdpError | None, *, freed: bool) -> None:
        """Write down what is left to do, and raise why the VF is not back."""
        left = replace(releasing, released=failure is None, freed=freed)
        if left.released and left.freed:
            self.journal.remove_attachment(releasing)
            logger.info("%s: released from %s", self._name(releasing), releasing.owner)
            return
        if left != releasing:
            self.journal.write_attachment(left)
        if failure is not None:
            raise failure


def is_still_owed(attachment: Attachment, error: IpamError) -> bool:
    """Whether an address may still be reserved after an IPAM plugin's DEL failed.

    A plugin that is missing, or rejects what it is asked, gave nothing to an ADD that was interrupted.
    """
    return was_complete(attachment) or not error.is_final


def was_complete(attachment: Attachment) -> bool:
    """Whether its ADD came to its end, so that the IPAM plugin has given what it was asked for."""
    return attachment.phase == "attached" or bool(attachment.result)


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
