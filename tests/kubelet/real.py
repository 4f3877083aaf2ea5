"""The kubelet's own plugin manager and device manager, as a process that takes commands (`managers/main.go`)."""

import asyncio
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from setup.steps import CHECKOUT
from sriovdp.model import DeviceNode, Mount
from tests.fakes.event_log import EventLog
from tests.fakes.kubelet import Admission, AdmissionError

PROGRAM = CHECKOUT / "build/cluster/kubelet-managers"


class RealKubelet:
    """Both managers below `kubelet_dir`, running while the context is entered. As `tests.fakes.kubelet.Kubelet`."""

    def __init__(self, kubelet_dir: Path) -> None:
        self.log = EventLog()
        self.registrations: list[str] = []
        self._root = kubelet_dir
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pods: set[str] = set()
        self._devices: defaultdict[str, dict[bool, list[str]]] = defaultdict(lambda: {True: [], False: []})
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it; its checkpoint says which pod has what."""
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM, f"-root={self._root}", f"-pods={','.join(sorted(self._pods))}",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read(self._process))
        while not await asyncio.to_thread((self._root / "plugins_registry").is_dir):  # noqa: ASYNC110 - nothing would say so
            await asyncio.sleep(0.01)
        await self._order(do="state")

    async def stop(self) -> None:
        """End it as SIGKILL ends a kubelet."""
        if self._process and self._reader:
            self._process.kill()
            await self._process.wait()
            await self._reader
            self._process = None

    async def restart(self) -> None:
        """Restart: streams break, device-plugins/ is wiped and its socket made again. Pods and their devices stay."""
        await self.stop()
        await self.start()

    async def refuse(self, text: str, *, times: int = 1) -> None:
        """Refuse the next registrations, with this text."""
        await self._order(do="refuse", text=text, times=times)

    async def admit(self, pod: str, wants: Mapping[str, int]) -> Admission:
        """Give a pod devices and start its container. Raises AdmissionError, the pod then has nothing."""
        given = (await self._order(do="admit", pod=pod, wants=dict(wants)))["given"]
        self._pods.add(pod)
        try:
            options = (await self._order(do="start", pod=pod))["options"]
        except AdmissionError:
            await self.remove(pod)
            raise
        return Admission(given, *_read_options(options))

    async def remove(self, pod: str) -> None:
        """Free a pod's devices."""
        self._pods.remove(pod)
        await self._order(do="remove", pod=pod)

    async def allocate(self, resource: str, ids: Sequence[str]) -> None:
        """Ask the plugin for exactly these devices, whatever the book says. Raises AdmissionError when refused."""
        await self._order(do="allocate", resource=resource, ids=list(ids))

    async def wait_for(self, resource: str, *, count: int, healthy: bool = True, within: float = 60.0) -> list[str]:
        """Wait until exactly `count` devices are healthy (or unhealthy); their IDs, sorted. Raises TimeoutError."""
        await self._wait(lambda: len(self._devices[resource][healthy]) == count, f"{count} devices", within)
        return self._devices[resource][healthy]

    async def wait_for_step(self, step: str, *, times: int = 1, within: float = 60.0) -> None:
        """Wait until a step was taken down that often. Raises TimeoutError."""
        await self._wait(lambda: sum(one.startswith(step) for one in self.log.steps) >= times, step, within)

    async def _wait(self, done: Callable[[], bool], wanted: str, within: float) -> None:
        try:
            async with asyncio.timeout(within), self._changed:
                await self._changed.wait_for(done)
        except TimeoutError:
            raise TimeoutError(f"waited for {wanted}; {self.log.steps}, {dict(self._devices)}") from None

    async def _order(self, **order: object) -> dict[str, Any]:
        assert self._process
        assert self._process.stdin
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": number, **order}).encode() + b"\n")
        answer = await self._answers[number]
        if answer["error"]:
            raise AdmissionError(answer["error"])
        return answer

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        async for line in process.stdout:
            event = json.loads(line)
            async with self._changed:
                if event["event"] == "answer":
                    self._answers[event["id"]].set_result(event)
                else:
                    self._take(event)
                self._changed.notify_all()
        async with self._changed:
            for devices in self._devices.values():
                devices[True], devices[False] = [], sorted(devices[True] + devices[False])
            self._changed.notify_all()

    def _take(self, event: dict[str, Any]) -> None:
        kind, resource = event["event"], event.get("resource", "")
        if kind == "devices":
            self._devices[resource] = {True: event["healthy"], False: event["unhealthy"]}
            self.log.add_list(event["healthy"], event["unhealthy"])
        elif kind == "disconnected":
            all_devices = sorted(self._devices[resource][True] + self._devices[resource][False])
            self._devices[resource] = {True: [], False: all_devices}
            self.log.add(kind)
        elif kind == "connected" and not event.get("error"):
            self.log.add(kind)
        elif kind in {"registered", "refused", "invalid", "deregistered"}:
            self.log.add(kind, event["endpoint"], event.get("error", ""))
            self.registrations += [resource] if kind == "registered" else []


def _read_options(options: Mapping[str, Any]) -> tuple[dict[str, str], list[DeviceNode], list[Mount], list[str]]:
    """Environment, device nodes, mounts and CDI devices out of the kubelet's DeviceRunContainerOptions."""
    nodes = options["Devices"] or ()
    return (
        {one["Name"]: one["Value"] for one in options["Envs"] or ()},
        [DeviceNode(one["PathOnHost"], one["PathInContainer"], one["Permissions"]) for one in nodes],
        [Mount(one["HostPath"], one["ContainerPath"], one["ReadOnly"]) for one in options["Mounts"] or ()],
        [one["Name"] for one in options["CDIDevices"] or ()],
    )
