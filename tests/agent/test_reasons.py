"""The queue of reasons to look at the node, by a clock of its own."""

import asyncio

import pytest

from sriovdp.reasons import REGULAR, Pace, Reasons


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds now."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands."""
    return Clock()


def run(clock: Clock, reasons: Reasons, times: list[float]) -> list[float]:
    """Note a reason at each of these times, after the clock's now, and look whenever it is due; gives when that was."""
    start, looks = clock.now, []
    ahead = sorted(times)
    while True:
        delay = reasons.delay()
        due = None if delay is None else clock.now + delay
        if ahead and (due is None or start + ahead[0] <= due):
            clock.now = max(clock.now, start + ahead.pop(0))
            reasons.note("an event")
        elif due is not None:
            clock.now = due
            reasons.take()
            looks.append(round(due - start, 3))
        else:
            return looks


def test_a_swarm_costs_one_look(clock: Clock) -> None:
    """Five hundred uevents within a tenth of a second, as 250 VFs bring them: one look, once they are all here."""
    assert run(clock, Reasons(clock), [number * 0.0002 for number in range(500)]) == [0.2]


def test_a_storm_that_does_not_end_is_looked_at_now_and_then(clock: Clock) -> None:
    """Each second at first, and then one in three: it neither starves the look nor floods it."""
    looks = run(clock, Reasons(clock), [number * 0.02 for number in range(3000)])
    assert looks[:3] == [1.0, 2.02, 3.04]
    assert 20 <= len(looks) <= 35
    assert looks[-1] >= 59.98


def test_a_single_event_is_followed_at_once(clock: Clock) -> None:
    """Also the one after it."""
    assert run(clock, Reasons(clock), [0.0, 10.0]) == [0.1, 10.1]


def test_what_is_not_urgent_waits_and_comes_along(clock: Clock) -> None:
    """Many of them are one look, and an urgent one takes them with it."""
    reasons = Reasons(clock)
    for _ in range(3):
        reasons.note("CNI ADD", 5.0)
        clock.now += 1
    assert reasons.delay() == pytest.approx(2.0)
    reasons.note("uevent remove pci 0000:01:00.0")
    assert reasons.delay() == pytest.approx(0.1)
    assert reasons.take() == "CNI ADD, uevent remove pci 0000:01:00.0, and 2 more"
    assert reasons.delay() is None
    assert reasons.take() == REGULAR


def test_regular_looks_leave_the_pace_alone(clock: Clock) -> None:
    """However many there were, the next event is followed at once."""
    reasons = Reasons(clock)
    for _ in range(100):
        reasons.take()
    reasons.note("an event")
    assert reasons.delay() == pytest.approx(0.1)


def test_few_reasons_are_followed_at_once_and_a_flapping_link_is_not(clock: Clock) -> None:
    """A link that flaps for a day causes as many looks as a day has pauses."""
    pace = Pace(burst=3, pause=2.0, clock=clock)
    delays = []
    for _ in range(4):
        delays.append(pace.delay())
        pace.take()
    assert delays[:3] == [0, 0, 0]
    assert delays[3] == pytest.approx(2.0)
    clock.now += 3600
    assert pace.delay() == 0


async def test_waiting_ends_with_a_reason_or_the_interval() -> None:
    """By the real clock, and without a reason it is a regular look."""
    reasons = Reasons()
    assert await reasons.wait(0.01) == REGULAR
    asyncio.get_running_loop().call_later(0.01, reasons.note, "an event")
    assert await reasons.wait(3600) == "an event"
