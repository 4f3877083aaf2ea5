"""The verbs of the CNI plugin: ADD, DEL, CHECK, STATUS, GC, VERSION, and the recovery of what was interrupted.

ADD writes the journal before its first change; whatever fails after that is undone at once, and what a crash leaves
behind is undone by `recover` or by the DEL that the runtime sends. All work on a VF is done under the lock of its
address, so an attachment that is neither attached nor locked was interrupted.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cni import timing
from cni.foreign_state import Predecessor
from cni.ipam.delegate import IpamError, MissingPluginError, check_addresses, collect_garbage, delete_addresses
from cni.locks import TIMEOUT, Locks, hold_file
from cni.protocol.environment import COMMANDS, check_environment, require_sandbox
from cni.protocol.netconf import NetConf, Network, parse_netconf, parse_network
from cni.protocol.spec import (
    DEVICE_FAILURE,
    INVALID_CONFIG,
    INVALID_NETNS,
    TRY_AGAIN,
    UNKNOWN_CONTAINER,
    VERSIONS,
    code_of,
    describe_result,
    parse_result,
    render_error,
    render_result,
    render_versions,
)
from cni.protocol.wire import Reply, Request
from cni.request_log import log_to
from cni.verbs.add import Addition
from cni.verbs.announce import Announcer
from cni.verbs.check import Comparison
from cni.verbs.gc import is_garbage, parse_valid, refuse_if_running
from cni.verbs.release import Release, is_alive, is_owed, open_sandbox
from cni.verbs.reserve import Reservation, draft_attachment
from cni.verbs.status import Readiness
from cni.vf.settings import apply_settings, find_vf
from sriovdp.errors import CniError, SriovdpError
from sriovdp.kernel import netns
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import PciAddress
from sriovdp.state.journal import Attachment, Journal, Original, read_boot_id

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verbs:
    """The verbs, on one node: its sysfs, its journal, and the locks of its VFs.

    `announce` tells the network of an attachment's addresses without holding up the answer; `predecessor` is what
    sriov-cni left on this node.
    """

    sysfs: Sysfs
    journal: Journal
    locks: Locks
    announce: Callable[[Attachment, Iterable[str]], object] = field(default_factory=lambda: Announcer().start)
    predecessor: Predecessor = field(default_factory=Predecessor)

    def handle(self, request: Request, netns_fd: int | None, cancelled: threading.Event | None = None) -> Reply:
        """Answer a request of the launcher. Every failure becomes an error of the CNI specification.

        Once `cancelled` is set, nobody waits for the answer any more: an ADD undoes what it did, and fails.
        """
        timing.begin()
        code = None
        try:
            check_environment(request)
            verbs = {
                "DEL": self.delete,
                "CHECK": self.check,
                "STATUS": self.status,
                "GC": self.gc,
                "VERSION": self.version,
            }
            if request.command == "ADD":
                return Reply(0, self.add(request, netns_fd, cancelled or threading.Event()))
            return Reply(0, verbs[request.command](request, netns_fd))
        except SriovdpError as error:
            code = code_of(error)
            logger.warning("%s of %s %s failed: %s", request.command, request.container_id, request.ifname, error)
            return Reply(1, render_error(error, _version_of(request)))
        except Exception as error:
            code = code_of(error)
            logger.exception("%s of %s %s failed", request.command, request.container_id, request.ifname)
            return Reply(1, render_error(error, _version_of(request)))
        finally:
            verb = request.command if request.command in COMMANDS else "unknown"
            timing.end(verb, code, f"{request.container_id} {request.ifname}")

    @contextmanager
    def hold(self, name: str, timeout: float = TIMEOUT) -> Iterator[None]:
        """Be the only one in this process, and among all processes of this journal, who works on what is so named."""
        with self.locks.hold(name, timeout), hold_file(self.journal.locks, name, timeout):
            yield

    def add(self, request: Request, netns_fd: int | None, cancelled: threading.Event) -> bytes:
        """ADD: attach the VF and answer the result."""
        conf = parse_netconf(request.stdin, request.args, "ADD")
        sandbox_fd = require_sandbox(request, netns_fd)
        with ExitStack() as held:
            held.enter_context(log_to(conf.log_file, conf.log_level, f"ADD {request.container_id} {request.ifname}"))
            held.enter_context(self.hold(_key(request)))
            netlink = held.enter_context(Netlink())
            reservation = Reservation(self.sysfs, self.journal, self.hold, self.predecessor, netlink)
            timing.mark("configuration and lock")
            vf, draft = reservation.begin(held, conf, request, sandbox_fd)
            timing.mark("state and journal")
            with self._undo_on_failure(draft, sandbox_fd):
                steps = Addition(self.sysfs, self.journal, netlink, vf, conf, sandbox_fd, cancelled)
                attachment, result = steps.run(draft)
            logger.info("attached VF %s to %s", attachment.device, attachment.owner)
        if attachment.mode == "kernel":
            self.announce(attachment, _own_addresses(attachment))
        return render_result(result, conf.version)

    def delete(self, request: Request, netns_fd: int | None) -> bytes:
        """DEL: release what this container's interface owns; nothing owned is success.

        A VF that can not be brought back now is kept in the journal for the agent to repair; the pod need not wait.
        Raises IpamError when the IPAM plugin failed, so that the runtime tries again.
        """
        network = parse_network(request.stdin, "DEL")
        with self.hold(_key(request)):
            known = self.journal.find_attachment(request.container_id, request.ifname)
            if known is None:
                known = self._adopt(request, network, netns_fd)
            if known is None:
                _delete_unknown(request, network)
                return b""
            with self.hold(known.device):
                timing.mark("configuration and locks")
                attachment = self.journal.find_attachment(request.container_id, request.ifname)
                if attachment is not None:
                    self._release_or_leave_it_to_the_agent(attachment, netns_fd)
        return b""

    def check(self, request: Request, netns_fd: int | None) -> bytes:
        """CHECK: all that ADD made is still as it was made. Raises CniError with every difference."""
        conf = parse_netconf(request.stdin, request.args, "CHECK")
        sandbox_fd = require_sandbox(request, netns_fd)
        with self.hold(_key(request)):
            attachment = self.journal.find_attachment(request.container_id, request.ifname)
            if attachment is None or attachment.phase != "attached":
                raise CniError(
                    UNKNOWN_CONTAINER,
                    f"container {request.container_id} has no {request.ifname} of network {conf.name}",
                )
            if conf.device not in {None, attachment.device}:
                raise CniError(INVALID_CONFIG, f"deviceID is {conf.device}, but {attachment.device} was attached")
            if netns.identify(sandbox_fd) != netns.NetnsId(attachment.netns_dev, attachment.netns_ino):
                raise CniError(INVALID_NETNS, f"CNI_NETNS {request.netns!r} is not the sandbox that ADD was given")
            differences = self._compare(attachment, conf, sandbox_fd)
        if differences:
            raise CniError(DEVICE_FAILURE, f"{attachment.owner} is not as it was made: {'; '.join(differences)}")
        return b""

    def status(self, request: Request, netns_fd: int | None) -> bytes:
        """STATUS: ADD can be served. Raises CniError with code 50 or 51 and the reason."""
        del netns_fd
        conf = parse_netconf(request.stdin, request.args, "STATUS")
        draft = draft_attachment(
            request, Network(conf.name, conf.version, conf.raw), conf.device or "", Original("", None), None
        )
        Readiness(self.sysfs, self.journal).check(conf, draft)
        return b""

    def gc(self, request: Request, netns_fd: int | None) -> bytes:
        """GC: release the attachments of this network that are not listed. Goes on after failures, and raises them."""
        del netns_fd
        network = parse_network(request.stdin, "GC")
        valid = parse_valid(network.raw)
        failures: list[str] = []
        for listed in self.journal.survey()[0]:
            if not is_garbage(listed, network.name, valid):
                continue
            try:
                with self.hold(f"{listed.container_id}-{listed.ifname}", 0), self.hold(listed.device, 0):
                    refuse_if_running(listed)
                    if self.journal.find_attachment(listed.container_id, listed.ifname):
                        logger.warning("the runtime does not know of %s any more, releasing it", listed.owner)
                        self._release(listed, None)
            except SriovdpError as error:
                failures.append(str(error))
            except Exception as error:
                logger.exception("releasing VF %s from %s failed", listed.device, listed.owner)
                failures.append(f"releasing VF {listed.device} from {listed.owner} failed: {error!r}")
        try:
            collect_garbage(draft_attachment(request, network, "", Original("", None)))
        except SriovdpError as error:
            failures.append(str(error))
        if failures:
            raise CniError(DEVICE_FAILURE, f"GC of network {network.name} is not complete: {'; '.join(failures)}")
        return b""

    def version(self, request: Request, netns_fd: int | None) -> bytes:
        """VERSION: what versions of the specification there are."""
        del request, netns_fd
        return render_versions()

    def recover(self, *, at_start: bool) -> dict[str, str]:
        """Finish what was interrupted or failed. At the agent's start that waits for whoever is at work just now.

        What can not be finished now stays in the journal for the next time. Gives the VFs that are not as they were, by
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
                with self.hold(entry.device, TIMEOUT if at_start else 0):
                    self._finish(entry)
            except SriovdpError as error:
                if isinstance(error, CniError) and error.code == TRY_AGAIN:
                    continue  # somebody is at it
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
            return self._compare(attachment, _reparse(attachment), sandbox_fd)

    def repair(self, attachment: Attachment) -> None:
        """Finish a release, release what has no sandbox any more, and set again what the PF holds for a running pod."""
        with self.hold(attachment.device), Netlink() as netlink:
            current = self.journal.find_attachment(attachment.container_id, attachment.ifname)
            if current is None:
                return
            if is_owed(current):
                self._finish(current)
            elif not is_alive(current):
                self._release(current, None)
            else:
                conf = _reparse(current)
                changes = dict(conf.settings) | ({"mac": conf.mac} if conf.mac else {})
                if changes and current.original.settings:
                    vf = find_vf(self.sysfs, netlink, PciAddress(current.device))
                    wanted = replace(current.original.settings, **changes)
                    apply_settings(netlink, vf, wanted, skip_unsupported=bool(current.unsupported))

    def _adopt(self, request: Request, network: Network, netns_fd: int | None) -> Attachment | None:
        """Take over from sriov-cni what it attached for this container, to be released."""
        folder = network.legacy_state
        predecessor = Predecessor(Path(folder)) if folder else self.predecessor
        found = predecessor.find(request, network, netns_fd, self.sysfs)
        if found is None:
            return None
        with self.hold(found.device):
            if any(entry.device == found.device and not entry.released for entry in self.journal.survey()[0]):
                found = replace(found, released=True)  # another pod's by now; nothing but the addresses is ours
            logger.info("VF %s was attached to %s by another plugin; releasing it", found.device, found.owner)
            self.journal.write_attachment(found)
            predecessor.forget(found)
        return found

    def _compare(self, attachment: Attachment, conf: NetConf, netns_fd: int | None) -> list[str]:
        result = conf.previous or parse_result(attachment.result)
        differences = Comparison(self.sysfs, attachment, conf, result).differences(netns_fd)
        previous = {"prevResult": describe_result(result, conf.version)}
        try:
            check_addresses(replace(attachment, config={**attachment.config, **previous}))
        except IpamError as error:
            differences.append(str(error))
        return differences

    def _finish(self, listed: Attachment) -> None:
        """Finish what is owed, as it is now: a DEL may have, and another pod may have the VF by now."""
        attachment = self.journal.find_attachment(listed.container_id, listed.ifname)
        if attachment is not None and is_owed(attachment):
            # a reboot made the VFs anew; only the addresses may still be reserved
            void = attachment.boot_id != read_boot_id()
            self._release(replace(attachment, released=attachment.released or void), None)

    def _release(self, attachment: Attachment, netns_fd: int | None) -> None:
        Release(self.sysfs, self.journal).finish(attachment, netns_fd)

    def _release_or_leave_it_to_the_agent(self, attachment: Attachment, netns_fd: int | None) -> None:
        try:
            void = attachment.boot_id != read_boot_id()
            self._release(replace(attachment, released=attachment.released or void), netns_fd)
        except IpamError:
            raise
        except SriovdpError as error:
            logger.error("VF %s did not come back, the agent goes on trying: %s", attachment.device, error)

    @contextmanager
    def _undo_on_failure(self, attachment: Attachment, netns_fd: int) -> Iterator[None]:
        try:
            yield
        except Exception:
            try:
                self._release(attachment, netns_fd)
            except SriovdpError as error:
                logger.error("undoing the ADD of VF %s failed, the agent goes on trying: %s", attachment.device, error)
            except Exception:
                logger.exception("undoing the ADD of VF %s failed, the agent goes on trying", attachment.device)
            raise


