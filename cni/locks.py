"""Locks by name, so that one VF has one owner at a time and other VFs are not held up."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cni.spec import TRY_AGAIN
from sriovdp.errors import CniError

_TIMEOUT = 60.0  # seconds


class Locks:
    """Locks that come into being when they are asked for. There are as many as VFs, so none is ever dropped."""

    def __init__(self, timeout: float = _TIMEOUT) -> None:
        self._timeout = timeout
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold the lock of that name. Raises CniError "try again later" when it can not be had in time."""
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
        if not lock.acquire(timeout=self._timeout):
            raise CniError(TRY_AGAIN, f"another request works on {name} and did not end within {self._timeout:.0f} s")
        try:
            yield
        finally:
            lock.release()
