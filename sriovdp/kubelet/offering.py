"""All pools at work for the kubelet: one look at the node becomes what each of them offers."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from sriovdp.config.values import Config
from sriovdp.kubelet.plugin import DevicePlugin
from sriovdp.kubelet.pod_devices import PodDevices
from sriovdp.kubelet.podresources import PodResources
from sriovdp.kubelet.registration import Endpoints
from sriovdp.model import Fault, Node, PoolDevice
from sriovdp.pools.assignment import Offer, assign
from sriovdp.pools.cdi import CdiSpecs
from sriovdp.pools.device_info import DeviceInfoFiles
from sriovdp.pools.grants import Grants
from sriovdp.pools.host import LiveHost
from sriovdp.pools.service import PoolService
from sriovdp.state.journal import Attachment, Journal

logger = logging.getLogger(__name__)

_LISTED = 5.0  # seconds after which the kubelet lists a pod that it gives devices to, usually
_NAMED = 3  # devices
_SOONEST = 0.1  # seconds; a hold time ends a little later, rather than by two looks
_ASK_TIMEOUT = 5.0  # seconds; more than the kubelet is given to answer


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the kubelet's side finds and keeps things."""

    kubelet: Path
    grants: Path
    device_info: Path
    cdi: Path


class Offering:
    """The pools of a config, for one kubelet. To be started once, after the first update, and stopped once."""

    def __init__(
        self,
        config: Config,
        folders: Folders,
        host: LiveHost,
        journal: Journal,
        note: Callable[[str, float], None] = lambda _reason, _within: None,
    ) -> None:
        """`note` takes why another update is due, and within how many seconds."""
        self._config = config
        self._note = note
        self._journal = journal
        self._resources = PodResources(folders.kubelet)
        self._cdi = CdiSpecs(folders.cdi, enabled=config.cdi)
        self._make_service = partial(
            PoolService,
            host=host,
            grants=Grants(folders.grants),
            device_info=DeviceInfoFiles(folders.device_info),
            cdi=self._cdi,
            find_owner=self._find_owner,
        )
        self._services = [self._make_service(pool) for pool in config.pools]
        self._retired: list[PoolService] = []  # of an earlier config; pods have their devices
        self._plugins = {service.pool.resource: self._make_plugin(service) for service in self._services}
        self._endpoints = Endpoints(folders.kubelet, self._plugins)
        self._attachments: Mapping[str, Sequence[Attachment]] | None = None
        self._damages: Mapping[str, str] = {}
        self._told: set[str] = set()  # damages that are logged already
        self._loop: asyncio.AbstractEventLoop | None = None
        self.pod_devices = PodDevices(problem="the kubelet was not asked yet")
        """What pods have, as of the last update."""

    def _make_plugin(self, service: PoolService) -> DevicePlugin:
        resource = service.pool.resource
        return DevicePlugin(resource, service, allocated=partial(self._note, f"Allocate of {resource}", _LISTED))

    @property
    def is_unsettled(self) -> bool:
        """Whether another update is due soon: pods may come or go without any event."""
        return bool(self.pod_devices.problem or self._retired or self.admitting())

    async def start(self) -> None:
        """Serve all pools. It does not wait for a kubelet."""
        try:
            self._cdi.remove_others(self._config.pools)
        except OSError as error:
            logger.error("the CDI spec %s of an earlier config cannot be removed: %s", error.filename, error.strerror)
        await self._endpoints.start()

    async def stop(self) -> None:
        """Stop serving. Specs and device-info files stay: pods have the devices."""
        await self._endpoints.stop()

    async def reconfigure(self, config: Config) -> None:
        """Take over another config; to be followed by an update. Not while an update is under way.

        A pool that stays keeps its socket and its streams, whatever of it has changed but its resource's name. One that
        is gone offers no more than what pods have of it, and goes when they have given that back. New pools are served
        by `serve_new`, once they have their lists.
        """
        before = {service.pool.resource: service for service in (*self._services, *self._retired)}
        services = []
        for pool in config.pools:
            service = before.pop(pool.resource, None) or self._make_service(pool)
            service.pool = pool
            services.append(service)
        self._retired = list(before.values())
        self._services, self._config = services, config
        self._cdi.enabled = config.cdi
        self._plugins |= {
            service.pool.resource: self._make_plugin(service)
            for service in services
            if service.pool.resource not in self._plugins
        }

    async def serve_new(self) -> None:
        """Serve the pools that are not served yet."""
        for resource, plugin in self._plugins.items():
            if resource not in self._endpoints.resources:
                await self._endpoints.add(resource, plugin)

    def unregistered(self) -> dict[str, str]:
        """The pools that no kubelet knows now, each with the reason."""
        return self._endpoints.unregistered()

    def devices(self) -> dict[str, list[PoolDevice]]:
        """What is offered, by resource. Can be asked from any thread."""
        return {resource: plugin.devices for resource, plugin in self._plugins.items()}

    def report_faults(self) -> list[dict[str, Any]]:
        """What is wrong with devices that are offered: each fault once for all devices that have it. From any thread.

        `names` are at most three of them, and `devices` is how many there are.
        """
        found: dict[tuple[str, Fault], list[str]] = {}
        for resource, devices in self.devices().items():
            for device in devices:
                for fault in device.faults:
                    found.setdefault((resource, fault), []).append(device.name)
        return [
            {"resource": resource, **asdict(fault), "names": names[:_NAMED], "devices": len(names)}
            for (resource, fault), names in found.items()
        ]

    def attachments(self) -> list[Attachment] | None:
        """All attachments as of the last update, None before the first. Can be asked from any thread."""
        found = self._attachments
        return None if found is None else list(chain.from_iterable(found.values()))

    async def update(self, node: Node, broken: Mapping[str, str]) -> None:
        """Take over a look at the node, and ask the kubelet what pods have.

        `broken` are devices that did not come back from their pods, or are to be changed, with the reason.
        """
        self._loop = asyncio.get_running_loop()
        await self.ask_pods()
        await asyncio.to_thread(self._read_attachments)
        returned = await asyncio.to_thread(self._list_returned)
        offers = assign(self._config.pools, node, self._config.physical_functions, returned)
        taken = _as_faults("inUse", {**self._list_taken(), **self._damages}) | _as_faults("quarantined", broken)
        for service in (*self._services, *self._retired):
            service.note_listed(self.pod_devices.held(service.pool.resource), self.pod_devices.asked_at)
        for service, own in zip(self._services, offers, strict=True):
            await self._update_pool(service, own, node, taken)
        for service in list(self._retired):
            await self._retire(service, node, taken)
        self._note_next()

    def owners(self) -> dict[str, str]:
        """Who has each device, by its ID: pods by the kubelet, and those that are being admitted. From any thread."""
        return {**self.admitting(), **self.pod_devices.owners()}

    def admitting(self, resource: str = "") -> dict[str, str]:
        """Devices just given, as another resource, to pods which the kubelet does not list yet. From any thread."""
        return {
            id_: f"a pod that is being admitted has it as {service.pool.resource}"
            for service in (*self._services, *self._retired)
            if service.pool.resource != resource
            for id_ in service.list_used(())
        }

    async def _update_pool(
        self, service: PoolService, offers: Mapping[str, Offer], node: Node, broken: Mapping[str, Fault]
    ) -> None:
        resource, known = service.pool.resource, self.pod_devices.known
        in_use = {*self.pod_devices.owners(), *(self._attachments or {})} if known else None
        elsewhere = {**self.admitting(resource), **self.pod_devices.held_elsewhere(resource)}
        unfit = _as_faults("inUse", elsewhere) | dict(broken)
        devices = await asyncio.to_thread(service.update, offers, node, unfit, in_use)
        held = self.pod_devices.held(resource)
        if known:
            await asyncio.to_thread(service.tidy, held)
        await self._plugins[resource].update(devices, service.list_used(held) if known else None)

    async def _retire(self, service: PoolService, node: Node, broken: Mapping[str, Fault]) -> None:
        """Offer no more of a pool that is gone than pods have of it; if they have nothing, end it."""
        resource, known = service.pool.resource, self.pod_devices.known
        held = service.list_used(self.pod_devices.held(resource)) if known else frozenset[str]()
        if held or not known:
            kept = {id_: offer for id_, offer in service.offers.items() if id_ in held}
            unlisted = held - self.pod_devices.held(resource)
            gone = dict.fromkeys(unlisted, Fault("pool", "its pool is no longer in the config"))
            await self._update_pool(service, kept, node, {**broken, **gone})
            return
        await self._endpoints.remove(resource)
        await self._plugins.pop(resource).end_streams()
        self._retired.remove(service)
        await asyncio.to_thread(service.tidy, held)
        await asyncio.to_thread(self._cdi.remove, service.pool)
        logger.info("%s: this pool is no longer in the config, and no longer offered", resource)

    def _note_next(self) -> None:
        """Ask for another update when a device's health may change by itself."""
        waits = [wait for service in self._services if (wait := service.next_change) is not None]
        if waits:
            self._note("the health of a device may change", max(_SOONEST, min(waits)))

    async def ask_pods(self, *, patience: float | None = None) -> None:
        """Ask the kubelet what pods have, which is kept in `pod_devices`; that it does not answer is logged once.

        `patience` as in `PodResources.list_devices`.
        """
        pod_devices = await self._resources.list_devices(patience=patience)
        if pod_devices.problem != self.pod_devices.problem:
            if pod_devices.problem:
                logger.warning("which pod has which device is not known: %s", pod_devices.problem)
            else:
                logger.info("the kubelet reports which pod has which device")
        self.pod_devices = pod_devices

    def _read_attachments(self) -> None:
        attachments, damages = self._journal.survey()
        found: dict[str, list[Attachment]] = {}
        for attachment in attachments:
            found.setdefault(attachment.device, []).append(attachment)
        self._attachments = found
        self._damages = {damage.device: f"it may be attached: {damage.reason}" for damage in damages if damage.device}
        unknown = {damage.reason for damage in damages if not damage.device}
        for reason in unknown - self._told:
            logger.error("%s; it is not known which VF it is about", reason)
        self._told = unknown

    def _list_returned(self) -> dict[str, str]:
        return dict(chain.from_iterable(service.list_returned().items() for service in self._services))

    def _list_taken(self) -> dict[str, str]:
        """Devices that are attached to a container to which the kubelet did not give them, each with whose they are.

        The kubelet takes them for free, and Allocate would refuse them one time after the other. A pod that is gone for
        the kubelet is no owner: its DEL is on the way.
        """
        if not self.pod_devices.known:
            return {}
        held = {(id_, holder.pod_name) for (_, id_), holders in self.pod_devices.holders.items() for holder in holders}
        return {
            id_: f"{attachment.owner} has it, and the kubelet did not give it to that pod"
            for id_, attachments in (self._attachments or {}).items()
            for attachment in attachments
            if attachment.phase == "attached" and attachment.pod in self.pod_devices.pods
            if (id_, attachment.pod) not in held
        }

    def find_pod(self, device: str, *, fresh: bool) -> tuple[str, bool] | None:
        """The pod that the kubelet gave a device, empty for none, and whether a pool offers it. For worker threads.

        As of the last update, or asked of the kubelet now. None when the kubelet does not answer.
        """
        pods = self.pod_devices
        if fresh and self._loop is not None:
            try:
                pods = asyncio.run_coroutine_threadsafe(self._resources.list_devices(), self._loop).result(_ASK_TIMEOUT)
            except TimeoutError:
                return None
        if not pods.known:
            return None
        holder = pods.find(device)
        is_offered = any(one.id == device for plugin in self._plugins.values() for one in plugin.devices)
        return (holder.pod_name if holder else "", is_offered)

    def _find_owner(self, device: str) -> str:
        """Who has a device attached, if that pod is still there; runs in a worker thread.

        The kubelet gives a device away as soon as it knows its pod to be gone, which can be before its DEL is done:
        such an attachment is no reason to refuse, as a refused pod stays failed. ADD waits for it.
        """
        for attachment in (self._attachments or {}).get(device, ()):
            pod = attachment.pod
            here = attachment.phase == "attached" and pod and pod in self._ask_pods()
            if here and self._journal.find_attachment(attachment.container_id, attachment.ifname):
                return attachment.owner
        return ""

    def _ask_pods(self) -> frozenset[str]:
        if self._loop is None:
            return frozenset()
        return asyncio.run_coroutine_threadsafe(self._resources.list_devices(), self._loop).result(_ASK_TIMEOUT).pods


def _as_faults(condition: str, reasons: Mapping[str, str]) -> dict[str, Fault]:
    return {id_: Fault(condition, reason) for id_, reason in reasons.items()}
