"""Locks by name, so that one VF has one owner at a time and other VFs are not held up.

A lock counts in this process and, by `flock`, among all processes that use the same folder; the kernel drops it when a
process dies. A VF's lock has its PCI address as its name.
"""

import fcntl
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from sriovdp.errors import BusyError, JournalError

TIMEOUT = 60.0  # seconds
_POLL = 0.01


class Locks:
    """The locks of one folder, which come into being when they are asked for, and go with their last user.

    `waiting` is entered as long as a thread waits for a lock, so that it can give up what others need meanwhile.
    """

    def __init__(self, folder: Path, waiting: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._folder = folder
        self._waiting = waiting
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._users: Counter[str] = Counter()

    @contextmanager
    def hold(self, name: str, timeout: float = TIMEOUT) -> Iterator[None]:
        """Hold the lock of that name.

        Raises BusyError when it cannot be had within so many seconds, JournalError when the folder cannot be written.
        """
        deadline = time.monotonic() + timeout
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
            self._users[name] += 1
        try:
            self._acquire(lock, name, deadline, timeout)
            try:
                with self._hold_file(name, deadline, timeout):
                    yield
            finally:
                lock.release()
        finally:
            with self._guard:
                self._users[name] -= 1
                if not self._users[name]:
                    del self._users[name], self._locks[name]

    def _acquire(self, lock: threading.Lock, name: str, deadline: float, timeout: float) -> None:
        if lock.acquire(blocking=False):
            return
        with self._waiting():
            if not lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise _busy(name, timeout)

    @contextmanager
    def _hold_file(self, name: str, deadline: float, timeout: float) -> Iterator[None]:
        path = f"{self._folder}/{name[:200]}.lock"
        lock = _try_lock(path)
        if lock is None:
            with self._waiting():
                lock = _wait_for_lock(path, name, deadline, timeout)
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - pathlib costs more than the system call, here and below
            os.close(lock)


def _wait_for_lock(path: str, name: str, deadline: float, timeout: float) -> int:
    while time.monotonic() < deadline:
        time.sleep(_POLL)
        if (lock := _try_lock(path)) is not None:
            return lock
    raise _busy(name, timeout)


def _try_lock(path: str) -> int | None:
    """The locked file's descriptor; None when somebody else has it."""
    try:
        descriptor = _open(path)
    except OSError as error:
        raise JournalError(
            f"locking {path} failed: {error.strerror}", hint="make room on that disk, or mount it writable"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # its holder before removed the file: the lock that counts is the one of the file at that path
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:  # noqa: PTH116
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _open(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, flags, 0o600)


def _busy(name: str, timeout: float) -> BusyError:
    return BusyError(
        f"another request works on {name} and did not end within {timeout:.0f} s", hint="the call can be repeated"
    )
