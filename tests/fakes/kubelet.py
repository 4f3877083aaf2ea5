"""A kubelet, as far as device plugins see one: it finds them, follows their lists, and admits pods with their devices.

The services and their order are those of the kubelet's device manager and plugin watcher, packages cm/devicemanager and
pluginmanager: a plugin that was found is asked who it is, connected, followed, and told the verdict; a stream that ends
makes its devices unhealthy; a start wipes device-plugins/ but never plugins_registry/.
"""
# ruff: noqa: N802 - the protocols name the methods

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc
import grpc.aio

from sriovdp.kubelet.api import deviceplugin_v1beta1_pb2 as plugin_pb2
from sriovdp.kubelet.api import pluginregistration_v1_pb2 as watcher_pb2
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2_grpc import (
    DevicePluginStub,
    RegistrationServicer,
    add_RegistrationServicer_to_server,
)
from sriovdp.kubelet.api.pluginregistration_v1_pb2_grpc import RegistrationStub as WatcherStub
from sriovdp.kubelet.api.podresources_v1_pb2_grpc import add_PodResourcesListerServicer_to_server
from sriovdp.model import DeviceNode, Mount
from tests.fakes.podresources import PodResources

VERSION = "v1beta1"

_SCAN_INTERVAL = 0.05  # seconds
_CONNECT_TIMEOUT = 10.0  # seconds, as the kubelet's
_CHANNEL_OPTIONS = (("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1))


class AdmissionError(Exception):
    """The kubelet does not admit a pod; the text is what the pod's event would say."""


class _RefusedError(Exception):
    """The kubelet does not register a plugin, and tells it why."""


@dataclass(frozen=True)
class Admission:
    """What an admitted pod was given: device IDs by resource, and what its container gets."""

    devices: dict[str, list[str]] = field(default_factory=dict)
    envs: dict[str, str] = field(default_factory=dict)
    nodes: list[DeviceNode] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    cdi_devices: list[str] = field(default_factory=list)


class _Plugin:
    """One connected device plugin, and all lists it has sent on this connection."""

    def __init__(self, socket: Path, notify: Callable[[], Awaitable[None]]) -> None:
        self.socket = socket
        self.lists: list[plugin_pb2.ListAndWatchResponse] = []
        self.connected = True
        self.options = plugin_pb2.DevicePluginOptions()
        self._notify = notify
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=_CHANNEL_OPTIONS)
        self.stub = DevicePluginStub(self._channel)
        self._stream = asyncio.create_task(self._follow())

    def devices(self, *, healthy: bool) -> list[str]:
        """IDs of the last list in that state, sorted; all are unhealthy once the stream has ended."""
        last = self.lists[-1].devices if self.lists else []
        return sorted(device.ID for device in last if (device.health == "Healthy" and self.connected) == healthy)

    async def break_stream(self) -> None:
        """Break the list's stream off, and keep the connection."""
        self._stream.cancel()
        await asyncio.gather(self._stream, return_exceptions=True)

    def open_stream(self) -> None:
        """Follow the list again, on the same connection."""
        self.lists.clear()
        self.connected = True
        self._stream = asyncio.create_task(self._follow())

    async def close(self) -> None:
        self._stream.cancel()
        await asyncio.gather(self._stream, return_exceptions=True)
        await self._channel.close()

    async def _follow(self) -> None:
        try:
            with contextlib.suppress(grpc.aio.AioRpcError):
                async for devices in self.stub.ListAndWatch(plugin_pb2.Empty()):
                    self.lists.append(devices)
                    await self._notify()
        finally:
            self.connected = False
            await self._notify()


class Kubelet:
    """A kubelet below `kubelet_dir`, running while its context is entered; `watcher` says whether it watches plugins.

    `registrations` lists the resource of each registration that was granted, in order.
    """

    def __init__(self, kubelet_dir: Path, *, watcher: bool = True) -> None:
        self.registrations: list[str] = []
        self._registry = kubelet_dir / "plugins_registry"
        self._directory = kubelet_dir / "device-plugins"
        self._resources = kubelet_dir / "pod-resources"
        self._watcher = watcher
        self._plugins: dict[str, _Plugin] = {}
        self._pods: dict[str, Admission] = {}
        self._refusals: deque[str] = deque()
        self._servers: list[grpc.aio.Server] = []
        self._scan_task: asyncio.Task[None] | None = None
        self._running = False
        self._changed = asyncio.Condition()
        self._admitting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def restart(self, *, wipe: bool = True) -> None:
        """Restart: streams break, device-plugins/ is wiped and its socket made anew. Pods and their devices stay."""
        await self._stop()
        await self._start(wipe=wipe)

    def refuse_next(self, text: str) -> None:
        """Refuse the next registration, with this text."""
        self._refusals.append(text)

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
        return list(self._plugins[resource].lists)

    async def break_stream(self, resource: str) -> None:
        """Break the stream of a plugin's lists off."""
        await self._plugins[resource].break_stream()

    async def open_stream(self, resource: str) -> None:
        """Follow a plugin's lists again, after `break_stream`."""
        self._plugins[resource].open_stream()
        await self._notify()

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
            answer = await self._plugins[resource].stub.Allocate(request, timeout=within)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise AdmissionError(f"Allocate failed due to {code}: {error.details()}, which is unexpected") from error
        return answer.container_responses[0]

    async def start_container(self, resource: str, ids: Sequence[str]) -> None:
        """Ask the plugin before a container starts, if it wants to be. Raises AdmissionError when it refuses."""
        plugin = self._plugins[resource]
        if plugin.options.pre_start_required:
            try:
                await plugin.stub.PreStartContainer(plugin_pb2.PreStartContainerRequest(devices_ids=ids), timeout=30)
            except grpc.aio.AioRpcError as error:
                raise AdmissionError(f"PreStartContainer failed: {error.code().name}: {error.details()}") from error

    def remove(self, pod_name: str) -> None:
        """Free a pod's devices; the protocol has no word to tell the plugin. Raises KeyError without the pod."""
        del self._pods[pod_name]

    def pods(self) -> dict[str, Admission]:
        """The pods there are, with what they were given."""
        return self._pods

    def offered(self) -> dict[str, list[str]]:
        """The healthy devices of each resource: what is allocatable."""
        return {resource: plugin.devices(healthy=True) for resource, plugin in self._plugins.items()}

    def _list_given(self) -> dict[str, dict[str, list[str]]]:
        return {name: pod.devices for name, pod in self._pods.items()}

    async def register(self, resource: str, versions: Sequence[str], socket: Path) -> None:
        """Check, connect and follow a plugin, as both ways of registration do. Raises _RefusedError."""
        if self._refusals:
            raise _RefusedError(self._refusals.popleft())
        if VERSION not in versions:
            raise _RefusedError(f"versions {list(versions)} are not supported, {VERSION} is")
        if "/" not in resource:
            raise _RefusedError(f"{resource!r} is no extended resource name")
        before = self._plugins.pop(resource, None)
        if before:
            await before.close()
        plugin = _Plugin(socket, self._notify)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                plugin.options = await plugin.stub.GetDevicePluginOptions(plugin_pb2.Empty())
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            await plugin.close()
            raise _RefusedError(f"failed to dial device plugin at {socket}: {error}") from error
        self._plugins[resource] = plugin
        self.registrations.append(resource)
        await self._notify()

    async def _start(self, *, wipe: bool = True) -> None:
        for directory in (self._directory, self._resources, *([self._registry] if self._watcher else [])):
            directory.mkdir(parents=True, exist_ok=True)
        for socket in self._directory.iterdir() if wipe else ():
            socket.unlink()
        registration, resources = grpc.aio.server(), grpc.aio.server()
        add_RegistrationServicer_to_server(_Registration(self, self._directory), registration)
        add_PodResourcesListerServicer_to_server(PodResources(self._list_given, self.offered), resources)
        self._servers = [registration, resources]
        for server, directory in zip(self._servers, (self._directory, self._resources), strict=True):
            server.add_insecure_port(f"unix:{directory / 'kubelet.sock'}")
            await server.start()
        self._running = True
        self._scan_task = asyncio.create_task(self._scan()) if self._watcher else None

    async def _stop(self) -> None:
        self._running = False  # as gRPC may lose a cancellation that comes when a call of it ends
        if self._scan_task:
            self._scan_task.cancel()
            await asyncio.gather(self._scan_task, return_exceptions=True)
        await asyncio.gather(*(server.stop(None) for server in self._servers))
        for directory in (self._directory, self._resources):
            (directory / "kubelet.sock").unlink(missing_ok=True)
        for plugin in self._plugins.values():
            await plugin.close()
        self._plugins.clear()

    async def _scan(self) -> None:
        """The plugin watcher: greets each socket that is new, until that works, and leaves each that is gone."""
        known: dict[Path, tuple[int, int]] = {}
        while self._running:
            present = {path: identity for path in self._registry.glob("*.sock") if (identity := _identify(path))}
            for path in known.keys() - present.keys():
                del known[path]
                await self._leave(path)
            for path, identity in present.items():
                if known.get(path) != identity and await self._greet(path):
                    known[path] = identity
            await asyncio.sleep(_SCAN_INTERVAL)

    async def _greet(self, path: Path) -> bool:
        """Ask who is there, register it, and tell it the verdict; False when that has to be tried again."""
        async with grpc.aio.insecure_channel(f"unix:{path}", options=_CHANNEL_OPTIONS) as channel:
            stub = WatcherStub(channel)
            refusal = ""
            try:
                info = await stub.GetInfo(watcher_pb2.InfoRequest(), timeout=1.0)
                try:
                    if info.type != "DevicePlugin":
                        raise _RefusedError(f"no handler for plugin type {info.type!r}")
                    await self.register(info.name, info.supported_versions, Path(info.endpoint or path))
                except _RefusedError as error:
                    refusal = str(error)
                status = watcher_pb2.RegistrationStatus(plugin_registered=not refusal, error=refusal)
                await stub.NotifyRegistrationStatus(status, timeout=5.0)
            except grpc.aio.AioRpcError:
                return False
        return not refusal

    async def _leave(self, path: Path) -> None:
        for plugin in self._plugins.values():
            if plugin.socket == path:
                await plugin.close()

    async def _pick(self, resource: str, count: int, *, prefer: bool) -> list[str]:
        given = {id_ for pod in self._pods.values() for id_ in pod.devices.get(resource, ())}
        free = [id_ for id_ in self._list(resource, healthy=True) if id_ not in given]
        if len(free) < count:
            raise AdmissionError(
                f"requested number of devices unavailable for {resource}. Requested: {count}, Available: {len(free)}"
            )
        plugin = self._plugins[resource]
        if not prefer or len(free) == count or not plugin.options.get_preferred_allocation_available:
            return free[:count]
        wish = plugin_pb2.ContainerPreferredAllocationRequest(available_deviceIDs=free, allocation_size=count)
        answer = await plugin.stub.GetPreferredAllocation(
            plugin_pb2.PreferredAllocationRequest(container_requests=[wish])
        )
        wanted = set(answer.container_responses[0].deviceIDs)
        return [id_ for id_ in free if id_ in wanted][:count]

    def _list(self, resource: str, *, healthy: bool) -> list[str]:
        plugin = self._plugins.get(resource)
        return plugin.devices(healthy=healthy) if plugin else []

    async def _wait(self, done: Callable[[], bool], wanted: str, within: float) -> None:
        try:
            async with asyncio.timeout(within), self._changed:
                await self._changed.wait_for(done)
        except TimeoutError:
            offers = [
                f"{resource}: {plugin.devices(healthy=True)} healthy, {plugin.devices(healthy=False)} unhealthy"
                for resource, plugin in self._plugins.items()
            ]
            seen = "; ".join(offers) or "no plugin is registered"
            raise TimeoutError(f"waited {within:g} s for {wanted}, but {seen}") from None

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class _Registration(RegistrationServicer):
    """The kubelet's registration service for plugins that register themselves."""

    def __init__(self, kubelet: Kubelet, directory: Path) -> None:
        self._kubelet = kubelet
        self._directory = directory

    async def Register(
        self,
        request: plugin_pb2.RegisterRequest,
        context: grpc.aio.ServicerContext[plugin_pb2.RegisterRequest, plugin_pb2.Empty],
    ) -> plugin_pb2.Empty:
        try:
            await self._kubelet.register(request.resource_name, [request.version], self._directory / request.endpoint)
        except _RefusedError as error:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return plugin_pb2.Empty()


def _identify(path: Path) -> tuple[int, int] | None:
    """Inode and change time (ns) of a socket; None when it is gone or no socket."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return (status.st_ino, status.st_ctime_ns) if path.is_socket() else None
