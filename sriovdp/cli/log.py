"""How the agent's log looks: one line for each record, and a failure that repeats is logged with growing pauses."""

import logging
import threading
import time
from collections import OrderedDict

from sriovdp.model import escape_unprintable

_KEPT = 1024  # messages that are remembered
_PAUSE, _PAUSE_MAX = 60.0, 3600.0  # seconds until a repeated message is logged again, doubled each time, and at most


class OneLineFormatter(logging.Formatter):
    """One line for each record, so that a log collector keeps message and traceback together, and nothing but text."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with its line breaks as ` | `."""
        lines = (line.strip() for line in super().format(record).splitlines())
        return " | ".join(escape_unprintable(line) for line in lines if line)


class RepeatFilter(logging.Filter):
    """Lets a warning or error through once, counts its repetitions, and logs their number with a later one."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[tuple[str, str], _Repetition] = OrderedDict()
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        if record.levelno < logging.WARNING:
            return True
        said = record.getMessage()
        key = record.name, said
        now = time.monotonic()
        with self._lock:
            found = self._seen.pop(key, None)
            if found is None or now > found.forgotten:
                self._seen[key] = _Repetition(now, _PAUSE)
                while len(self._seen) > _KEPT:
                    self._seen.popitem(last=False)
                return True
            self._seen[key] = found
            found.last, found.count = now, found.count + 1
            if now < found.first + found.pause:
                return False
            count, found.count = found.count, 0
            found.first, found.pause = now, min(found.pause * 2, _PAUSE_MAX)
        record.msg, record.args = f"{said} ({count} times since it was logged last)", ()
        return True


class _Repetition:
    """When a message was logged, for how long it is only counted, and how often it came since."""

    __slots__ = ("count", "first", "last", "pause")

    def __init__(self, now: float, pause: float) -> None:
        self.first = self.last = now
        self.pause = pause
        self.count = 0

    @property
    def forgotten(self) -> float:
        """When it counts as new again: it was gone for long enough."""
        return self.last + _PAUSE_MAX
