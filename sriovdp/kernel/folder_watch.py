"""Noticing at once what happens in folders, by inotify(7)."""

import asyncio
import ctypes
import errno
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

# sys/inotify.h
_IN_CLOSE_WRITE = 0x8
_IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE = 0x40, 0x80, 0x100, 0x200
_IN_DELETE_SELF, _IN_MOVE_SELF, _IN_ONLYDIR = 0x400, 0x800, 0x1000000
_MASK = _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_BUFFER = 65536  # bytes; what they say does not matter, only that something happened

_libc = ctypes.CDLL(None, use_errno=True)


class FolderWatch:
    """Sets the events of its subscribers whenever an entry of one of the folders comes or goes.

    With `written`, also when a file in one of them was written and closed. `folders` are asked for again after each
    change, as what they are may change with it. A folder that is not there is watched from when it comes, if the one
    above it is watched too. Where the kernel has no inotify instance left there are no events: the subscriber has to
    look by itself now and then in any case.
    """

    def __init__(self, folders: Callable[[], Sequence[Path]], *, written: bool = False) -> None:
        self._folders = folders
        self._mask = _MASK | (_IN_CLOSE_WRITE if written else 0)
        self._subscribers: list[asyncio.Event] = []
        self._descriptor: int | None = None
        self._watched: frozenset[Path] = frozenset()
        self._wanted: Sequence[Path] = ()
        self._refused: set[Path] = set()  # logged already

    @property
    def is_complete(self) -> bool:
        """Whether the kernel reports each change: every folder is watched, or the one in which it would appear is."""
        return self._descriptor is not None and all(not self._watched.isdisjoint({f, f.parent}) for f in self._wanted)

    def subscribe(self) -> asyncio.Event:
        """An event that is set from now on at each change; the subscriber clears it."""
        event = asyncio.Event()
        self._subscribers.append(event)
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        """Set an event of `subscribe` no longer."""
        self._subscribers.remove(event)

    def start(self) -> None:
        """Watch, on the running loop, until `stop`."""
        descriptor = _libc.inotify_init1(_NONBLOCK_CLOEXEC)
        if descriptor < 0:
            reason = os.strerror(ctypes.get_errno())
            logger.warning("no inotify (%s), changes are seen later: raise fs.inotify.max_user_instances", reason)
            return
        self._descriptor = descriptor
        self.watch_again()
        asyncio.get_running_loop().add_reader(descriptor, self._read, descriptor)

    def stop(self) -> None:
        """Watch no longer. A second stop has nothing to do."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def watch_again(self) -> None:
        """Watch each folder that is there; one that is watched already stays so. For what came without an event."""
        if self._descriptor is not None:
            self._wanted = self._folders()
            self._watched = frozenset(folder for folder in self._wanted if self._add(self._descriptor, folder))

    def _add(self, descriptor: int, folder: Path) -> bool:
        if _libc.inotify_add_watch(descriptor, os.fsencode(folder), self._mask) >= 0:
            return True
        number = ctypes.get_errno()
        if number not in {errno.ENOENT, errno.ENOTDIR} and folder not in self._refused:
            self._refused.add(folder)
            logger.warning("cannot watch %s: %s", folder, os.strerror(number))
        return False

    def _read(self, descriptor: int) -> None:
        try:
            os.read(descriptor, _BUFFER)
        except BlockingIOError:
            return
        self.watch_again()  # one of them may be new
        for event in self._subscribers:
            event.set()
