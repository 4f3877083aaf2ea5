"""The agent: one asyncio process that puts all parts together and keeps them going.

It serves first: the CNI socket and the pools are there within a second. What is owed from before, what came while there
was no agent, and what the config wants of the node follow in the background, and none of it keeps the others waiting.
From then on the agent looks at the node again and again, and reports changes to the kubelet; and it takes over its
config file when that changes.
"""

import asyncio
import gc
import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.protocol.wire import RELOAD, REPORT, Reply, Request
from cni.service.server import CniServer
from cni.service.spool import Spool
from cni.slots import waiting
from cni.verbs.backlog import Backlog, Quarantine
from cni.verbs.ownership import Owner
from sriovdp.config.values import Config
from sriovdp.errors import SriovdpError
from sriovdp.kernel.device_name import DeviceName
from sriovdp.kernel.modules import list_drivers
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.kubelet.offering import Folders, Offering
from sriovdp.live_config import LiveConfig
from sriovdp.model import Node
from sriovdp.node.inventory import take_snapshot
from sriovdp.node.slow_lists import SlowLists
from sriovdp.node_watch import SOON, NodeWatch, list_folders
from sriovdp.policy import make_policy
from sriovdp.pools.host import LiveHost
from sriovdp.provision.arrivals import Arrivals
from sriovdp.provision.boot import list_reboot_needs
from sriovdp.provision.drift import Drift, find_drift
from sriovdp.provision.drift_log import DriftLog
from sriovdp.provision.pending import Pending, find_pending, is_concerned
from sriovdp.provision.waiting import run_aside
from sriovdp.state.journal import Journal
from sriovdp.state.locks import Locks

if TYPE_CHECKING:
    from cni.verbs.dispatch import Verbs
    from cni.verbs.recovery import Recovery

logger = logging.getLogger(__name__)

_PATIENCE = 15.0  # seconds for VFs to come back, and then for a slow kubelet to answer, before anything is changed
_LOAD_DELAY = 1.0  # seconds for the kubelet to ask for the pools' lists, before the verbs' import takes a processor
_RELOAD_LIMIT = 120.0  # seconds that `sriovdp reload` waits for the PFs to follow
_INTERVAL = 60.0  # seconds between looks at a node that reports nothing: for what the kernel does not report
_CHANGING = frozenset({"ADD", "DEL", "GC"})


@dataclass(frozen=True, slots=True)
class Roots:
    """Where the agent finds and keeps things; each can be moved for tests and containers."""

    sysfs: Path = Path("/sys")
    dev: Path = Path("/dev")
    kubelet: Path = Path("/var/lib/kubelet")
    run: Path = Path("/run/sriovdp")
    state: Path = Path("/var/lib/sriovdp")
    device_info: Path = Path("/var/run/k8s.cni.cncf.io/devinfo/dp")
    cdi: Path = Path("/var/run/cdi")


