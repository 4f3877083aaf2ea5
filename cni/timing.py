"""Where the time of a verb goes: a mark after each step, in the thread that runs the verb.

At the verb's end the debug log has it, and histograms of this process count it.
"""

import itertools
import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cni.protocol.spec import INTERNAL, IPAM_FAILURE
from cni.protocol.wire import Request

logger = logging.getLogger(__name__)

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms' buckets, in seconds; one more bucket takes what is longer."""

_STEPPED = ("ADD", "DEL")

_running = threading.local()


@dataclass(slots=True)
class Histogram:
    """How many durations fell into each bucket, and the sum of all in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0


class Durations:
    """Histograms, each known by two words. Safe to use from several threads."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Histogram] = {}
        self._lock = threading.Lock()

    def add(self, key: tuple[str, str], seconds: float) -> None:
        """Count one."""
        with self._lock:
            histogram = self._found.get(key)
            if histogram is None:
                histogram = self._found[key] = Histogram()
            histogram.counts[bisect_left(BOUNDS, seconds)] += 1
            histogram.seconds += seconds

    def read(self) -> Mapping[tuple[str, str], Histogram]:
        """What was counted until now, as copies."""
        with self._lock:
            return {key: replace(found, counts=list(found.counts)) for key, found in self._found.items()}


requests = Durations()
"""Whole verbs, by verb and outcome: `ok`, or the error's code, or `other` for one that only an IPAM plugin knows."""

steps = Durations()
"""Steps of ADD and DEL that succeeded, by verb and step; what is no step of its own is `rest`."""


def begin() -> None:
    """Start the clock of this thread's verb."""
    _running.marks = [("", time.perf_counter())]


def mark(step: str) -> None:
    """Say that a step is done. Costs less than a microsecond, and nothing is kept outside a verb."""
    marks = getattr(_running, "marks", None)
    if marks is not None:
        marks.append((step, time.perf_counter()))


def end(verb: str, code: int | None, request: Request) -> None:
    """Stop the clock, and count and log the whole time and that of each step. `code` is the error's, None for none."""
    marks, _running.marks = _running.marks, None
    marks.append(("rest", time.perf_counter()))
    whole = marks[-1][1] - marks[0][1]
    requests.add((verb, _name_outcome(code)), whole)
    if code is None and verb in _STEPPED:  # a failed one has the steps of its undoing too
        for (_, before), (step, now) in itertools.pairwise(marks):
            steps.add((verb, step), now - before)
    if logger.isEnabledFor(logging.DEBUG):
        listed = [f"{step} {(now - before) * 1000:.2f}" for (_, before), (step, now) in itertools.pairwise(marks)]
        logger.debug("%s: %s took %.2f ms: %s", request.caller, verb, whole * 1000, ", ".join(listed))


def _name_outcome(code: int | None) -> str:
    """A word out of few: the code that an IPAM plugin makes up is any number."""
    if code is None:
        return "ok"
    return f"{code:d}" if 0 < code <= IPAM_FAILURE or code == INTERNAL else "other"
