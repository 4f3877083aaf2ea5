"""The verbs of the CNI plugin, as the agent runs them: ADD, DEL and STATUS.

ADD writes the journal before its first change; whatever fails after that is undone at once, and what a crash leaves
behind is undone by `recover` or by the DEL that the runtime sends.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from cni import sandbox
from cni.ipam import IpamError, delete_addresses, request_addresses
from cni.locks import Locks
from cni.netconf import NetConf, parse_netconf
from cni.release import Release, boot_id, is_alive
from cni.spec import (
    DEVICE_FAILURE,
    DEVICE_IN_USE,
    INVALID_ENVIRONMENT,
    INVALID_NETNS,
    IPAM_FAILURE,
    Interface,
    Result,
    render_error,
    render_result,
)
from cni.vf import Vf, apply_settings, find_netdev, find_vf, move_into, read_original, set_netdev_mac
from cni.wire import Reply, Request
from sriovdp.errors import CniError, SriovdpError
from sriovdp.journal import Attachment, Journal, Original
from sriovdp.kernel import netns
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import ZERO_MAC, PciAddress, VfSettings

logger = logging.getLogger(__name__)

_CONTAINER_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")  # as libcni has it, pkg/utils
_IFNAME = re.compile(r"[^/:\s]{1,15}")


@dataclass(frozen=True, slots=True)
class Verbs:
    """The verbs, on one node: its sysfs, its journal, and the locks of its VFs."""

    sysfs: Sysfs
    journal: Journal
    locks: Locks

    def handle(self, request: Request, netns_fd: int | None) -> Reply:
        """Answer a request of the launcher. Every failure becomes an error of the CNI specification."""
        verbs = {"ADD": self.add, "DEL": self.delete, "STATUS": self.status}
        try:
            verb = verbs.get(request.command)
            if verb is None:
                raise CniError(INVALID_ENVIRONMENT, f"CNI_COMMAND {request.command} is not supported yet")
            return Reply(0, verb(request, netns_fd))
        except SriovdpError as error:
            logger.warning("%s of %s %s failed: %s", request.command, request.container_id, request.ifname, error)
            return Reply(1, render_error(error))
        except Exception as error:
            logger.exception("%s of %s %s failed", request.command, request.container_id, request.ifname)
            return Reply(1, render_error(error))

    def add(self, request: Request, netns_fd: int | None) -> bytes:
        """ADD (specification, section 4): attach the VF and answer the result."""
        conf = parse_netconf(request.stdin, request.args)
        device = conf.require_device()
        _check_names(request)
        if netns_fd is None or not netns.is_namespace(netns_fd):
            raise CniError(INVALID_NETNS, f"CNI_NETNS {request.netns!r} is no network namespace")
        with self.locks.hold(device), Netlink() as netlink:
            self._settle_previous(device, request)
            netns.run_in(netns_fd, sandbox.check_name_is_free, request.ifname)
            vf = find_vf(self.sysfs, netlink, device)
            attachment = _draft(request, conf, read_original(self.sysfs, netlink, vf), netns_fd)
            self.journal.write_attachment(attachment)
            with self._undo_on_failure(attachment, netns_fd):
                result = self._attach(netlink, vf, conf, attachment, netns_fd)
                self.journal.write_attachment(replace(attachment, phase="attached"))
        logger.info("attached VF %s to %s", device, attachment.owner)
        return render_result(result, conf.version)

    def delete(self, request: Request, netns_fd: int | None) -> bytes:
        """DEL (specification, section 4): release what this container's interface owns; nothing owned is success.

        A VF that can not be brought back now is kept in the journal for the agent to repair; the pod need not wait.
        Raises IpamError when the IPAM plugin failed, so that the runtime tries again.
        """
        conf = parse_netconf(request.stdin, request.args)
        _check_names(request)
        known = self.journal.find_attachment(request.container_id, request.ifname)
        if known is None:
            delete_addresses(_draft(request, conf, Original("", None), netns_fd))
            return b""
        with self.locks.hold(known.device):
            attachment = self.journal.find_attachment(request.container_id, request.ifname)
            if attachment is not None:
                try:
                    self._release(attachment, netns_fd)
                except IpamError:
                    raise
                except SriovdpError as error:
                    logger.error("VF %s did not come back, the agent goes on trying: %s", attachment.device, error)
        return b""

    def status(self, request: Request, netns_fd: int | None) -> bytes:
        """STATUS (specification, section 4): an agent that answers can serve ADD."""
        del request, netns_fd
        return b""

    def recover(self, *, at_start: bool) -> dict[str, str]:
        """Finish what was interrupted or failed: complete each release, and at the agent's start undo each ADD too.

        What can not be finished now stays in the journal for the next time. Gives the VFs that are not as they were, by
        PCI address, with the reason: no pod should get them.
        """
        failed = {}
        for listed in self.journal.attachments():
            if not _is_owed(listed, at_start):
                continue
            try:
                with self.locks.hold(listed.device):
                    self._finish(listed, at_start)
            except SriovdpError as error:
                logger.error("VF %s is not back from %s: %s", listed.device, listed.owner, error)
                if not isinstance(error, IpamError):
                    failed[listed.device] = f"not back from {listed.owner}: {error}"
        return failed

    def _finish(self, listed: Attachment, at_start: bool) -> None:
        """Finish what is owed, as it is now: a DEL may have, and another pod may have the VF by now."""
        attachment = self.journal.find_attachment(listed.container_id, listed.ifname)
        if attachment is not None and _is_owed(attachment, at_start):
            # a reboot made the VFs anew; only the addresses may still be reserved
            void = attachment.boot_id != boot_id()
            self._release(replace(attachment, released=attachment.released or void), None)

    def _release(self, attachment: Attachment, netns_fd: int | None) -> None:
        Release(self.sysfs, self.journal).finish(attachment, netns_fd)

    def _attach(self, netlink: Netlink, vf: Vf, conf: NetConf, attachment: Attachment, netns_fd: int) -> Result:
        with request_addresses(attachment) as ipam:
            self._set_on_pf(netlink, vf, conf, attachment.original)
            interface = self._enter_sandbox(netlink, vf, conf, attachment, netns_fd)
            result = Result((interface,), dns=conf.dns)
            if ipam is None:
                return result
            addresses = ipam.finish()
        if not addresses.ips:
            raise CniError(IPAM_FAILURE, f"IPAM plugin {conf.ipam} gave no address")
        result = result.with_addresses_of(addresses)
        if attachment.mode == "kernel":
            netns.run_in(netns_fd, sandbox.configure_addresses, attachment.ifname, result)
        return result

    def _set_on_pf(self, netlink: Netlink, vf: Vf, conf: NetConf, original: Original) -> None:
        changes = dict(conf.settings) | ({"mac": conf.mac} if conf.mac else {})
        if not changes:
            return
        apply_settings(netlink, vf, replace(original.settings or VfSettings(ZERO_MAC), **changes))
        if conf.mac and original.name is not None:
            set_netdev_mac(self.sysfs, netlink, vf, conf.mac)

    def _enter_sandbox(
        self, netlink: Netlink, vf: Vf, conf: NetConf, attachment: Attachment, netns_fd: int
    ) -> Interface:
        common: dict[str, Any] = {"name": attachment.ifname, "sandbox": attachment.netns, "pci_id": str(vf.address)}
        if attachment.mode == "dpdk":
            settings = attachment.original.settings
            return Interface(mac=conf.mac or (settings.mac if settings and settings.mac != ZERO_MAC else ""), **common)
        device = find_netdev(self.sysfs, netlink, vf.address)
        if device is None:
            raise CniError(DEVICE_FAILURE, f"the netdev of VF {vf.address} vanished while it was being configured")
        move_into(netlink, device, netns_fd, attachment.ifname)
        after = netns.run_in(netns_fd, sandbox.bring_up, attachment.ifname, vf.address, conf.mac)
        return Interface(mac=after.mac, mtu=after.mtu, **common)

    @contextmanager
    def _undo_on_failure(self, attachment: Attachment, netns_fd: int) -> Iterator[None]:
        try:
            yield
        except Exception:
            try:
                self._release(attachment, netns_fd)
            except SriovdpError as error:
                logger.error("undoing the ADD of VF %s failed, the agent goes on trying: %s", attachment.device, error)
            raise

    def _settle_previous(self, device: PciAddress, request: Request) -> None:
        """Make sure that nobody has the VF or the interface; take a VF back from an owner whose sandbox is gone.

        Raises CniError naming the owner when there is one.
        """
        for other in self.journal.attachments():
            same_interface = (other.container_id, other.ifname) == (request.container_id, request.ifname)
            if other.released or not (other.device == device or same_interface):
                continue
            if other.device != device or (other.phase == "attached" and is_alive(other)):
                hint = "it is free once the runtime sends DEL for that attachment"
                raise CniError(DEVICE_IN_USE, f"VF {other.device} is attached to {other.owner}", hint=hint)
            logger.warning("VF %s was still attached to %s, which is gone; releasing it first", device, other.owner)
            self._release(other, None)


def _is_owed(attachment: Attachment, at_start: bool) -> bool:
    """Whether nobody but us will finish it: a release that failed, and at our start also what the last agent left."""
    interrupted = attachment.phase == "adding" or attachment.boot_id != boot_id()
    return attachment.phase == "releasing" or (at_start and interrupted)


def _draft(request: Request, conf: NetConf, original: Original, netns_fd: int | None) -> Attachment:
    """The attachment that a request asks for, in its first phase."""
    sandbox_id = netns.identify(netns_fd) if netns_fd is not None else netns.NetnsId(0, 0)
    return Attachment(
        container_id=request.container_id,
        ifname=request.ifname,
        network=conf.name,
        device=conf.device or "",
        mode="dpdk" if original.name is None else "kernel",
        original=original,
        netns=request.netns,
        netns_dev=sandbox_id.dev,
        netns_ino=sandbox_id.ino,
        boot_id=boot_id(),
        config=conf.raw,
        args=request.args,
        path=request.path,
    )


def _check_names(request: Request) -> None:
    if not _CONTAINER_ID.fullmatch(request.container_id):
        raise CniError(INVALID_ENVIRONMENT, f"CNI_CONTAINERID {request.container_id!r} has invalid characters")
    if not _IFNAME.fullmatch(request.ifname) or request.ifname in {".", ".."}:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_IFNAME {request.ifname!r} is no name for an interface")
