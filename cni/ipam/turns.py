"""How many calls one IPAM plugin has at once, so that one that hangs keeps only its own networks waiting."""

import threading
import time
from collections import Counter
from threading import Event

from cni.slots import waiting
from sriovdp.errors import BusyError

AT_ONCE, MOST = 16, 64  # calls that run, and that run or wait
_TIMEOUT = 60.0  # seconds
_POLL = 0.2


class Turns:
    """Turns at plugins, by the plugin's name. Safe to use from several threads."""

    def __init__(self, at_once: int = AT_ONCE, most: int = MOST) -> None:
        self._at_once = at_once
        self._most = most
        self._running: Counter[str] = Counter()
        self._all: Counter[str] = Counter()
        self._changed = threading.Condition()

    def take(self, plugin: str, cancelled: Event | None, timeout: float = _TIMEOUT) -> None:
        """Wait for a turn. Raises BusyError when too many wait already, it takes too long, or the caller is gone."""
        with self._changed:
            if self._all[plugin] >= self._most:
                raise _busy(plugin, f"{self._most} calls run or wait")
            self._all[plugin] += 1
            if self._running[plugin] < self._at_once:
                self._running[plugin] += 1
                return
        try:
            with waiting():
                self._wait(plugin, cancelled, timeout)
        except BusyError:
            with self._changed:
                self._all.subtract((plugin,))
                self._all = +self._all
            raise

    def _wait(self, plugin: str, cancelled: Event | None, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._running[plugin] >= self._at_once:
                if time.monotonic() > deadline or (cancelled is not None and cancelled.is_set()):
                    raise _busy(plugin, f"none of {self._at_once} calls ended in time")
                self._changed.wait(_POLL)
            self._running[plugin] += 1

    def give_back(self, plugin: str) -> None:
        """The call is over."""
        with self._changed:
            self._running.subtract((plugin,))
            self._all.subtract((plugin,))
            self._running, self._all = +self._running, +self._all
            self._changed.notify_all()


def _busy(plugin: str, why: str) -> BusyError:
    return BusyError(
        f"IPAM plugin {plugin} is busy: {why}",
        hint="check what it waits for (its server, its log); the call can be repeated",
    )
