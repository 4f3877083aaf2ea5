"""The kubelet's plugin manager: it finds sockets in a folder, asks who is there, and registers them.

As pkg/kubelet/pluginmanager of Kubernetes 1.34 does, with its defects: a plugin counts as registered before its
registration succeeds, so one that was refused is never asked again; what fails before is tried again after a wait that
doubles with each failure, up to two minutes, for each socket path.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio

from sriovdp.kubelet.api import pluginregistration_v1_pb2 as pb2
from sriovdp.kubelet.api.pluginregistration_v1_pb2_grpc import RegistrationStub

CHANNEL_OPTIONS = (("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1))
DIAL_TIMEOUT = 10.0  # seconds, as the kubelet's

_INTERVAL = 0.05  # seconds; the kubelet's is one
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 122.0  # seconds, goroutinemap/exponentialbackoff


class RefusedError(Exception):
    """The kubelet does not register a plugin; the text is what it sends to the plugin."""


class Handler(Protocol):
    """What the device manager does with plugins that were found."""

    def validate(self, resource: str, socket: Path, versions: list[str]) -> None:
        """Raises RefusedError for a plugin that cannot be used."""

    async def register(self, resource: str, socket: Path) -> None:
        """Connect a plugin. Raises RefusedError."""

    async def deregister(self, resource: str, socket: Path) -> None:
        """Forget a plugin whose socket is gone."""


@dataclass
class _Operation:
    """What is done about one socket, and how long to wait after it failed."""

    task: asyncio.Task[None] | None = None
    wait: float = 0.0
    failed_at: float = 0.0

    def is_due(self) -> bool:
        return not (self.task and not self.task.done()) and time.monotonic() >= self.failed_at + self.wait


class PluginManager:
    """Watches `registry` from `start` to `stop`. Each file there gets a number: made again, it is another one."""

    def __init__(self, registry: Path, handler: Handler) -> None:
        self._registry = registry
        self._handler = handler
        self._numbers = itertools.count()
        self._desired: dict[Path, tuple[int, object]] = {}  # number and file of each socket that is there
        self._actual: dict[Path, tuple[int, str, Path]] = {}  # number, resource and endpoint of those taken in
        self._operations: dict[Path, _Operation] = {}
        self._folder: object = None
        self._running = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch; the folder is made."""
        self._registry.mkdir(parents=True, exist_ok=True)
        self._folder = _identify(self._registry)
        self._running = True
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End, and leave everything as it is."""
        self._running = False  # as gRPC may lose a cancellation that comes when a call of it ends
        tasks = [self._task, *(operation.task for operation in self._operations.values())]
        for task in filter(None, tasks):
            task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)

    async def _run(self) -> None:
        while self._running:
            if _identify(self._registry) == self._folder:  # a folder that was made again is not the watched one
                self._look()
            self._reconcile()
            await asyncio.sleep(_INTERVAL)

    def _look(self) -> None:
        present = {path: file for path in self._registry.glob("*") if path.is_socket() and (file := _identify(path))}
        for path in self._desired.keys() - present.keys():
            del self._desired[path]
        for path, file in present.items():
            if path.name[0] != "." and (path not in self._desired or self._desired[path][1] != file):
                self._desired[path] = next(self._numbers), file

    def _reconcile(self) -> None:
        for path, (number, resource, endpoint) in list(self._actual.items()):
            if self._desired.get(path, (None,))[0] != number:
                self._begin(path, lambda path=path, r=resource, e=endpoint: self._unregister(path, r, e))  # type: ignore[misc]
        for path, (number, _) in self._desired.items():
            if self._actual.get(path, (None,))[0] != number:
                self._begin(path, lambda path=path, number=number: self._register(path, number))  # type: ignore[misc]

    def _begin(self, path: Path, step: Callable[[], Awaitable[None]]) -> None:
        operation = self._operations.setdefault(path, _Operation())
        if operation.is_due():
            operation.task = asyncio.create_task(self._do(operation, step))

    async def _do(self, operation: _Operation, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except (grpc.aio.AioRpcError, RefusedError, TimeoutError):
            operation.wait = min(2 * operation.wait, _LONGEST_WAIT) if operation.wait else _FIRST_WAIT
            operation.failed_at = time.monotonic()
        else:
            operation.wait = 0.0

    async def _unregister(self, path: Path, resource: str, endpoint: Path) -> None:
        self._actual.pop(path, None)
        await self._handler.deregister(resource, endpoint)

    async def _register(self, path: Path, number: int) -> None:
        async with grpc.aio.insecure_channel(f"unix:{path}", options=CHANNEL_OPTIONS) as channel:
            async with asyncio.timeout(DIAL_TIMEOUT):
                await channel.channel_ready()
            stub = RegistrationStub(channel)
            info = await stub.GetInfo(pb2.InfoRequest(), timeout=1.0)
            refusal = ""
            try:
                await self._take_in(path, number, info)
            except RefusedError as error:
                refusal = f"RegisterPlugin error -- {error}"
            status = pb2.RegistrationStatus(plugin_registered=not refusal, error=refusal)
            await stub.NotifyRegistrationStatus(status, timeout=5.0)
        if refusal:
            raise RefusedError(refusal)

    async def _take_in(self, path: Path, number: int, info: pb2.PluginInfo) -> None:
        if info.type != "DevicePlugin":
            raise RefusedError(f"no handler registered for plugin type: {info.type} at socket {path}")
        endpoint = Path(info.endpoint or path)
        try:
            self._handler.validate(info.name, endpoint, list(info.supported_versions))
        except RefusedError as error:
            raise RefusedError(f"plugin validation failed with err: {error}") from error
        self._actual[path] = number, info.name, endpoint
        try:
            await self._handler.register(info.name, endpoint)
        except RefusedError as error:
            raise RefusedError(f"plugin registration failed with err: {error}") from error


def _identify(path: Path) -> tuple[int, int] | None:
    """Inode and, of a socket, change time (ns); None when it is gone."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        return status.st_ino, 0 if path.is_dir() else status.st_ctime_ns
    return None
