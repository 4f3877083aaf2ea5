"""The agent: one asyncio process that puts all parts together and keeps them going.

Order of its start: finish what a crash interrupted, make the node as the config says, answer the CNI plugin, offer the
pools to the kubelet. From then on it looks at the node again and again, tells the kubelet what changed, and goes on
with what could not be finished.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cni.locks import Locks
from cni.server import CniServer
from cni.verbs import Verbs
from sriovdp.config.values import Config, Pool
from sriovdp.errors import SriovdpError
from sriovdp.inventory import take_snapshot
from sriovdp.journal import Journal
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.kubelet.plugin import DevicePlugin
from sriovdp.kubelet.registration import Endpoint
from sriovdp.model import Allocation, Node, PoolDevice
from sriovdp.pools import allocate, assign
from sriovdp.provision.apply import apply

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Roots:
    """Where the agent finds and keeps things; each can be moved for tests and containers."""

    sysfs: Path = Path("/sys")
    kubelet: Path = Path("/var/lib/kubelet")
    run: Path = Path("/run/sriovdp")
    state: Path = Path("/var/lib/sriovdp")


class Agent:
    """One agent for one node, with a checked config. To be started once, and stopped once."""

    def __init__(self, config: Config, roots: Roots, *, rescan_interval: float = 5.0) -> None:
        """Build all parts; nothing is touched yet. `rescan_interval` is in seconds."""
        self._config = config
        self._sysfs = Sysfs(roots.sysfs)
        self._journal = Journal(roots.state / "journal")
        self._verbs = Verbs(self._sysfs, self._journal, Locks())
        self._cni = CniServer(roots.run / "agent.sock", self._verbs.handle)
        self._plugins = {pool.resource: self._build_plugin(pool) for pool in config.pools}
        self._endpoints = [Endpoint(roots.kubelet, name, plugin) for name, plugin in self._plugins.items()]
        self._rescan_interval = rescan_interval

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises SriovdpError when it can not start at all."""
        with self._journal.claim():
            await self._run(stop)

    async def _run(self, stop: asyncio.Event) -> None:
        broken = await asyncio.to_thread(self._verbs.recover, at_start=True)
        await asyncio.to_thread(self._provision)
        await self._rescan(broken)
        await self._cni.start()
        try:
            await asyncio.gather(*(endpoint.start() for endpoint in self._endpoints))
            logger.info("the agent is ready: %d pools", len(self._plugins))
            await self._watch(stop)
        finally:
            await asyncio.gather(*(endpoint.stop() for endpoint in self._endpoints))
            await self._cni.stop()

    async def _watch(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), self._rescan_interval)
            except TimeoutError:
                await self._refresh()

    async def _refresh(self) -> None:
        try:
            await self._rescan(await asyncio.to_thread(self._verbs.recover, at_start=False))
        except SriovdpError as error:
            logger.error("looking at the node failed, trying again in %.0f s: %s", self._rescan_interval, error)

    async def _rescan(self, broken: Mapping[str, str]) -> None:
        """Tell the kubelet what there is; `broken` are VFs that no pod should get, with the reason."""
        node = await asyncio.to_thread(take_snapshot, self._sysfs)
        for resource, devices in self._offer(node, broken).items():
            await self._plugins[resource].update(devices)

    def _provision(self) -> None:
        """Make the node as the config says; what is refused or fails is told, and the rest is offered all the same."""
        try:
            apply(self._config, self._sysfs, self._journal)
        except SriovdpError as error:
            logger.error("the node is not as the config says: %s", error)

    def _offer(self, node: Node, broken: Mapping[str, str]) -> dict[str, tuple[PoolDevice, ...]]:
        return {
            pool.resource: tuple(_judge(device, broken) for device in devices)
            for pool, devices in assign(self._config.pools, node)
        }

    def _build_plugin(self, pool: Pool) -> DevicePlugin:
        def give(ids: Sequence[str]) -> Allocation:
            return allocate(pool, ids, take_snapshot(self._sysfs))

        return DevicePlugin(pool.resource, give)


def _judge(device: PoolDevice, broken: Mapping[str, str]) -> PoolDevice:
    reason = broken.get(device.id)
    return replace(device, healthy=False, reason=reason) if reason else device
