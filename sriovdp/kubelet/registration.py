"""Making a pool known to the kubelet, and keeping it known while kubelets come and go.

A kubelet with a plugin watcher finds the socket in plugins_registry/, and finds it again after its own restart. For one
without, the socket is in device-plugins/ and the plugin registers itself; a kubelet that starts wipes that directory.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio

from sriovdp.errors import SriovdpError
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2 import DevicePluginOptions, RegisterRequest
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2_grpc import RegistrationStub
from sriovdp.kubelet.plugin import DevicePlugin
from sriovdp.kubelet.server import VERSION, PluginServer

logger = logging.getLogger(__name__)

_POLL_INTERVAL = 1.0  # seconds
_REGISTER_TIMEOUT = 15.0  # seconds; the kubelet gives itself 10 to connect to the plugin before it answers
_CHANNEL_OPTIONS = (
    ("grpc.default_authority", "localhost"),  # the kubelet's gRPC refuses a path there
    ("grpc.use_local_subchannel_pool", 1),  # a failed attempt must not delay the next one
)

Identity = tuple[int, int, int]
"""Device, inode and change time (ns): another file of the same name differs in one of them."""


class Endpoint:
    """Serves one pool to the kubelet below `kubelet_dir`, usually /var/lib/kubelet. To be started and stopped once."""

    def __init__(self, kubelet_dir: Path, resource: str, plugin: DevicePlugin) -> None:
        self._registry = kubelet_dir / "plugins_registry"
        self._directory = kubelet_dir / "device-plugins"
        self._resource = resource
        self._plugin = plugin
        self._server: PluginServer | None = None
        self._registered_at: Identity | None = None
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve, and go on in the background: it neither waits for the kubelet nor fails when there is none."""
        await self._attempt(self._serve)
        self._task = asyncio.create_task(self._keep(), name=f"endpoint {self._resource}")

    async def stop(self) -> None:
        """Stop serving, end the streams and remove the socket."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._server:
            await self._server.stop()
            self._server = None

    async def _keep(self) -> None:
        while True:
            await self._attempt(self._tend)
            await asyncio.sleep(_POLL_INTERVAL)

    async def _attempt(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step; a failure is logged when it is not the one of last time, and the next round tries again."""
        trouble = ""
        try:
            await step()
        except (SriovdpError, OSError) as error:
            trouble = str(error)
            if trouble != self._trouble:
                logger.warning("%s: %s; trying again until it works", self._resource, trouble)
        except Exception:
            logger.exception("%s: keeping the pool registered failed; trying again", self._resource)
        self._trouble = trouble

    async def _tend(self) -> None:
        if self._server is None or not _identify(self._server.socket):
            await self._serve()
        if self._server and self._server.socket.parent == self._directory:
            await self._register(self._server.socket)

    async def _serve(self) -> None:
        if self._server:
            logger.info("%s: %s was removed, serving it anew", self._resource, self._server.socket)
            await self._server.stop()
        self._server, self._registered_at = None, None
        directory = self._registry if self._registry.is_dir() else self._directory
        if not directory.is_dir():
            raise SriovdpError(f"{directory} is not there", hint="the kubelet makes it, and it has to be mounted here")
        server = PluginServer(directory / f"{self._resource.replace('/', '_')}.sock", self._resource, self._plugin)
        await server.start()
        self._server = server

    async def _register(self, socket: Path) -> None:
        """Register with the kubelet that is there now, unless it is the one that knows this socket already."""
        kubelet = self._directory / "kubelet.sock"
        identity = _identify(kubelet)
        if identity is None:
            raise SriovdpError(f"no kubelet is at {kubelet}")
        if identity == self._registered_at:
            return
        request = RegisterRequest(
            version=VERSION, endpoint=socket.name, resource_name=self._resource, options=DevicePluginOptions()
        )
        async with grpc.aio.insecure_channel(f"unix:{kubelet}", options=_CHANNEL_OPTIONS) as channel:
            try:
                await RegistrationStub(channel).Register(request, timeout=_REGISTER_TIMEOUT)
            except grpc.aio.AioRpcError as error:
                raise SriovdpError(f"the kubelet did not register the pool: {error.details()}") from error
        self._registered_at = identity
        logger.info("%s: registered with the kubelet", self._resource)


def _identify(path: Path) -> Identity | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns
