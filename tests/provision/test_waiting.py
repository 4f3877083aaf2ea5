"""Work that may hang: reported while it does, and left alone when no caller waits for it any more."""

import asyncio
import threading

import pytest

from sriovdp.provision.waiting import run_aside, run_together, telling


def test_what_takes_long_is_reported_again_and_again() -> None:
    """The thing that is being waited for, and none of those before it."""
    told: list[str] = []
    enough = threading.Event()

    def report(text: str) -> None:
        told.append(text)
        if len(told) == 2:
            enough.set()

    with telling(report, 0.005) as wait:
        wait.begin("first")
        wait.begin("second")
        assert enough.wait(30)
    assert all(text.startswith("second: not done after") for text in told)


def test_what_is_quick_is_not_told() -> None:
    """No patience is lost over it, and its end is not waited for."""
    told: list[str] = []
    with telling(told.append, 3600) as wait:
        wait.begin("first")
    assert told == []


def test_all_run_at_the_same_time_and_their_results_come_back() -> None:
    """Each waits for the others; an error of one is raised when all have ended."""
    barrier = threading.Barrier(3)
    assert run_together(lambda key: (barrier.wait(30), key)[1] * 2, (1, 2, 3)) == {1: 2, 2: 4, 3: 6}
    done: list[int] = []

    def fail(key: int) -> None:
        barrier.wait(30)
        if key == 2:
            raise ValueError("two")
        done.append(key)

    with pytest.raises(ValueError, match="two"):
        run_together(fail, (1, 2, 3))
    assert sorted(done) == [1, 3]


def test_a_stop_does_not_wait_for_what_hangs() -> None:
    """The event loop goes on, a cancelled wait ends, and the thread is none that the process would wait for."""
    hanging, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        assert threading.current_thread().daemon
        hanging.set()
        let_go.wait(30)

    async def run() -> None:
        work = asyncio.create_task(run_aside(hang))
        await asyncio.to_thread(hanging.wait, 30)
        work.cancel()
        await work

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    let_go.set()


def test_work_that_ends_ends_the_wait_and_so_does_its_error() -> None:
    """Which is raised."""
    asyncio.run(run_aside(lambda: None))
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run_aside(lambda: 1 // 0))  # type: ignore[arg-type]