def _delete_unknown(request: Request, network: Network) -> None:
    """DEL of what no journal has: an ADD that came to nothing, or a second DEL."""
    if not network.name:
        return  # and no IPAM plugin was asked for anything
    try:
        delete_addresses(draft_attachment(request, network, "", Original("", None)))
    except MissingPluginError as error:
        logger.warning("nothing to release for %s: %s", request.container_id, error)


def _key(request: Request) -> str:
    return f"{request.container_id}-{request.ifname}"


def _own_addresses(attachment: Attachment) -> list[str]:
    result = parse_result(attachment.result)
    names = [interface.name for interface in result.interfaces]
    return [
        ip.address for ip in result.ips if ip.interface is not None and names[ip.interface] == attachment.pod_ifname
    ]


def _reparse(attachment: Attachment) -> NetConf:
    """The configuration that an attachment was made with; what came before it in a chain says nothing of it now."""
    return replace(parse_netconf(json.dumps(attachment.config).encode(), attachment.args), previous=None)


def _version_of(request: Request) -> str:
    """The configuration's version, for the error; the newest when it can not be told."""
    try:
        version = json.loads(request.stdin).get("cniVersion")
    except (ValueError, AttributeError):
        return VERSIONS[-1]
    return version if version in VERSIONS else VERSIONS[-1]