class Agent:
    """One agent for one node, with a checked config. To be started once, and stopped once."""

    def __init__(
        self, config: Config, roots: Roots, *, live: LiveConfig | None = None, rescan_interval: float = _INTERVAL
    ) -> None:
        """Build all parts; nothing is touched yet.

        `live` is the file that the config came from; without it the config stays what it is. `rescan_interval` is in
        seconds: how often the node is looked at when the kernel reports no change.
        """
        self._live = live or LiveConfig(config)
        self._watch = NodeWatch(lambda: list_folders(self.config.pools, roots.dev, roots.state), rescan_interval)
        released = partial(self._watch.note, "a release that was owed was tried")
        self._sysfs = Sysfs(roots.sysfs)
        self._lists = SlowLists()
        self._journal = Journal(roots.state / "journal")
        self._locks = Locks(self._journal.locks, waiting)
        self._loading = threading.Lock()
        self._loaded: Verbs | None = None
        self.backlog = Backlog(self._sysfs, self._journal, self._find_recovery, released)
        """The releases that are owed."""
        self.spool = Spool(roots.state / "spool")
        self._cni = CniServer(roots.run / "agent.sock", self._handle)
        folders = Folders(roots.kubelet, roots.state / "grants", roots.device_info, roots.cdi)
        self.offering = Offering(config, folders, LiveHost(self._sysfs, roots.dev), self._journal, self._watch.note)
        self._node: Node | None = None
        self._pending = Pending()
        self._arrivals = Arrivals()
        self._failure = ""  # why the last round failed
        self._trouble = False  # the last look failed
        self._reloading = asyncio.Lock()
        self._looking = asyncio.Lock()  # one look at a time: an older one must not come last
        self._is_provisioned = False
        self._wanted = asyncio.Event()  # something is to be provisioned
        self._idle = asyncio.Event()  # nothing is
        self._replay: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drift = DriftLog()
        self._found = Drift()
        self._judged: object = None  # what the drift was last found from

    @property
    def config(self) -> Config:
        """What the node is made like: the config in force."""
        return self._live.running

    @property
    def _verbs(self) -> "Verbs":
        """What answers CNI requests. The first one that needs it imports it; from any thread."""
        with self._loading:
            if self._loaded is None:
                from cni.verbs.dispatch import Verbs  # noqa: PLC0415 - a sixth of the start's CPU time

                policy = make_policy(self.config)
                self._loaded = Verbs(self._sysfs, self._journal, self._locks, policy=policy, owners=self._find_owner)
            return self._loaded

    def _find_recovery(self) -> "Recovery":
        """What finishes owed releases; from any thread."""
        from cni.verbs.recovery import Recovery  # noqa: PLC0415 - it imports what the verbs do

        return Recovery(self._sysfs, self._journal, self._locks)

    def _note_gc(self, request: Request) -> None:
        """Write down what a GC from before the start releases."""
        from cni.verbs.gc import Gc  # noqa: PLC0415 - it imports what the verbs do

        Gc(self._sysfs, self._journal, self._locks).note(request)

    def _load(self) -> None:
        """Import what is not yet: no request waits for an import, and none meets the files of a later version."""
        _ = self._verbs, self._find_recovery()
        gc.freeze()  # as at the start: what was imported lives as long as the agent

    def _find_owner(self, device: str, *, fresh: bool) -> Owner | None:
        """What the kubelet says of a device; runs in a worker thread."""
        found = self.offering.find_pod(device, fresh=fresh)
        return Owner(*found) if found else None

    def _handle(self, request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        """Answer a request at the CNI socket; runs in a worker thread."""
        if request.command == REPORT:
            return Reply(0, json.dumps(self._report()).encode())
        if request.command == RELOAD:
            return Reply(0, json.dumps(self._reload_from_thread()).encode())
        try:
            return self._verbs.handle(request, netns_fd, cancelled)
        finally:
            if request.command in _CHANGING:
                self._watch.note(f"CNI {request.command}", SOON)

    def _report(self) -> dict[str, Any]:
        owed = [self._describe(found) for found in self.backlog.report()]
        return {"owed": owed, "health": self.offering.report_faults(), **self._report_config()}

    def _report_config(self) -> dict[str, Any]:
        """Why the file is not in force, which PFs wait for whom to be as the config says, and the node's RDMA mode."""
        waiting = {name: list(who) for name, who in self._found.waiting.items()}
        mode = self._node.rdma_mode if self._node else None
        return {"fault": self._live.fault, "waiting": waiting, "rdma_mode": mode}

    def _describe(self, owed: Quarantine) -> dict[str, Any]:
        name = str(DeviceName(self._sysfs, owed.device)) if owed.device else ""
        return {**asdict(owed), "name": name}

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises SriovdpError when it cannot start at all."""
        with self._journal.claim():
            await self._run(stop)

    async def _run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, whatever the work waits for then."""
        self._loop = asyncio.get_running_loop()
        for warning in self.config.warnings:
            logger.warning("in the config: %s", warning)
        work = asyncio.create_task(self._work())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, stopped):
                task.cancel()
            await asyncio.gather(work, stopped, return_exceptions=True)
            self._watch.stop()
            self._live.stop()
            await self.offering.stop()
            await self._cni.stop()

    async def _work(self) -> None:
        await self._cni.listen()
        await asyncio.to_thread(self._settle_spool)
        self._cni.serve()
        await self._refresh()
        await self.offering.start()
        await self._watch.start()  # what came before that is seen when the node is as the config says
        logger.info("serving %d pools and the CNI plugin", len(self.config.pools))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._load_later())
            tasks.create_task(self._keep_provisioned())
            tasks.create_task(self._look_again())
            tasks.create_task(self._follow_file())

    async def _load_later(self) -> None:
        await asyncio.sleep(_LOAD_DELAY)
        await asyncio.to_thread(self._load)

    def _settle_spool(self) -> None:
        """Take over what came while there was no agent. Nothing is spooled from then on."""
        try:
            self.spool.settle()
            self.spool.note_gcs(self._note_gc)
        except Exception:  # the requests stay where they are
            logger.exception("taking over the spooled requests failed")

    async def _look_again(self) -> None:
        while True:
            reason = await self._watch.wait(restless=self._is_restless())
            logger.debug("looking at the node: %s", reason)
            await self._refresh()

    def _is_restless(self) -> bool:
        """Whether something is open that ends without an event."""
        is_lacking = bool(self._failure or self._trouble or self._found.waiting)
        return is_lacking or self.offering.is_unsettled or self.backlog.is_open

    async def _refresh(self) -> None:
        try:
            async with self._looking:
                await asyncio.to_thread(self.backlog.look)
                await self._rescan()
                await self._report_drift()
            self._start_replay()
            self._trouble = False
        except SriovdpError as error:
            self._trouble = True
            logger.error("looking at the node failed, trying again in %.0f s: %s", SOON, error)
        except Exception:  # the pods of the node need an agent, whatever one look at it runs into
            self._trouble = True
            logger.exception("looking at the node failed, trying again in %.0f s", SOON)

    async def _rescan(self) -> None:
        """Look at the node, and report to the kubelet what there is."""
        node = await asyncio.to_thread(take_snapshot, self._sysfs, self._lists)
        self._watch.follow(node)
        self._node = node
        drivers, is_lacking = await asyncio.to_thread(list_drivers, self._sysfs.root), bool(self._found.steps)
        if self._arrivals.note(self.config, node, drivers, is_lacking=is_lacking or bool(self._failure)):
            self._want()
        await self.offering.update(self._pending.hide(node), {**self._pending.vfs, **self.backlog.broken()})

    async def _report_drift(self) -> None:
        """Report what is not as the config says. Looked for only when something changed: it takes a look of its own."""
        attached = self.offering.attachments()
        seen = self._node, self.offering.owners(), attached, self.config
        if not self._is_provisioned or (seen == self._judged and self._drift.settled):
            return
        self._judged = seen
        waited, config = bool(self._found.waiting), self.config
        try:
            self._found = await asyncio.to_thread(find_drift, config, self._sysfs, self._journal, seen[1])
        except SriovdpError as error:
            self._found = Drift((f"comparing it with the config failed: {error}",))
        if config is self.config:
            self._drift.update(self._found.sentences, self._found.unread)
        if waited and self._found.is_possible:  # who was in the way is gone
            self._want()

    def _start_replay(self) -> None:
        """Replay the spool in a thread of its own, which an IPAM plugin can keep for long; `_replay` is the first."""
        replay = threading.Thread(target=self._replay_spool, name="replay", daemon=True)
        replay.start()
        self._replay = self._replay or replay

    def _replay_spool(self) -> None:
        if self.spool.replay(self._handle):
            self._watch.note("spooled requests were replayed")

    async def _follow_file(self) -> None:
        """Take over the config file whenever it has changed."""
        self._live.start()
        while True:
            await self._live.wait(self._watch.interval)
            try:
                await self.reload()
            except Exception:  # the config in force stays
                logger.exception("taking over the changed config file failed")

    async def reload(self, *, patient: bool = True) -> bool:
        """Read the config file and take it over, if it is valid and says something else; whether it does.

        Pools change at once; PFs follow in the background, those in use when nobody is in the way any more.
        """
        async with self._reloading:
            config = await self._live.read(patient=patient)
            if config is None:
                return False
            async with self._looking:
                self._live.running = config
                for warning in config.warnings:
                    logger.warning("in the config: %s", warning)
                await asyncio.to_thread(self._renew_policy)
                await self.offering.reconfigure(config)
                await self._rescan()
                await self.offering.serve_new()
            self._watch.note("the config changed", SOON)  # what waits for pods now is looked at again by then
            logger.info("the changed config is in force: %d pools", len(config.pools))
            self._want()
            return True

    def _renew_policy(self) -> None:
        with self._loading:
            if self._loaded is not None:
                self._loaded = replace(self._loaded, policy=make_policy(self.config))

    def _reload_from_thread(self) -> dict[str, Any]:
        """Reload for `sriovdp reload`, and wait until the node follows; runs in a worker thread."""
        if self._loop is None:
            return {"changed": False, **self._report_config()}
        return asyncio.run_coroutine_threadsafe(self._reload_and_wait(), self._loop).result()

    async def _reload_and_wait(self) -> dict[str, Any]:
        changed, is_done = await self.reload(patient=False), True
        try:
            async with asyncio.timeout(_RELOAD_LIMIT):
                await self._idle.wait()
        except TimeoutError:
            is_done = False
        return {"changed": changed, "done": is_done, "failure": self._failure, **self._report_config()}

    def _want(self) -> None:
        """Ask for a round of provisioning."""
        self._idle.clear()
        self._wanted.set()

    async def _keep_provisioned(self) -> None:
        """Make the node as the config says: at the start, and whenever there is something new to do."""
        # a VF whose pod is gone is no reason to refuse a change
        await asyncio.to_thread(self.backlog.wait, _PATIENCE)
        if self._replay is not None:
            await asyncio.to_thread(self._replay.join, _PATIENCE)
        while True:
            self._wanted.clear()
            await self._provision()
            if not self._wanted.is_set():
                self._idle.set()
            await self._wanted.wait()

    async def _provision(self) -> None:
        """Make the node as the config says. What is refused or fails is logged; what there is, is offered."""
        self._is_provisioned, self._failure = False, ""
        try:
            await self.offering.ask_pods(patience=_PATIENCE)
            self._pending = await asyncio.to_thread(self._find_pending)
            if self._pending != Pending():
                await self._refresh()
                await self.offering.ask_pods()
            await run_aside(self._apply)
            self._lists.forget()
        except SriovdpError as error:
            self._failure = str(error)
            logger.error("the node is not as the config says: %s", error)
        except Exception as error:
            self._failure = repr(error)
            logger.exception("the node is not as the config says")
        self._pending, self._is_provisioned = Pending(), True
        await self._refresh()
        self._watch.note("the node was made as the config says", SOON)
        try:
            for need in list_reboot_needs(self.config, self._node, self._sysfs) if self._node else ():
                logger.warning("%s; this needs a reboot", need)
        except Exception:
            logger.exception("what needs a reboot is not known")
        logger.info("the agent is ready: %d pools", len(self.config.pools))

    def _find_pending(self) -> Pending:
        owners = self._list_owners()
        return find_pending(self.config, self._sysfs, self._journal, owners, self._node) if self._node else Pending()

    def _apply(self) -> None:
        if not is_concerned(self.config, self._journal):
            return
        from sriovdp.provision.apply import apply  # noqa: PLC0415 - the pools are with the kubelet before that

        apply(self.config, self._sysfs, self._journal, allocated=self._list_owners)

    def _list_owners(self) -> Mapping[str, str]:
        """Which pod has which device, as the kubelet last reported."""
        return self.offering.owners()
