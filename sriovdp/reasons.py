"""Why the node is to be looked at: one queue of reasons, so that a swarm of them costs one look.

The kernel's events, device nodes, finished CNI requests and all else that may have changed something only say that
there is a reason; what is so is seen by the look.
"""

import asyncio
import time
from collections.abc import Callable

REGULAR = "it is time for a regular look"

_SETTLE, _BOUND = 0.1, 1.0  # seconds of quiet that a look waits for, and seconds after which it comes in any case
_BURST, _PAUSE = 10, 3.0  # looks that may follow each other at once, and seconds after which there may be one more
_SHOWN = 3  # reasons that are named


class Pace:
    """How soon a reason may be followed by a look at the node: at once, as long as there are few of them.

    A link that flaps, or a storm of uevents, causes `burst` looks, and then one in `pause` seconds.
    """

    def __init__(self, burst: int = _BURST, pause: float = _PAUSE, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._pause = pause
        self._clock = clock
        self._left = float(burst)
        self._at = clock()

    def take(self) -> None:
        """Count one look."""
        self._fill()
        self._left -= 1

    def delay(self) -> float:
        """Seconds from now until there may be a look."""
        self._fill()
        return max(0.0, (1 - self._left) * self._pause)

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) / self._pause)
        self._at = now


class Reasons:
    """The reasons since the last look. To be used on the running loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, pace: Pace | None = None) -> None:
        self._clock = clock
        self._pace = pace or Pace(clock=clock)
        self._noted: dict[str, None] = {}
        self._count = 0
        self._soonest: float | None = None  # by when the first reason that must not wait longer wants its look
        self._quiet_at: float | None = None  # when there was no urgent reason for long enough
        self._event = asyncio.Event()

    def note(self, reason: str, within: float = 0.0) -> None:
        """Ask for a look: as soon as no more reasons come, or, for what is not urgent, `within` so many seconds."""
        now = self._clock()
        self._count += 1
        if len(self._noted) < _SHOWN:
            self._noted[reason] = None
        if not within:
            self._quiet_at = now + _SETTLE
        limit = now + (within or _BOUND)
        self._soonest = limit if self._soonest is None else min(self._soonest, limit)
        self._event.set()

    def delay(self) -> float | None:
        """Seconds from now until the next look is due, None when there is no reason for one."""
        if self._soonest is None:
            return None
        due = self._soonest if self._quiet_at is None else min(self._soonest, self._quiet_at)
        return max(0.0, due - self._clock(), self._pace.delay())

    def take(self) -> str:
        """Give the reasons as text and forget them: the look begins now, and what comes from now on asks for another.

        A regular look has no reason, and is not counted by the pace.
        """
        if not self._count:
            return REGULAR
        self._pace.take()
        more = self._count - len(self._noted)
        text = ", ".join(self._noted) + (f", and {more} more" if more else "")
        self._noted, self._count = {}, 0
        self._soonest = self._quiet_at = None
        return text

    async def wait(self, interval: float) -> str:
        """Wait until a look is due, for `interval` seconds at most; gives why it is."""
        end = self._clock() + interval
        while True:
            self._event.clear()
            delay = self.delay()
            left = end - self._clock()
            if delay == 0 or left <= 0:
                return self.take()
            try:
                async with asyncio.timeout(left if delay is None else min(delay, left)):
                    await self._event.wait()
            except TimeoutError:
                pass
