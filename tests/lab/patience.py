"""How long a guest may take for a test: in its own time, without what other programs had of the processors."""

import time
from collections.abc import Callable

_WINDOW = 2.0  # seconds between two looks
# below this share of a processor the guest sleeps, and its sleep is as long as anybody's; above, it computes, and only
# what it computed counts. A starved guest still gets more: its fair share of the processors
_ASLEEP = 0.05
_STRETCH = 5.0  # a guest that works now and then and never ends is given up after so many times its limit


class Patience:
    """A limit of `limit` seconds of a machine's own time, and of _STRETCH times that on the clock."""

    def __init__(
        self, limit: float, cpu_seconds: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start now. `cpu_seconds` gives the CPU time that the machine has used so far."""
        self._limit = limit
        self._cpu_seconds = cpu_seconds
        self._clock = clock
        self._start = self._looked = clock()
        self._used = cpu_seconds()
        self._own = 0.0

    def is_over(self) -> bool:
        """Whether the machine had its time. To be asked again and again."""
        now = self._clock()
        passed = now - self._looked
        if passed >= _WINDOW:
            used = self._cpu_seconds()
            computed = used - self._used
            self._own += passed if computed < _ASLEEP * passed else min(computed, passed)
            self._looked, self._used = now, used
        return self._own > self._limit or now - self._start > _STRETCH * self._limit
