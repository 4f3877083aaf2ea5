"""Work that may hang in the kernel, where nothing can interrupt it: reported while it lasts, left alone at the end."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Report = Callable[[str], None]

K = TypeVar("K")
V = TypeVar("V")


_HANGS = "a call that hangs in the kernel cannot be interrupted, see the kernel log (dmesg) for the reason"


@dataclass
class Wait:
    """What is being waited for just now, since when (time.monotonic), and why as far as that is known."""

    now: tuple[str, float] = field(default_factory=lambda: ("", time.monotonic()))
    reason: str = ""

    def begin(self, what: str) -> None:
        """From here on it is for this."""
        self.reason = ""
        self.now = what, time.monotonic()

    def explain(self, reason: str) -> None:
        """Why that lasts."""
        self.reason = reason


@contextmanager
def report_waits(report: Report, patience: float) -> Iterator[Wait]:
    """Report what is still being waited for, when that has taken `patience` seconds, twice as many, and so on."""
    wait, done = Wait(), threading.Event()
    thread = threading.Thread(target=watch_wait, args=(report, patience, wait, done), daemon=True)
    thread.start()
    try:
        yield wait
    finally:
        done.set()
        thread.join()


def watch_wait(report: Report, patience: float, wait: Wait, done: threading.Event) -> None:
    """Report that wait until `done`, as `report_waits`."""
    seen, count = wait.now, 1
    while not done.wait(max(0.0, seen[1] + count * patience - time.monotonic())):
        if wait.now != seen:
            seen, count = wait.now, 1
            continue
        if seen[0]:
            report(f"{seen[0]}: not done after {count * patience:.0f} s; {wait.reason or _HANGS}")
        count += 1


def run_together(function: Callable[[K], V], keys: Iterable[K]) -> Mapping[K, V]:
    """Call a function for each key at the same time, and give all results. Raises what a call raises.

    A call that hangs does not keep the process from ending, as it would in a pool of threads.
    """
    results: dict[K, V] = {}
    errors: list[BaseException] = []

    def call(key: K) -> None:
        try:
            results[key] = function(key)
        except BaseException as error:  # noqa: BLE001 (it is raised in the caller's thread)
            errors.append(error)

    threads = [threading.Thread(target=call, args=(key,), daemon=True) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


async def run_aside(work: Callable[[], None]) -> None:
    """Run blocking work beside the event loop, in a thread that does not keep the process from ending.

    Raises what the work raises. A caller that is cancelled while it waits leaves the work to itself.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if not ended.done():
            ended.set_exception(error) if error else ended.set_result(None)

    def run() -> None:
        failed: BaseException | None = None
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (it is raised in the event loop)
            failed = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, failed)

    threading.Thread(target=run, daemon=True).start()
    await ended
