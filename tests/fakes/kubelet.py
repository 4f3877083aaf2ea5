"""A kubelet, as far as device plugins see one: it finds them, follows their lists, and admits pods with their devices.

`tests/kubelet/test_scenarios.py` holds it against the kubelet's own plugin manager and device manager.
"""
# ruff: noqa: N802 - the protocols name the methods

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc
import grpc.aio

from sriovdp.kubelet.api import deviceplugin_v1beta1_pb2 as plugin_pb2
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2_grpc import RegistrationServicer, add_RegistrationServicer_to_server
from sriovdp.kubelet.api.podresources_v1_pb2_grpc import add_PodResourcesListerServicer_to_server
from sriovdp.model import DeviceNode, Mount
from tests.fakes.device_manager import Client, DeviceManager
from tests.fakes.event_log import EventLog
from tests.fakes.plugin_manager import PluginManager, RefusedError
from tests.fakes.podresources import PodResources
from tests.lab.patience import own_time

_LOOK = 1.0  # seconds between two looks at the clock


class AdmissionError(Exception):
    """The kubelet does not admit a pod; the text is what the pod's event would say."""


@dataclass(frozen=True)
class Admission:
    """What an admitted pod was given: device IDs by resource, and what its container gets."""

    devices: dict[str, list[str]] = field(default_factory=dict)
    envs: dict[str, str] = field(default_factory=dict)
    nodes: list[DeviceNode] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    cdi_devices: list[str] = field(default_factory=list)


