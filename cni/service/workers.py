"""Threads for the requests of launchers: one each, as one that waits must keep no other."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from cni.protocol.wire import REPORT
from cni.slots import Slots
from sriovdp.errors import BusyError

_AT_ONCE = 16  # that compute and change things
_PROBES = frozenset({"STATUS", "VERSION", REPORT})  # which change nothing, and are answered whatever the others do


class Workers:
    """At most `most` requests, of which a quarter is kept for probes. Safe to use from several threads."""

    def __init__(self, most: int) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="cni")
        self._slots = Slots(_AT_ONCE)
        self._most = most - most // 4
        self._running = 0
        self._lock = threading.Lock()

    def submit(self, command: str, work: Callable[[], None]) -> Future[None]:
        """Do the work of a verb. Raises BusyError when too many are at work."""
        if command in _PROBES:
            return self._pool.submit(work)
        with self._lock:
            if self._running >= self._most:
                raise BusyError(
                    f"{self._most} CNI requests are at work", hint="check what they wait for; the call can be repeated"
                )
            self._running += 1
        job = self._pool.submit(self._run, work)
        job.add_done_callback(self._note_end)
        return job

    def shutdown(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, work: Callable[[], None]) -> None:
        with self._slots.hold():
            work()

    def _note_end(self, _: Future[None]) -> None:
        with self._lock:
            self._running -= 1
