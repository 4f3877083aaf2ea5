"""The kubelet's device manager: the plugins it is connected to, and their devices.

As pkg/kubelet/cm/devicemanager of Kubernetes 1.34 does, with its defects: connections go by the resource's name, so the
end of an older plugin's stream or socket disconnects the newer plugin of that resource.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio

from sriovdp.kubelet.api import deviceplugin_v1beta1_pb2 as pb2
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2_grpc import DevicePluginStub
from tests.fakes.event_log import EventLog
from tests.fakes.plugin_manager import CHANNEL_OPTIONS, DIAL_TIMEOUT, RefusedError

VERSION = "v1beta1"


class Client:
    """A connection to one plugin."""

    def __init__(self, socket: Path) -> None:
        self.options = pb2.DevicePluginOptions()
        self.channel = grpc.aio.insecure_channel(f"unix:{socket}", options=CHANNEL_OPTIONS)
        self.stub = DevicePluginStub(self.channel)

    async def connect(self) -> None:
        """Dial, and ask for the options. Raises RefusedError."""
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                await self.channel.channel_ready()
            self.options = await self.stub.GetDevicePluginOptions(pb2.Empty())
        except TimeoutError as error:
            raise RefusedError("failed to dial device plugin: context deadline exceeded") from error
        except grpc.aio.AioRpcError as error:
            raise RefusedError(f"failed to get device plugin options: {error.details()}") from error


class DeviceManager:
    """The device manager. `notify` is called after each change."""

    def __init__(self, log: EventLog, notify: Callable[[], Awaitable[None]]) -> None:
        self.registrations: list[str] = []
        """The resource of each registration that was granted, in order."""
        self.lists: defaultdict[str, list[pb2.ListAndWatchResponse]] = defaultdict(list)
        """Every list of a resource since it was connected last."""
        self.healthy: dict[str, set[str]] = {}
        self.unhealthy: dict[str, set[str]] = {}
        self.endpoints: dict[str, Client] = {}
        """The plugin that is asked for each resource: the one that was connected last."""
        self.refusals: deque[str] = deque()
        self._clients: dict[str, Client] = {}
        self._streams: set[asyncio.Task[None]] = set()
        self._log = log
        self._notify = notify

    def validate(self, resource: str, socket: Path, versions: list[str]) -> None:
        """Raises RefusedError for a plugin that cannot be used."""
        if VERSION not in versions:
            self._refuse(
                "invalid", socket, f"manager version, {VERSION}, is not among plugin supported versions {versions}"
            )
        if "/" not in resource:
            self._refuse("invalid", socket, f"invalid name of device plugin socket: {resource}")

    async def register(self, resource: str, socket: Path) -> None:
        """Connect a plugin that the plugin manager found. Raises RefusedError."""
        try:
            await self.connect(resource, socket)
        except RefusedError as error:
            self._refuse("refused", socket, str(error))
        self._log.add("registered", socket)
        await self._notify()

    async def deregister(self, resource: str, socket: Path) -> None:
        """Forget a plugin whose socket is gone: whichever is connected for its resource."""
        self._log.add("deregistered", socket)
        await self.disconnect(resource)
        await self._notify()

    async def connect(self, resource: str, socket: Path) -> None:
        """Connect a plugin, and follow its list. Raises RefusedError."""
        if self.refusals:
            raise RefusedError(self.refusals.popleft())
        client = self._clients[resource] = Client(socket)
        try:
            await client.connect()
        except RefusedError:
            self._clients.pop(resource, None)
            await client.channel.close()
            raise
        self.endpoints[resource] = client
        self.lists[resource].clear()
        self._log.add("connected")
        stream = asyncio.create_task(self._follow(resource, client))
        self._streams.add(stream)
        self.registrations.append(resource)
        await self._notify()
        stream.add_done_callback(self._streams.discard)

    async def stop(self) -> None:
        """End all streams, as a kubelet that is killed."""
        for stream in list(self._streams):
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        for client in {*self._clients.values(), *self.endpoints.values()}:
            await client.channel.close()
        for resource in list(self.healthy):
            self._mark_unhealthy(resource)
        await self._notify()

    async def _follow(self, resource: str, client: Client) -> None:
        try:
            async for answer in client.stub.ListAndWatch(pb2.Empty()):
                states: dict[str, set[str]] = {"Healthy": set(), "Unhealthy": set()}
                for device in answer.devices:
                    states[device.health].add(device.ID)
                self.healthy[resource], self.unhealthy[resource] = states["Healthy"], states["Unhealthy"]
                self.lists[resource].append(answer)
                self._log.add_list(*states.values())
                await self._notify()
        except grpc.aio.AioRpcError:
            pass
        await self.disconnect(resource)

    async def disconnect(self, resource: str) -> None:
        """Close the connection of a resource, if there is one."""
        client = self._clients.pop(resource, None)
        if client is None:
            return
        await client.channel.close()
        self._mark_unhealthy(resource)
        self._log.add("disconnected")
        await self._notify()

    def _mark_unhealthy(self, resource: str) -> None:
        self.unhealthy.setdefault(resource, set()).update(self.healthy.get(resource, ()))
        self.healthy[resource] = set()

    def _refuse(self, step: str, socket: Path, text: str) -> None:
        self._log.add(step, socket, text)
        raise RefusedError(text)