class Kubelet:
    """A kubelet below `kubelet_dir`, running while its context is entered.

    `watcher` says whether it watches plugins, or they have to register themselves.
    """

    def __init__(self, kubelet_dir: Path, *, watcher: bool = True) -> None:
        self.log = EventLog()
        """What it did with plugins."""
        self._registry = kubelet_dir / "plugins_registry"
        self._directory = kubelet_dir / "device-plugins"
        self._resources = kubelet_dir / "pod-resources"
        self._watcher = watcher
        self._manager = DeviceManager(self.log, self._notify)
        self._plugins: PluginManager | None = None
        self._pods: dict[str, Admission] = {}
        self._servers: list[grpc.aio.Server] = []
        self._changed = asyncio.Condition()
        self._admitting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def registrations(self) -> list[str]:
        """The resource of each registration that was granted, in order."""
        return self._manager.registrations

    async def restart(self) -> None:
        """Restart: streams break, device-plugins/ is wiped and its socket made again. Pods and their devices stay."""
        await self.stop()
        await self.start()

    async def refuse(self, text: str, *, times: int = 1) -> None:
        """Refuse the next registrations, with this text."""
        self._manager.refusals.extend([text] * times)

    async def disconnect(self, resource: str) -> None:
        """Disconnect a plugin by mistake, as the end of an older one's stream does."""
        await self._manager.disconnect(resource)

    async def wait_for_step(self, step: str, *, times: int = 1, within: float = 60.0) -> None:
        """Wait until a step was taken down that often. Raises TimeoutError."""
        await self._wait(lambda: sum(one.startswith(step) for one in self.log.steps) >= times, step, within)

    async def wait_for(self, resource: str, *, count: int, healthy: bool = True, within: float = 60.0) -> list[str]:
        """Wait until exactly `count` devices are offered healthy (or unhealthy); their IDs, sorted.

        Raises TimeoutError after `within` seconds; it says what is offered instead.
        """
        state = "healthy" if healthy else "unhealthy"
        wanted = f"{count} {state} devices of {resource}"
        await self._wait(lambda: len(self._list(resource, healthy=healthy)) == count, wanted, within)
        return self._list(resource, healthy=healthy)

    async def wait_for_registration(self, resource: str, *, times: int = 1, within: float = 60.0) -> None:
        """Wait until the resource was registered that often. Raises TimeoutError after `within` seconds."""
        wanted = f"{times} registrations of {resource}"
        await self._wait(lambda: self.registrations.count(resource) >= times, wanted, within)

    def lists(self, resource: str) -> list[plugin_pb2.ListAndWatchResponse]:
        """Every list the plugin has sent since it was registered last, in order."""
        return list(self._manager.lists[resource])

    async def admit(self, pod_name: str, requests: Mapping[str, int], *, prefer: bool = True) -> Admission:
        """Give a pod of one container that many free healthy devices of each resource, and start the container.

        The plugin is asked which it prefers, if it wants to be and `prefer` is not False. Raises AdmissionError when
        there are too few or a plugin refuses; the pod then has nothing.
        """
        async with self._admitting:
            if pod_name in self._pods:
                raise AdmissionError(f"pod {pod_name} is there already")
            admission = Admission()
            for resource, count in requests.items():
                ids = await self._pick(resource, count, prefer=prefer)
                admission.devices[resource] = ids
                answer = await self.allocate(resource, ids)
                admission.envs.update(answer.envs)
                admission.nodes.extend(
                    DeviceNode(node.host_path, node.container_path, node.permissions) for node in answer.devices
                )
                admission.mounts.extend(
                    Mount(mount.host_path, mount.container_path, mount.read_only) for mount in answer.mounts
                )
                admission.cdi_devices.extend(device.name for device in answer.cdi_devices)
            for resource, ids in admission.devices.items():
                await self.start_container(resource, ids)
            self._pods[pod_name] = admission
            return admission

    async def allocate(
        self, resource: str, ids: Sequence[str], *, within: float | None = None
    ) -> plugin_pb2.ContainerAllocateResponse:
        """Ask the plugin for exactly these devices, whatever the book says. Raises AdmissionError when refused.

        It gives up after `within` seconds, as the kubelet itself never does here.
        """
        request = plugin_pb2.AllocateRequest(container_requests=[plugin_pb2.ContainerAllocateRequest(devices_ids=ids)])
        try:
            answer = await self._find(resource).stub.Allocate(request, timeout=within)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise AdmissionError(f"Allocate failed due to {code}: {error.details()}, which is unexpected") from error
        return answer.container_responses[0]

    async def start_container(self, resource: str, ids: Sequence[str]) -> None:
        """Ask the plugin before a container starts, if it wants to be. Raises AdmissionError when it refuses."""
        plugin = self._find(resource)
        if plugin.options.pre_start_required:
            try:
                await plugin.stub.PreStartContainer(plugin_pb2.PreStartContainerRequest(devices_ids=ids), timeout=30)
            except grpc.aio.AioRpcError as error:
                raise AdmissionError(f"PreStartContainer failed: {error.code().name}: {error.details()}") from error

    async def remove(self, pod_name: str) -> None:
        """Free a pod's devices; the protocol has no word for the plugin. Raises KeyError without the pod."""
        del self._pods[pod_name]

    def pods(self) -> dict[str, Admission]:
        """The pods there are, with what they were given."""
        return self._pods

    def offered(self) -> dict[str, list[str]]:
        """The healthy devices of each resource: what is allocatable."""
        return {resource: sorted(ids) for resource, ids in self._manager.healthy.items()}

    def _find(self, resource: str) -> Client:
        try:
            return self._manager.endpoints[resource]
        except KeyError:
            raise AdmissionError(f"no plugin is registered for {resource}") from None

    def _list_given(self) -> dict[str, dict[str, list[str]]]:
        return {name: pod.devices for name, pod in self._pods.items()}

    async def start(self) -> None:
        """Start: sockets in device-plugins/ are removed, whatever they are."""
        for directory in (self._directory, self._resources):
            directory.mkdir(parents=True, exist_ok=True)
        for path in [path for path in self._directory.iterdir() if path.is_socket()]:
            path.unlink()
        registration, resources = grpc.aio.server(), grpc.aio.server()
        add_RegistrationServicer_to_server(_Registration(self._manager, self._directory), registration)
        add_PodResourcesListerServicer_to_server(PodResources(self._list_given, self.offered), resources)
        self._servers = [registration, resources]
        for server, directory in zip(self._servers, (self._directory, self._resources), strict=True):
            server.add_insecure_port(f"unix:{directory / 'kubelet.sock'}")
            await server.start()
        if self._watcher:
            self._plugins = PluginManager(self._registry, self._manager)
            self._plugins.start()

    async def stop(self) -> None:
        """End. Sockets of plugins stay."""
        if self._plugins:
            await self._plugins.stop()
        await asyncio.gather(*(server.stop(None) for server in self._servers))
        for directory in (self._directory, self._resources):
            (directory / "kubelet.sock").unlink(missing_ok=True)
        await self._manager.stop()

    async def _pick(self, resource: str, count: int, *, prefer: bool) -> list[str]:
        given = {id_ for pod in self._pods.values() for id_ in pod.devices.get(resource, ())}
        free = [id_ for id_ in self._list(resource, healthy=True) if id_ not in given]
        if len(free) < count:
            raise AdmissionError(
                f"requested number of devices unavailable for {resource}. Requested: {count}, Available: {len(free)}"
            )
        plugin = self._find(resource)
        if not prefer or not plugin.options.get_preferred_allocation_available:
            return free[:count]
        wish = plugin_pb2.ContainerPreferredAllocationRequest(available_deviceIDs=free, allocation_size=count)
        answer = await plugin.stub.GetPreferredAllocation(
            plugin_pb2.PreferredAllocationRequest(container_requests=[wish])
        )
        wanted = set(answer.container_responses[0].deviceIDs)
        return sorted(free, key=lambda id_: id_ not in wanted)[:count]

    def _list(self, resource: str, *, healthy: bool) -> list[str]:
        return sorted((self._manager.healthy if healthy else self._manager.unhealthy).get(resource, ()))

    async def _wait(self, done: Callable[[], bool], wanted: str, within: float) -> None:
        deadline = own_time() + within
        async with self._changed:
            while not done() and own_time() < deadline:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await self._changed.wait()
        if not done():
            offers = [
                f"{resource}: {sorted(healthy)} healthy, {self._list(resource, healthy=False)} unhealthy"
                for resource, healthy in self._manager.healthy.items()
            ]
            seen = "; ".join(offers) or "no plugin is registered"
            raise TimeoutError(f"waited {within:g} s for {wanted}, but {seen}")

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class _Registration(RegistrationServicer):
    """The kubelet's registration service for plugins that register themselves."""

    def __init__(self, manager: DeviceManager, directory: Path) -> None:
        self._manager = manager
        self._directory = directory

    async def Register(
        self,
        request: plugin_pb2.RegisterRequest,
        context: grpc.aio.ServicerContext[plugin_pb2.RegisterRequest, plugin_pb2.Empty],
    ) -> plugin_pb2.Empty:
        socket = self._directory / request.endpoint
        try:
            self._manager.validate(request.resource_name, socket, [request.version])
            await self._manager.connect(request.resource_name, socket)
        except RefusedError as error:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return plugin_pb2.Empty()
