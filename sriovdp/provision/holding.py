"""Holding the locks of a PF's VFs, so that no pod gets or gives back a VF while its PF is looked at and changed."""

import resource
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

from sriovdp.model import PciAddress, PhysicalFunction
from sriovdp.state.locks import TIMEOUT, Locks


class HeldVfs(AbstractContextManager["HeldVfs"]):
    """The locks of one PF's VFs, which the CNI plugin takes for each request too. For one thread at a time."""

    def __init__(self, locks: Locks, timeout: float = TIMEOUT) -> None:
        self._locks = locks
        self._timeout = timeout
        self._held: set[str] = set()
        self._stack = ExitStack()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release all. A second time has nothing to do."""
        self._stack.close()
        self._held.clear()

    def hold(self, addresses: Iterable[str]) -> None:
        """Hold the locks of these VFs until the end, beside those that are held.

        Raises BusyError when a request to one of them does not end in time, JournalError when the folder cannot be
        written.
        """
        missing = sorted(set(addresses) - self._held)
        _allow_files(len(missing))
        for address in missing:
            self._stack.enter_context(self._locks.hold(address, self._timeout))
            self._held.add(address)


def list_vfs(pf: PhysicalFunction, wanted: int = 0) -> Iterator[PciAddress]:
    """Addresses of a PF's VFs, and of those that it would have with so many, as far as they are known before."""
    yield from (vf.address for vf in pf.vfs)
    yield from filter(None, map(pf.vf_address, range(wanted)))


def _allow_files(more: int) -> None:
    """Raise this process's soft limit of open files by what the locks need, where the hard limit allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = soft + more if hard == resource.RLIM_INFINITY else min(soft + more, hard)
    if more and soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
