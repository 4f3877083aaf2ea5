"""Making a pool known to the kubelet, and keeping it known while kubelets come and go.

A kubelet with a plugin watcher finds the socket in plugins_registry/, and finds it again after its own restart. For one
without, the socket is in device-plugins/ and the plugin registers itself; a kubelet that starts wipes that directory.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import grpc.aio

from sriovdp.errors import SriovdpError
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2 import RegisterRequest
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2_grpc import RegistrationStub
from sriovdp.kubelet.plugin import OPTIONS, DevicePlugin
from sriovdp.kubelet.server import VERSION, PluginServer
from sriovdp.kubelet.watch import FolderWatch

logger = logging.getLogger(__name__)

_PREFIX = "sriovdp-"  # of all our sockets, so that those of pools that are no more can be told from other plugins'
_LOOK_INTERVAL = 0.5  # seconds, where nothing is noticed before
_REGISTER_TIMEOUT = 15.0  # seconds; the kubelet gives itself 10 to connect to the plugin before it answers
_LONGEST_PATH = 107  # bytes of a Unix socket's path, unix(7)
_CHANNEL_OPTIONS = (
    ("grpc.default_authority", "localhost"),  # the kubelet's gRPC refuses a path there
    ("grpc.use_local_subchannel_pool", 1),  # a failed attempt must not delay the next one
)

Identity = tuple[int, int, int]
"""Device, inode and change time (ns): another file of the same name differs in one of them."""


class Endpoint:
    """Serves one pool to the kubelet below `kubelet_dir`, usually /var/lib/kubelet. To be started and stopped once.

    It looks at the kubelet's folders when `changed` is set, and every half second in any case.
    """

    def __init__(
        self, kubelet_dir: Path, resource: str, plugin: DevicePlugin, changed: asyncio.Event | None = None
    ) -> None:
        self._registry = kubelet_dir / "plugins_registry"
        self._directory = kubelet_dir / "device-plugins"
        self._resource = resource
        self._plugin = plugin
        self._changed = changed or asyncio.Event()
        self._server: PluginServer | None = None
        self._registered_at: Identity | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.trouble = ""
        """What keeps the pool from being served or registered, empty when nothing does."""

    @property
    def registered(self) -> bool:
        """Whether a kubelet has accepted the pool, on the socket that is served now."""
        server = self._server  # as other threads ask too
        return server is not None and (server.accepted or self._registered_at is not None)

    async def start(self) -> None:
        """Serve, and go on in the background: it neither waits for the kubelet nor fails when there is none."""
        await self._attempt(self._serve)
        self._task = asyncio.create_task(self._keep(), name=f"endpoint {self._resource}")

    async def stop(self) -> None:
        """Stop serving, end the streams and remove the socket."""
        self._stopping = True  # as gRPC loses a cancellation that comes when one of its servers has just stopped
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._server:
            await self._server.stop()
            self._server = None

    async def _keep(self) -> None:
        while not self._stopping:
            self._changed.clear()  # before looking: what comes while we look is looked at again
            await self._attempt(self._tend)
            if not self._stopping:
                await self._await_change()

    async def _await_change(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_INTERVAL):
                await self._changed.wait()

    async def _attempt(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step; a failure is logged when it is not the one of last time, and the next round tries again."""
        trouble = ""
        try:
            await step()
        except (SriovdpError, OSError) as error:
            trouble = str(error)
            if trouble != self.trouble:
                logger.warning("%s: %s; trying again until it works", self._resource, trouble)
        except Exception as error:
            logger.exception("%s: keeping the pool registered failed; trying again", self._resource)
            trouble = repr(error)
        self.trouble = trouble

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
        server = PluginServer(directory / name_socket(directory, self._resource), self._resource, self._plugin)
        await server.start()
        self._server = server

    async def _register(self, socket: Path) -> None:
        """Register with the kubelet that is there now, unless it is the one that knows this socket already.

        A kubelet that is replaced while it does not answer is not waited for.
        """
        kubelet = self._directory / "kubelet.sock"
        identity = _identify(kubelet)
        if identity is None:
            raise SriovdpError(f"no kubelet is at {kubelet}")
        if identity == self._registered_at:
            return
        call = asyncio.create_task(self._call_register(kubelet, socket))
        try:
            while not call.done() and _identify(kubelet) == identity and _identify(socket):
                await asyncio.wait({call}, timeout=_LOOK_INTERVAL)
            if not call.done():
                raise SriovdpError("the kubelet went away while it was asked to register the pool")
            await call
        finally:
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        self._registered_at = identity
        logger.info("%s: registered with the kubelet", self._resource)

    async def _call_register(self, kubelet: Path, socket: Path) -> None:
        request = RegisterRequest(version=VERSION, endpoint=socket.name, resource_name=self._resource, options=OPTIONS)
        async with grpc.aio.insecure_channel(f"unix:{kubelet}", options=_CHANNEL_OPTIONS) as channel:
            try:
                await RegistrationStub(channel).Register(request, timeout=_REGISTER_TIMEOUT)
            except grpc.aio.AioRpcError as error:
                raise SriovdpError(f"the kubelet did not register the pool: {error.details()}") from error


class Endpoints:
    """The endpoints of all pools, with one watch of the kubelet's folders. To be started and stopped once.

    Each pool has a gRPC server of its own: a call of the device plugin service does not say which resource it is for,
    so a server has to know by its socket.
    """

    def __init__(self, kubelet_dir: Path, plugins: Mapping[str, DevicePlugin]) -> None:
        self._folders = [kubelet_dir / name for name in ("plugins_registry", "device-plugins")]
        self._watch = FolderWatch([kubelet_dir, *self._folders])
        self._endpoints = {
            resource: Endpoint(kubelet_dir, resource, plugin, self._watch.subscribe())
            for resource, plugin in plugins.items()
        }

    async def start(self) -> None:
        """Remove sockets that an earlier agent left behind, and serve all pools."""
        self._remove_stale()
        self._watch.start()
        await asyncio.gather(*(endpoint.start() for endpoint in self._endpoints.values()))

    async def stop(self) -> None:
        """Stop serving all pools."""
        self._watch.stop()
        await asyncio.gather(*(endpoint.stop() for endpoint in self._endpoints.values()))

    def unregistered(self) -> dict[str, str]:
        """The pools that no kubelet knows now, each with the reason."""
        return {
            resource: endpoint.trouble or "no kubelet has accepted it yet"
            for resource, endpoint in self._endpoints.items()
            if not endpoint.registered
        }

    def _remove_stale(self) -> None:
        """Remove all of ours: of pools that are no more, or in the folder that is not used, they would be dialled."""
        for folder in self._folders:
            for socket in folder.glob(f"{_PREFIX}*.sock"):
                logger.info("removing %s, which an earlier agent left behind", socket)
                socket.unlink(missing_ok=True)


def name_socket(directory: Path, resource: str) -> str:
    """Name of a pool's socket; a shortened one where the path would be too long for the kernel."""
    name = f"{_PREFIX}{resource.replace('/', '_')}.sock"
    if len(str(directory / name).encode()) > _LONGEST_PATH:
        return f"{_PREFIX}{hashlib.sha256(resource.encode()).hexdigest()[:12]}.sock"
    return name


def _identify(path: Path) -> Identity | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns
