"""Making one pool known to the kubelet, and keeping it known.

A kubelet with a plugin watcher finds the socket in plugins_registry/, and finds it again after its own restart. For one
without, the socket is in device-plugins/ and the plugin registers itself; a kubelet that starts wipes that directory.

A pool is known as long as the kubelet follows its list. A kubelet that refuses a socket never asks for it again, and
one that ends the stream by mistake (it knows plugins of one resource by the resource's name only, and takes the
end of an old one for the end of the new one) does not either: only another socket makes it ask.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from sriovdp.errors import SriovdpError
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2 import RegisterRequest
from sriovdp.kubelet.plugin import OPTIONS, DevicePlugin
from sriovdp.kubelet.server import VERSION, PluginServer
from sriovdp.kubelet.sockets import Identity, identify, is_listening, name_socket, register
from sriovdp.kubelet.waits import Waits

logger = logging.getLogger(__name__)

_LOOK_INTERVAL = 0.5  # seconds, where nothing is noticed before
_QUIET_INTERVAL = 60.0  # seconds, where the kernel reports what happens in the kubelet's folders
_STREAM_TIME = 10.0  # seconds from the kubelet's acceptance to its first look at the list, which usually comes at once
_ANSWER_TIME = 30.0  # seconds for a kubelet to ask for a new socket, or to give its verdict: it dials for 10, twice


class Endpoint:
    """Serves one pool to the kubelet below `kubelet_dir`, usually /var/lib/kubelet. To be started and stopped once.

    It looks at the kubelet's folders when `changed` is set, when a wait is over, and every half second as long as
    something is wrong, or `is_watched` says that nothing reports what happens in these folders.
    """

    def __init__(
        self,
        kubelet_dir: Path,
        resource: str,
        plugin: DevicePlugin,
        changed: asyncio.Event | None = None,
        is_watched: Callable[[], bool] = lambda: False,
    ) -> None:
        self._registry = kubelet_dir / "plugins_registry"
        self._directory = kubelet_dir / "device-plugins"
        self._kubelet = self._directory / "kubelet.sock"
        self._pod_resources = kubelet_dir / "pod-resources/kubelet.sock"
        self._resource = resource
        self._plugin = plugin
        self.changed = changed or asyncio.Event()
        """Set when there may be something to do."""
        plugin.stirred = self.changed.set
        self._is_watched = is_watched
        self._server: PluginServer | None = None
        self._seen: Identity | None = None  # the kubelet that had the chance to ask for the socket
        self._waits = Waits()
        self._refusals = 0
        self._refusal = ""
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._trouble = ""

    @property
    def registered(self) -> bool:
        """Whether a kubelet follows the pool's list."""
        return self._plugin.followed_since is not None

    @property
    def trouble(self) -> str:
        """What keeps the pool from being served or registered, empty when nothing does."""
        if self._refusals and not self.registered:
            return f"the kubelet refused it {self._refusals} times, last with: {self._refusal}"
        return self._trouble

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
        await self._stop_server()

    async def _keep(self) -> None:
        while not self._stopping:
            self.changed.clear()  # before looking: what comes while we look is looked at again
            await self._attempt(self._tend)
            if not self._stopping:
                await self._await_change(self._find_pause())

    def _find_pause(self) -> float:
        """Seconds until there is something to do, if nothing happens before."""
        server, since = self._server, self._plugin.followed_since
        if self._trouble or server is None or not self._is_watched():
            return _LOOK_INTERVAL
        now = time.monotonic()
        if since is None:
            return max(_LOOK_INTERVAL, min(_QUIET_INTERVAL, self._find_end_of_patience(server) - now))
        # a stream that lasts ends the growth of the waits
        left = since + self._waits.current - now
        return left + _LOOK_INTERVAL if 0 <= left < _QUIET_INTERVAL else _QUIET_INTERVAL

    async def _await_change(self, limit: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self.changed.wait()

    async def _attempt(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step; a failure is logged when it is not the one of last time, and the next round tries again."""
        trouble = ""
        try:
            await step()
        except (SriovdpError, OSError) as error:
            trouble = str(error)
            if trouble != self._trouble:
                logger.warning("%s: %s; trying again until it works", self._resource, trouble)
        except Exception as error:
            logger.exception("%s: keeping the pool registered failed; trying again", self._resource)
            trouble = repr(error)
        self._trouble = trouble

    async def _tend(self) -> None:
        server = self._server
        if server is None or not identify(server.socket):
            if server:
                logger.info("%s: %s was removed, serving another socket", self._resource, server.socket)
            await self._serve()
        elif self._forget_old_kubelet(server):
            logger.debug("%s: there is a new kubelet", self._resource)
        elif self._plugin.followed_since is not None:
            if time.monotonic() - self._plugin.followed_since > self._waits.current:
                self._waits.reset()
        elif time.monotonic() >= self._find_end_of_patience(server):
            await self._replace(server)
        if self._server and self._server.standing == "new" and self._server.socket.parent == self._directory:
            await self._register(self._server)

    def _find_kubelet(self) -> Path:
        """A socket of the kubelet's own. With another --root-dir it still has device-plugins/ in /var/lib/kubelet."""
        return self._kubelet if self._directory.is_dir() else self._pod_resources

    def _forget_old_kubelet(self, server: PluginServer) -> bool:
        """Whether a kubelet has come that may not have looked at the socket yet."""
        kubelet = identify(self._find_kubelet())
        if kubelet in {None, self._seen}:
            return False
        self._seen = kubelet
        server.stand("new")
        return True

    def _find_end_of_patience(self, server: PluginServer) -> float:
        """When to make another socket, if the kubelet still does not follow this one by then."""
        if server.standing == "refused":
            return server.since + self._waits.current
        if server.standing == "accepted" and self._plugin.left_at >= server.since:
            return self._plugin.left_at + self._waits.current
        return server.since + (_STREAM_TIME if server.standing == "accepted" else _ANSWER_TIME)

    async def _replace(self, server: PluginServer) -> None:
        """Serve another socket, unless no kubelet is there: a kubelet that comes looks at all sockets by itself."""
        kubelet = self._find_kubelet()
        unseen = server.standing == "new"
        if (identify(kubelet) or unseen) and not await is_listening(kubelet):
            return
        if unseen:
            logger.warning("%s: the kubelet does not ask for %s, trying the other way", self._resource, server.socket)
        self._waits.grow()
        await self._serve(watched=unseen != (server.socket.parent == self._registry))

    async def _serve(self, *, watched: bool = True) -> None:
        """Serve a new socket: for a plugin watcher, if there is one that is not known to be blind (`watched`)."""
        await self._stop_server()
        directory = self._registry if watched and self._registry.is_dir() else self._directory
        if not directory.is_dir():
            raise SriovdpError(f"{directory} is not there", hint="start the kubelet, which makes it, and mount it here")
        self._seen = identify(self._find_kubelet())
        server = PluginServer(
            directory / name_socket(directory, self._resource), self._resource, self._plugin, self._take_verdict
        )
        await server.start()
        self._server = server

    async def _stop_server(self) -> None:
        if self._server:
            await self._server.stop()
            self._server = None

    def _take_verdict(self, refusal: str) -> None:
        """Log what the kubelet says: a refusal when it is another one than last time, and how many there were."""
        if not refusal:
            count = f" after {self._refusals} refusals" if self._refusals else ""
            logger.info("%s: registered with the kubelet%s", self._resource, count)
            self._refusals, self._refusal = 0, ""
            self.changed.set()
            return
        socket = str(self._server.socket) if self._server else ""
        reason = refusal.replace(socket, "its socket") if socket else refusal
        level = logging.DEBUG if reason == self._refusal else logging.WARNING
        logger.log(level, "%s: the kubelet refused the registration: %s; trying again", self._resource, reason)
        self._refusals, self._refusal = self._refusals + 1, reason
        self.changed.set()

    async def _register(self, server: PluginServer) -> None:
        """Register with the kubelet that is there now. A kubelet that goes away meanwhile is not waited for."""
        identity = self._seen = identify(self._kubelet)
        if identity is None:
            raise SriovdpError(f"no kubelet is at {self._kubelet}")
        server.stand("greeted")
        request = RegisterRequest(
            version=VERSION, endpoint=server.socket.name, resource_name=self._resource, options=OPTIONS
        )
        call = asyncio.create_task(register(self._kubelet, request))
        try:
            while not call.done() and identify(self._kubelet) == identity and identify(server.socket):
                await asyncio.wait({call}, timeout=_LOOK_INTERVAL)
            if not call.done():
                server.stand("new")
                raise SriovdpError("the kubelet went away while it was asked to register the pool")
            await call
        except SriovdpError as error:
            if call.done():
                server.stand("refused", error.message)
            else:
                raise
        else:
            server.stand("accepted")
        finally:
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
