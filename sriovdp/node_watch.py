"""What asks for a look at the node: the kernel's events, device nodes, the spool, the agent's own work."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from sriovdp.config.values import Pool
from sriovdp.kernel.events import KernelEvents
from sriovdp.kernel.folder_watch import FolderWatch
from sriovdp.model import Node
from sriovdp.reasons import Reasons

SOON = 5.0
"""Seconds within which a look comes for what is not urgent, or what no event ends."""


def list_folders(pools: Sequence[Pool], dev: Path, state: Path) -> list[Path]:
    """Folders where device nodes of pools, and requests of launchers, come and go."""
    nodes = {"/dev/", "/dev/vfio/", "/dev/infiniband/"}
    nodes |= {node.host_path for pool in pools for node in pool.device_nodes}
    folders = {dev / node.removeprefix("/dev/").rpartition("/")[0] for node in nodes}
    return [*sorted(folders), state, state / "spool"]


class NodeWatch:
    """Waits for reasons to look at the node. To be started once, and stopped once.

    `list_folders` gives folders in which each entry that comes or goes is a reason. `interval` is in seconds: how often
    the node is looked at when there is no reason.
    """

    def __init__(self, list_folders: Callable[[], Sequence[Path]], interval: float) -> None:
        self.interval = interval
        self._reasons = Reasons()
        self._events = KernelEvents(self._reasons.note)
        self._folders = FolderWatch(list_folders)
        self._folder_changed = self._folders.subscribe()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Listen, on the running loop, until `stop`."""
        self._loop = asyncio.get_running_loop()
        self._folders.start()
        self._task = asyncio.create_task(self._follow_folders())
        await self._events.start()

    def stop(self) -> None:
        """Listen no longer. A second stop has nothing to do."""
        self._events.stop()
        self._folders.stop()
        if self._task is not None:
            self._task.cancel()

    async def _follow_folders(self) -> None:
        while True:
            await self._folder_changed.wait()
            self._folder_changed.clear()
            self._reasons.note("a device node or a spooled request came or went")

    def note(self, reason: str, within: float = 0.0) -> None:
        """Ask for a look, as `Reasons.note`, from any thread. Before the start it has no effect."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._reasons.note, reason, within)

    def follow(self, node: Node) -> None:
        """Take over which PFs and VFs there are."""
        links = {pf.netdev.ifindex for pf in node.pfs if pf.netdev}
        if not links <= set(self._events.links):  # what happened to them during the look was not listened to
            self._reasons.note("there are new links", SOON)
        self._events.links = links
        self._events.vfs = {vf.address for _, vf in node.vfs()}
        self._folders.watch_again()

    async def wait(self, *, restless: bool) -> str:
        """Wait until the node is to be looked at; gives why.

        `restless` says that something is open which no event ends: the next look comes soon in any case. So it does
        where the kernel does not report what happens.
        """
        is_blind = restless or not (self._events.is_listening and self._folders.is_complete)
        return await self._reasons.wait(min(SOON, self.interval) if is_blind else self.interval)
