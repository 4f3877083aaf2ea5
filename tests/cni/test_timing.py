"""What is counted of verbs and their steps."""

import threading
from collections.abc import Iterator

import pytest

from cni import timing
from cni.protocol.wire import Request
from cni.timing import BOUNDS, Durations


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Counters of this test's own, and a clock that gives these times one after the other."""
    times: list[float] = []
    monkeypatch.setattr(timing, "requests", Durations())
    monkeypatch.setattr(timing, "steps", Durations())
    monkeypatch.setattr("time.perf_counter", lambda: times.pop(0))
    yield times
    assert times == []


def count(durations: Durations) -> dict[tuple[str, str], tuple[int, float]]:
    """How many, and their sum, of each histogram."""
    return {key: (sum(found.counts), round(found.seconds, 6)) for key, found in durations.read().items()}


def run(verb: str, code: int | None, *marks: str) -> None:
    """A verb with these steps."""
    timing.begin()
    for step in marks:
        timing.mark(step)
    timing.end(verb, code, Request(verb, "c1", "", "net1", "", "", b""))


def test_steps_add_up_to_their_verb(clock: list[float]) -> None:
    """Each step lasts from the mark before it to its own, and what is left is `rest`."""
    clock += [10.0, 10.002, 10.5, 10.75]
    run("ADD", None, "journal", "move and rename")
    assert count(timing.requests) == {("ADD", "ok"): (1, 0.75)}
    assert count(timing.steps) == {
        ("ADD", "journal"): (1, 0.002),
        ("ADD", "move and rename"): (1, 0.498),
        ("ADD", "rest"): (1, 0.25),
    }


def test_outcomes_are_few_words(clock: list[float]) -> None:
    """The code of an error is a label, and one that an IPAM plugin makes up is `other`: labels must not grow."""
    for code in (None, 11, 102, 999, 103, 0, -1, 10**12):
        clock += [1.0, 1.5]
        run("DEL", code)
    outcomes = {outcome: found for (_, outcome), found in count(timing.requests).items()}
    assert outcomes == {"ok": (1, 0.5), "11": (1, 0.5), "102": (1, 0.5), "999": (1, 0.5), "other": (4, 2.0)}


def test_steps_of_failures_and_of_other_verbs_are_not_counted(clock: list[float]) -> None:
    """A failed ADD has the steps of its undoing too, and a GC those of many releases."""
    clock += [1.0, 2.0, 3.0] * 2
    run("ADD", 101, "journal")
    run("GC", None, "journal")
    assert count(timing.steps) == {}
    assert count(timing.requests) == {("ADD", "101"): (1, 2.0), ("GC", "ok"): (1, 2.0)}


def test_a_duration_falls_into_the_first_bucket_that_is_not_too_small() -> None:
    """A bound belongs to its bucket, as Prometheus' `le` has it, and the last bucket takes all that is longer."""
    durations = Durations()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] + 1e-9, BOUNDS[-1], BOUNDS[-1] + 1, 1e6):
        durations.add(("ADD", "ok"), seconds)
    counts = durations.read()["ADD", "ok"].counts
    assert counts == [2, 1, *[0] * (len(BOUNDS) - 3), 1, 2]


def test_what_was_read_does_not_change_any_more() -> None:
    """A reader's copy is its own."""
    durations = Durations()
    durations.add(("ADD", "ok"), 1.0)
    before = durations.read()["ADD", "ok"]
    durations.add(("ADD", "ok"), 1.0)
    assert (sum(before.counts), before.seconds) == (1, 1.0)
    assert sum(durations.read()["ADD", "ok"].counts) == 2


def test_nothing_is_lost_between_threads() -> None:
    """Many verbs end at once while somebody reads: all are counted, and no reader sees half of one."""
    durations, done = Durations(), threading.Event()

    def work() -> None:
        for _ in range(2000):
            durations.add(("ADD", "ok"), 1.0)

    def read() -> None:
        while not done.is_set():
            torn.extend(found for found in durations.read().values() if sum(found.counts) != found.seconds)

    torn: list[timing.Histogram] = []
    reader, workers = threading.Thread(target=read), [threading.Thread(target=work) for _ in range(8)]
    for thread in (reader, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    reader.join()
    assert torn == []
    assert count(durations) == {("ADD", "ok"): (16000, 16000.0)}


def test_a_mark_outside_a_verb_is_nothing() -> None:
    """The agent's recovery runs the same steps, and there is no verb for them."""
    timing.mark("journal")
    assert getattr(timing._running, "marks", None) is None
