"""Failure and death after a change that is chosen by its number."""

import errno
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sriovdp.errors import KernelError

Changes = Sequence[tuple[object, str]]
"""Functions that change something, each by its owner and its name there."""


class Fault:
    """Lets the change number `at` happen, and then fail or die; counts changes from 1."""

    def __init__(self, changes: Changes, at: int, act: Callable[[], None]) -> None:
        self.at, self.count = at, 0
        self._changes, self._act = changes, act

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Into every function that changes something."""
        for owner, name in self._changes:
            patch.setattr(owner, name, self._wrap(getattr(owner, name)))

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> Any:
            done = function(*args, **kwargs)
            self.count += 1
            if self.count == self.at:
                self._act()
            return done

        return change


def fail() -> None:
    """An error of the kernel."""
    raise KernelError("a fault of the test", errno=errno.EIO)


def die() -> None:
    """No time to put anything in order."""
    os.kill(os.getpid(), signal.SIGKILL)
