"""The agent: one asyncio process that puts all parts together and keeps them going.

Order of its start: finish what a crash interrupted, do what came while it was away, make the node as the config says,
answer the CNI plugin, offer the pools to the kubelet. From then on it looks at the node again and again, tells the
kubelet what changed, and goes on with what could not be finished.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cni.service.server import CniServer
from cni.service.spool import Spool
from cni.verbs.dispatch import Verbs
from cni.verbs.recovery import Recovery
from sriovdp.config.values import Config
from sriovdp.errors import SriovdpError
from sriovdp.kernel.events import KernelEvents
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.kubelet.offering import Folders, Offering
from sriovdp.model import Node
from sriovdp.node.inventory import take_snapshot
from sriovdp.pools.host import LiveHost
from sriovdp.provision.apply import apply
from sriovdp.provision.boot import list_reboot_needs
from sriovdp.provision.drift import describe_change, list_drift
from sriovdp.provision.drift_log import DriftLog
from sriovdp.provision.waiting import run_unless
from sriovdp.state.journal import Journal
from sriovdp.state.locks import Locks

logger = logging.getLogger(__name__)

_PATIENCE = 15.0  # seconds for a slow kubelet to tell what is in use, before anything is changed
_SETTLE = 0.1  # seconds from the first of the kernel's events to looking at the node: they come in swarms


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

    def __init__(self, config: Config, roots: Roots, *, rescan_interval: float = 5.0) -> None:
        """Build all parts; nothing is touched yet.

        `rescan_interval` is in seconds: how often the node is looked at when the kernel tells of no change.
        """
        self.config = config
        """What the node is made like."""
        self._sysfs = Sysfs(roots.sysfs)
        self._journal = Journal(roots.state / "journal")
        locks = Locks(self._journal.locks)
        self._verbs = Verbs(self._sysfs, self._journal, locks)
        self._recovery = Recovery(self._sysfs, self._journal, locks)
        self.spool = Spool(roots.state / "spool")
        self._cni = CniServer(roots.run / "agent.sock", self._verbs.handle)
        folders = Folders(roots.kubelet, roots.state / "grants", roots.device_info, roots.cdi)
        self.offering = Offering(config, folders, LiveHost(self._sysfs, roots.dev), self._journal)
        self._events = KernelEvents()
        self._rescan_interval = rescan_interval
        self._node: Node | None = None
        self._drift = DriftLog()
        self._judged: object = None  # what the drift was last found from

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises SriovdpError when it can not start at all."""
        with self._journal.claim():
            await self._run(stop)

    async def _run(self, stop: asyncio.Event) -> None:
        for warning in self.config.warnings:
            logger.warning("in the config: %s", warning)
        broken = await asyncio.to_thread(self._recovery.recover)
        # before provisioning: a VF whose pod has gone is no reason to refuse a change
        await asyncio.to_thread(self.spool.replay, self._verbs.handle, at_start=True)
        await self.offering.ask_pods(patience=_PATIENCE)
        if not await run_unless(stop, self._provision):
            logger.warning("stopped while the node was still being changed; what hangs in the kernel is left to it")
            return
        self._events.start()
        await self._rescan(broken)
        await self._cni.listen()
        try:
            await asyncio.to_thread(self._replay_rest)
            self._cni.serve()
            await self.offering.start()
            logger.info("the agent is ready: %d pools", len(self.config.pools))
            for need in list_reboot_needs(self.config, self._node, self._sysfs) if self._node else ():
                logger.warning("needs a reboot: %s", need)
            await self._tell_drift()
            await self._watch(stop)
        finally:
            self._events.stop()
            await self.offering.stop()
            await self._cni.stop()

    async def _watch(self, stop: asyncio.Event) -> None:
        waits = {asyncio.create_task(event.wait()) for event in (stop, self._events.event)}
        while not stop.is_set():
            await asyncio.wait(waits, timeout=self._rescan_interval, return_when=asyncio.FIRST_COMPLETED)
            if self._events.event.is_set() and not stop.is_set():
                await asyncio.sleep(_SETTLE)
                self._events.event.clear()
                waits = {task for task in waits if not task.done()} | {asyncio.create_task(self._events.event.wait())}
            if not stop.is_set():
                await self._refresh()
        for task in waits:
            task.cancel()

    async def _refresh(self) -> None:
        try:
            await self._rescan(await asyncio.to_thread(self._recovery.recover))
            await self._tell_drift()
            await asyncio.to_thread(self.spool.replay, self._verbs.handle, at_start=False)
        except SriovdpError as error:
            logger.error("looking at the node failed, trying again in %.0f s: %s", self._rescan_interval, error)
        except Exception:  # the pods of the node need an agent, whatever one look at it runs into
            logger.exception("looking at the node failed, trying again in %.0f s", self._rescan_interval)

    async def _rescan(self, broken: Mapping[str, str]) -> None:
        """Tell the kubelet what there is; `broken` are VFs that no pod should get, with the reason."""
        node = await asyncio.to_thread(take_snapshot, self._sysfs)
        self._events.links = {pf.netdev.ifindex for pf in node.pfs if pf.netdev}
        for change in describe_change(self._node, node) if self._node else ():
            logger.info("%s", change)
        self._node = node
        await self.offering.update(node, broken)

    async def _tell_drift(self) -> None:
        """Tell what is not as the config says. Looked for only when something changed: it takes a look of its own."""
        seen = self._node, self.offering.pod_devices.owners()
        if seen == self._judged and self._drift.settled:
            return
        self._judged = seen
        try:
            differences = await asyncio.to_thread(list_drift, self.config, self._sysfs, self._journal, seen[1])
        except SriovdpError as error:
            differences = [f"it can not be told how: {error}"]
        self._drift.update(differences)

    def _replay_rest(self) -> None:
        """Replay what was spooled until launchers found the socket; nothing is spooled from then on."""
        self.spool.settle()
        self.spool.replay(self._verbs.handle, at_start=True)

    def _provision(self) -> None:
        """Make the node as the config says; what is refused or fails is told, and the rest is offered all the same."""
        try:
            apply(self.config, self._sysfs, self._journal, allocated=self.offering.pod_devices.owners())
        except SriovdpError as error:
            logger.error("the node is not as the config says: %s", error)
