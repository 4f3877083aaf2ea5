"""Work that may hang: reported while it does, and left alone when no caller waits for it any more."""

import asyncio
import threading
import time

import pytest

from sriovdp.provision.waiting import Wait, report_waits, run_aside, run_together, watch_wait


def test_what_takes_long_is_reported_again_and_again() -> None:
    """The thing that is being waited for, and none of those before it."""
    reported: list[str] = []
    enough = threading.Event()

    def report(text: str) -> None:
        reported.append(text)
        if len(reported) == 2:
            enough.set()

    with report_waits(report, 0.005) as wait:
        wait.begin("first")
        wait.begin("second")
        assert enough.wait(30)
    assert all(text.startswith("second: not done after") for text in reported)


def test_what_is_quick_is_not_reported() -> None:
    """No patience is lost over it, and its end is not waited for."""
    reported: list[str] = []
    with report_waits(reported.append, 3600) as wait:
        wait.begin("first")
    assert reported == []


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


def test_a_wait_is_reported_as_soon_as_it_has_lasted(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 10 s and each further 10 s from its own beginning, with the reason where there is one."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    wait = Wait()
    seen: list[tuple[float, str]] = []

    class Done(threading.Event):
        """Ends the watch at second 38; at second 3 a step begins, at 5 the kernel says why it lasts, at 27 another."""

        def wait(self, timeout: float | None = None) -> bool:
            before = clock[0]
            clock[0] += timeout or 0.0
            if before < 3 <= clock[0]:
                clock[0] = 3.0
                wait.begin("eth0 VF 3: set trust on")
                wait.explain("Device or resource busy")
            elif before < 27 <= clock[0]:
                clock[0] = 27.0
                wait.begin("eth0: create 4 VFs")
            return clock[0] >= 38

    watch_wait(lambda text: seen.append((clock[0], text)), 10.0, wait, Done())
    busy = "eth0 VF 3: set trust on: not done after {} s; Device or resource busy"
    assert seen[:2] == [(13.0, busy.format(10)), (23.0, busy.format(20))]
    assert [(when, text[:40]) for when, text in seen[2:]] == [(37.0, "eth0: create 4 VFs: not done after 10 s;")]
