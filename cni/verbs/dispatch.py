"""The verbs of the CNI plugin: which code answers a request, and how its failure is answered.

ADD writes the journal before its first change; whatever fails after that is undone at once, and what a crash leaves
behind is undone by the recovery or by the DEL that the runtime sends. All work on a VF is done under the lock of its
address, so an attachment that is neither attached nor locked was interrupted.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from cni import timing
from cni.foreign_state import ForeignState
from cni.ipam.delegate import Addresses
from cni.policy import Policy
from cni.protocol.effect import list_idle_keys
from cni.protocol.environment import COMMANDS, check_environment, require_sandbox
from cni.protocol.infiniband import require_ib_kubernetes
from cni.protocol.netconf import parse_netconf
from cni.protocol.permission import check_permission
from cni.protocol.spec import VERSIONS, code_of, parse_result, render_error, render_result, render_versions
from cni.protocol.wire import Reply, Request
from cni.request_log import log_to
from cni.verbs.add import Addition
from cni.verbs.announce import Announcer
from cni.verbs.check import Check
from cni.verbs.gc import Gc
from cni.verbs.ownership import Owners, ask_nobody
from cni.verbs.release import Del, Release
from cni.verbs.reserve import Reservation
from cni.verbs.status import Status
from cni.vf.settings import Vf
from sriovdp.errors import SriovdpError, naming
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import escape_unprintable
from sriovdp.state.journal import Attachment, Journal
from sriovdp.state.locks import Locks

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verbs:
    """The verbs, on one node: its sysfs, its journal, and the locks of its VFs.

    `announce` makes the network know an attachment's addresses without holding up the answer; `foreign_state`
    is what sriov-cni left on this node; `policy` is what this node allows to a network; `owners` says which pod
    has a VF by the kubelet.
    """

    sysfs: Sysfs
    journal: Journal
    locks: Locks
    announce: Callable[[Attachment, Iterable[str]], object] = field(default_factory=lambda: Announcer().start)
    foreign_state: ForeignState = field(default_factory=ForeignState)
    policy: Policy = field(default_factory=Policy)
    owners: Owners = ask_nobody

    def handle(self, request: Request, netns_fd: int | None, cancelled: threading.Event | None = None) -> Reply:
        """Answer a request of the launcher. Every failure becomes an error of the CNI specification.

        Once `cancelled` is set, no client waits for the answer any more: an ADD undoes what it did, and fails.
        """
        timing.begin()
        code = None
        try:
            check_environment(request)
            return Reply(0, self._answer(request, netns_fd, cancelled or threading.Event()))
        except SriovdpError as error:
            code = code_of(error)
            caller = _name_caller(request)
            logger.warning("%s: %s failed: %s", caller, request.command, error)
            error.name(caller)
            return Reply(1, render_error(error, _version_of(request)))
        except Exception as error:
            code = code_of(error)
            logger.exception("%s: %s failed", _name_caller(request), request.command)
            return Reply(1, render_error(error, _version_of(request)))
        finally:
            verb = request.command if request.command in COMMANDS else "unknown"
            timing.end(verb, code, request)

    def _answer(self, request: Request, netns_fd: int | None, cancelled: threading.Event) -> bytes:
        """What a verb prints."""
        match request.command:
            case "ADD":
                return self._add(request, netns_fd, cancelled)
            case "DEL":
                Del(self.sysfs, self.journal, self.locks, self.foreign_state, self.policy).run(request, netns_fd)
            case "CHECK":
                Check(self.sysfs, self.journal, self.locks).run(request, netns_fd)
            case "GC":
                Gc(self.sysfs, self.journal, self.locks).run(request)
            case "STATUS":
                Status(self.sysfs, self.journal, self.policy).run(request)
            case "VERSION":
                return render_versions()
        return b""

    def _add(self, request: Request, netns_fd: int | None, cancelled: threading.Event) -> bytes:
        """ADD: attach the VF and answer the result."""
        conf = parse_netconf(request.stdin, request.args, "ADD")
        check_permission(conf, self.policy)
        require_ib_kubernetes(conf.raw, conf.guid)
        sandbox_fd = require_sandbox(request, netns_fd)
        with ExitStack() as held:
            held.enter_context(log_to(conf.log_file, conf.log_level, request.caller, self.policy))
            held.enter_context(self.locks.hold(request.key))
            netlink = held.enter_context(Netlink())
            reservation = Reservation(
                self.sysfs, self.journal, self.locks.hold, self.foreign_state, netlink, self.policy, self.owners
            )
            timing.mark("configuration and lock")
            vf, draft = reservation.begin(held, conf, request, sandbox_fd)
            for warning in (*conf.warnings, *list_idle_keys(conf, draft.mode)):
                logger.warning("%s: network %s: %s", vf, conf.name, warning)
            timing.mark("state and journal")
            addresses = Addresses(draft, cancelled)
            with naming(vf), self._undo_on_failure(vf, draft, sandbox_fd, addresses):
                around = (sandbox_fd, cancelled, self.policy, addresses)
                steps = Addition(self.sysfs, self.journal, netlink, vf, conf, *around)
                attachment, result = steps.run(draft)
            logger.info("%s: attached to %s", vf, request.caller)
        if attachment.mode == "kernel":
            self.announce(attachment, _own_addresses(attachment))
        return render_result(result, conf.version)

    @contextmanager
    def _undo_on_failure(self, vf: Vf, attachment: Attachment, netns_fd: int, addresses: Addresses) -> Iterator[None]:
        """Undo at once; what cannot be undone now is in the journal. Without an entry there nothing was changed."""
        try:
            yield
        except Exception:
            try:
                if self.journal.find_attachment(attachment.container_id, attachment.ifname):
                    Release(self.sysfs, self.journal).finish(attachment, netns_fd, is_given=addresses.given)
            except SriovdpError as error:
                logger.error("%s: undoing the ADD failed, the agent retries: %s", vf, error.reason)
            except Exception:
                logger.exception("%s: undoing the ADD failed, the agent retries", vf)
            raise


def _own_addresses(attachment: Attachment) -> list[str]:
    result = parse_result(attachment.result)
    names = [interface.name for interface in result.interfaces]
    return [
        ip.address for ip in result.ips if ip.interface is not None and names[ip.interface] == attachment.pod_ifname
    ]


def _name_caller(request: Request) -> str:
    """Who asks, for a log line; without a container the network."""
    return request.caller or escape_unprintable(f"network {_read_key(request, 'name') or '(unnamed)'}")


def _version_of(request: Request) -> str:
    """The configuration's version, for the error; the newest when it cannot be read."""
    version = _read_key(request, "cniVersion")
    return version if version in VERSIONS else VERSIONS[-1]


def _read_key(request: Request, key: str) -> str:
    """A text of the configuration; empty when it cannot be read."""
    try:
        value = json.loads(request.stdin).get(key)
    except (ValueError, AttributeError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""
