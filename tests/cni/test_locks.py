"""Locks by name."""

import threading

import pytest

from cni.locks import Locks
from sriovdp.errors import CniError


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
