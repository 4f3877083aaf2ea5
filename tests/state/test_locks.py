"""Locks by name."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sriovdp.errors import BusyError, JournalError
from sriovdp.state.locks import Locks


@pytest.fixture
def locks(tmp_path: Path) -> Locks:
    """Locks of a folder that is not there yet."""
    return Locks(tmp_path / "locks")


def test_second_owner_is_asked_to_try_again(locks: Locks) -> None:
    """A lock that cannot be had in time is an error, not a hang."""
    with locks.hold("0000:01:10.2"), pytest.raises(BusyError, match="works on 0000"), locks.hold("0000:01:10.2", 0.01):
        pass


def test_other_names_are_not_held_up(locks: Locks) -> None:
    """Two VFs have two locks."""
    with locks.hold("0000:01:10.2", 0.01), locks.hold("0000:01:10.4", 0.01):
        pass


def test_lock_is_free_after_an_error_and_waited_for(locks: Locks) -> None:
    """A waiting thread gets the lock as soon as its holder failed."""
    entered = threading.Event()
    done: list[str] = []

    def fail_while_holding() -> None:
        with pytest.raises(ValueError, match="boom"), locks.hold("vf"):
            entered.set()
            raise ValueError("boom")

    thread = threading.Thread(target=fail_while_holding)
    thread.start()
    entered.wait()
    with locks.hold("vf"):
        done.append("held")
    thread.join()

    assert done == ["held"]


def test_locks_vanish_with_their_last_user(locks: Locks, tmp_path: Path) -> None:
    """Names of containers come and go; nothing of them is kept."""
    with locks.hold("c1-net1"):
        pass
    with pytest.raises(BusyError), locks.hold("vf"), locks.hold("vf", 0):
        pass
    assert (locks._locks, dict(locks._users)) == ({}, {})
    assert list((tmp_path / "locks").iterdir()) == []


def test_lock_excludes_other_processes_and_dies_with_them(tmp_path: Path) -> None:
    """Another process's lock is waited for no longer than asked, and is gone when that process is killed."""
    script = f"""
from pathlib import Path
from sriovdp.state.locks import Locks
with Locks(Path({str(tmp_path)!r})).hold("vf"):
    print("held", flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(BusyError, match="works on vf"), Locks(tmp_path).hold("vf", 0.05):
            pass
        os.kill(process.pid, signal.SIGKILL)
        with Locks(tmp_path).hold("vf", 10):
            pass
    assert list(tmp_path.iterdir()) == []


def test_lock_has_one_holder_among_processes_with_many_threads(tmp_path: Path) -> None:
    """The file is removed by each holder while others wait at it: never do two have it."""
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        own = Locks(tmp_path)  # as another process has them: only the file is common
        for _ in range(20):
            with own.hold("vf", 30):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(most), max(most)) == (120, 1)


def test_folder_that_cannot_be_written_is_an_error_of_the_journal(tmp_path: Path) -> None:
    """Not to be mistaken for a lock that somebody has."""
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="locking"), Locks(tmp_path / "file/locks").hold("vf"):
        pass


@pytest.mark.parametrize("holder", ["this process", "another"])
def test_who_waits_says_so_and_who_does_not_wait_does_not(tmp_path: Path, holder: str) -> None:
    """A thread that waits can give up what others need; it has it back before it goes on."""
    steps: list[str] = []

    @contextmanager
    def waiting() -> Iterator[None]:
        steps.append("waits")
        yield
        steps.append("goes on")

    locks = Locks(tmp_path, waiting)
    first = locks if holder == "this process" else Locks(tmp_path)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with first.hold("vf"):
            held.set()
            let_go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    threading.Timer(0.05, let_go.set).start()
    with locks.hold("vf", 30):
        steps.append("has it")
    thread.join()
    with locks.hold("vf"):
        pass
    assert steps == ["waits", "goes on", "has it"]
