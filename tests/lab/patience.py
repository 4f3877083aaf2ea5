"""How long a guest may take: in its own time, without what other programs had of the processors.

Outside, `OwnTime` measures it, and the machine hands it to its guest as a file; inside, `own_time` reads it.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

OWN_TIME = "own-time"  # in the result folder
_INSIDE = Path("/run/lab/result") / OWN_TIME
_WINDOW = 2.0  # seconds between two looks
# below this share of a processor the guest sleeps, and its sleep is as long as anybody's; above, it computes, and only
# what it computed counts. A starved guest still gets more: its fair share of the processors
_ASLEEP = 0.05
_STRETCH = 5.0  # a guest that works now and then and never ends is given up after so many times its limit


class OwnTime:
    """Seconds of a machine's own time. `cpu_seconds` gives the CPU time that the machine has used so far."""

    def __init__(self, cpu_seconds: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        """Start now."""
        self._cpu_seconds = cpu_seconds
        self._clock = clock
        self._looked = clock()
        self._used = cpu_seconds()
        self._own = 0.0

    def read(self) -> float:
        """Seconds since the start. To be asked again and again."""
        now = self._clock()
        passed = now - self._looked
        if passed >= _WINDOW:
            used = self._cpu_seconds()
            computed = used - self._used
            self._own += passed if computed < _ASLEEP * passed else min(computed, passed)
            self._looked, self._used = now, used
        return self._own


class Patience:
    """A limit of `limit` seconds of a machine's own time, and of _STRETCH times that on the clock."""

    def __init__(
        self, limit: float, cpu_seconds: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start now. `cpu_seconds` gives the CPU time that the machine has used so far."""
        self._limit = limit
        self._own = OwnTime(cpu_seconds, clock)
        self._clock = clock
        self._start = clock()

    def is_over(self) -> bool:
        """Whether the machine had its time. To be asked again and again."""
        return self._own.read() > self._limit or self._clock() - self._start > _STRETCH * self._limit


def read_cpu_seconds(pid: int) -> float:
    """CPU time that a process has used. Raises OSError when it has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime, proc(5)


def own_time(path: Path = _INSIDE) -> float:
    """Seconds that pass as fast as this guest can run: waits in a guest are measured by them. Elsewhere the clock."""
    try:
        return float(path.read_text())
    except FileNotFoundError:
        return time.monotonic()
