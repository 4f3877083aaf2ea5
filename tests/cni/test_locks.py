"""Locks by name."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cni.locks import Locks, hold_file
from sriovdp.errors import CniError, JournalError


def test_second_owner_is_told_to_try_again() -> None:
    """A lock that can not be had in time is code 11, not a hang."""
    locks = Locks(timeout=0.01)

    with (
        locks.hold("0000:01:10.2"),
        pytest.raises(CniError, match="works on 0000") as caught,
        locks.hold("0000:01:10.2"),
    ):
        pass

    assert caught.value.code == 11


def test_other_names_are_not_held_up() -> None:
    """Two VFs have two locks."""
    locks = Locks(timeout=0.01)

    with locks.hold("0000:01:10.2"), locks.hold("0000:01:10.4"):
        pass


def test_lock_is_free_after_an_error_and_waited_for() -> None:
    """A waiting thread gets the lock as soon as its holder failed."""
    locks = Locks()
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


def test_locks_vanish_with_their_last_user() -> None:
    """Names of containers come and go; nothing of them is kept."""
    locks = Locks()
    with locks.hold("c1-net1"):
        pass
    with pytest.raises(CniError), locks.hold("vf"), locks.hold("vf", 0):
        pass
    assert (locks._locks, dict(locks._users)) == ({}, {})


def test_file_lock_excludes_other_processes_and_dies_with_them(tmp_path: Path) -> None:
    """Another process's lock is waited for no longer than told, and is gone when that process is killed."""
    script = f"""
from pathlib import Path
from cni.locks import hold_file
with hold_file(Path({str(tmp_path)!r}), "vf"):
    print("held", flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(CniError, match="works on vf") as busy, hold_file(tmp_path, "vf", 0.05):
            pass
        assert busy.value.code == 11
        os.kill(process.pid, signal.SIGKILL)
        with hold_file(tmp_path, "vf", 10):
            pass
    assert list(tmp_path.iterdir()) == []


def test_file_lock_has_one_holder_among_many_threads(tmp_path: Path) -> None:
    """The file is removed by each holder while others wait at it: never do two have it."""
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(20):
            with hold_file(tmp_path, "vf", 30):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(most), max(most)) == (120, 1)


def test_folder_that_can_not_be_written_is_an_error_of_the_journal(tmp_path: Path) -> None:
    """Not to be mistaken for a lock that somebody has."""
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="locking"), hold_file(tmp_path / "file/locks", "vf"):
        pass
