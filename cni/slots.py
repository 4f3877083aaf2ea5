"""How many verbs work at once: a verb that only waits lets another one work meanwhile.

Each verb has a thread. What is bounded is how many of them compute and change things at the same time; a thread that
waits for a lock or for an IPAM plugin is none of these.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PATIENCE = 5.0  # seconds; verbs that hang in the kernel must not keep the others for longer

_current = threading.local()


class Slots:
    """So many threads may work at once."""

    def __init__(self, count: int, patience: float = _PATIENCE) -> None:
        self._free = threading.Semaphore(count)
        self._patience = patience

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Work in a slot; without one, if none becomes free in time."""
        is_held = self.take()
        _current.slots = self if is_held else None
        try:
            yield
        finally:
            if _current.slots is not None:
                self._free.release()
            _current.slots = None

    def take(self) -> bool:
        """Wait for a slot; gives whether there is one."""
        return self._free.acquire(timeout=self._patience)

    def give_back(self) -> None:
        """Let another thread have the slot."""
        self._free.release()


@contextmanager
def waiting() -> Iterator[None]:
    """Give this thread's slot, if it has one, to others as long as the block waits for something."""
    slots: Slots | None = getattr(_current, "slots", None)
    if slots is None:
        yield
        return
    _current.slots = None
    slots.give_back()
    try:
        yield
    finally:
        if slots.take():
            _current.slots = slots
