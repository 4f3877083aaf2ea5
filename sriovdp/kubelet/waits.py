"""How long to wait between attempts."""

import random

_FIRST, _LONGEST, _JITTER = 1.0, 60.0, 0.2  # seconds, seconds, part of the wait


class Waits:
    """Waits that double from one second to one minute, less up to a fifth, so that pools and nodes fall out of step."""

    def __init__(self) -> None:
        self._next = _FIRST
        self.current = 0.0
        """The wait before the next attempt, in seconds."""
        self.grow()

    def grow(self) -> None:
        """Make the next wait longer."""
        self.current = self._next * random.uniform(1 - _JITTER, 1)  # noqa: S311 - no secret
        self._next = min(2 * self._next, _LONGEST)

    def reset(self) -> None:
        """Begin from the first wait again."""
        self._next = _FIRST
        self.grow()
