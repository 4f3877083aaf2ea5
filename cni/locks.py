"""Locks by name, so that one VF has one owner at a time and other VFs are not held up."""

import fcntl
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cni.protocol.spec import TRY_AGAIN
from sriovdp.errors import CniError, JournalError

TIMEOUT = 60.0  # seconds
_POLL = 0.01


class Locks:
    """Locks within this process, which come into being when they are asked for, and go with their last user."""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._users: Counter[str] = Counter()

    @contextmanager
    def hold(self, name: str, timeout: float | None = None) -> Iterator[None]:
        """Hold the lock of that name. Raises CniError "try again later" when it can not be had in time."""
        timeout = self._timeout if timeout is None else timeout
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
            self._users[name] += 1
        try:
            if not lock.acquire(timeout=timeout):
                raise _busy(name, timeout)
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                self._users[name] -= 1
                if not self._users[name]:
                    del self._users[name], self._locks[name]


@contextmanager
def hold_file(folder: Path, name: str, timeout: float = TIMEOUT) -> Iterator[None]:
    """Hold the lock of that name among all processes that use the folder; the kernel drops it when a process dies.

    Raises CniError "try again later" when it can not be had in time, JournalError when the folder can not be written.
    """
    path = f"{folder}/{name[:200]}.lock"
    deadline = time.monotonic() + timeout
    while (lock := _try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise _busy(name, timeout)
        time.sleep(_POLL)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - pathlib costs more than the system call, here and below
        os.close(lock)


def _try_lock(path: str) -> int | None:
    """The locked file's descriptor; None when somebody else has it."""
    try:
        descriptor = _open(path)
    except OSError as error:
        raise JournalError(f"locking {path} failed: {error.strerror}", hint="make that folder writable") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # whoever had it before removed the file: the lock that counts is the one of the file at that path
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


def _busy(name: str, timeout: float) -> CniError:
    return CniError(TRY_AGAIN, f"another request works on {name} and did not end within {timeout:.0f} s")
