"""Waiting for a driver that is busy: it answers EBUSY or EAGAIN while a VF or the PF is in reset, and is asked again.

How long that may last depends on who waits: a pod's ADD has a runtime that gives up, an apply can wait longer.
"""

import errno
import time
from collections.abc import Callable

from sriovdp.errors import KernelError

BUSY = frozenset({errno.EBUSY, errno.EAGAIN})

_SHORTEST_PAUSE = 0.05  # seconds
_LONGEST_PAUSE = 0.5
_SILENCE = 1.0  # seconds after which a wait is reported

OnWait = Callable[[str], None]
"""Gets one sentence for a wait that lasts: what fails, on which device, the kernel's reason, and the longest wait."""


def retry_while_busy(request: Callable[[], object], patience: float, on_wait: OnWait) -> None:
    """Do a request until it succeeds, `patience` seconds at most. Raises KernelError, as the last try did."""
    began = time.monotonic()
    pause, is_reported = _SHORTEST_PAUSE, False
    while True:
        started = time.monotonic()
        try:
            request()
            return
        except KernelError as error:
            waited = time.monotonic() - began
            if error.errno not in BUSY:
                raise
            if waited > patience:
                error.message = f"{error.message} (tried for {waited:.0f} s)"
                raise
            if not is_reported and waited > min(_SILENCE, patience):
                on_wait(f"{error.message}; trying again for up to {patience:.0f} s")
                is_reported = True
        time.sleep(max(pause, time.monotonic() - started))  # ice answers after 0.8 s, in which nobody else has RTNL
        pause = min(pause * 1.5, _LONGEST_PAUSE)
