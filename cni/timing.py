"""Where the time of a verb goes, for the debug log: a mark after each step, in the thread that runs the verb."""

import itertools
import logging
import threading
import time

logger = logging.getLogger(__name__)

_running = threading.local()


def begin() -> None:
    """Start the clock of this thread's verb."""
    _running.marks = [("", time.perf_counter())]


def mark(step: str) -> None:
    """Say that a step is done. Costs less than a microsecond, and nothing is kept outside a verb."""
    marks = getattr(_running, "marks", None)
    if marks is not None:
        marks.append((step, time.perf_counter()))


def end(verb: str) -> None:
    """Stop the clock, and tell the whole time and that of each step, in ms, in their order."""
    marks, _running.marks = _running.marks, None
    if logger.isEnabledFor(logging.DEBUG):
        marks.append(("rest", time.perf_counter()))
        steps = [f"{step} {(now - before) * 1000:.2f}" for (_, before), (step, now) in itertools.pairwise(marks)]
        logger.debug("%s took %.2f ms: %s", verb, (marks[-1][1] - marks[0][1]) * 1000, ", ".join(steps))
