"""Network namespaces, and running code in one.

`setns(2)` changes the calling thread only. A thread of its own for each visit would cost more than many a system call
there (docs/performance.md), so the caller's thread goes and comes back; a process in which the way back fails ends,
rather than to go on with a thread that is in a pod. A netlink socket stays with the namespace it was opened in.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ParamSpec, TypeVar

from sriovdp.errors import KernelError
from sriovdp.kernel.sysfs import check_answer, list_names

P = ParamSpec("P")
T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_NSFS_MAGIC = 0x6E736673  # linux/magic.h
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class NetnsId:
    """What distinguishes network namespaces while it lives: its inode (`/proc/*/ns/net`)."""

    dev: int
    ino: int


def identify(netns: int | str) -> NetnsId:
    """Identity of the namespace behind an open fd or a path. Raises OSError when there is none."""
    stat = os.fstat(netns) if isinstance(netns, int) else Path(netns).stat()
    return NetnsId(stat.st_dev, stat.st_ino)


def is_namespace(netns_fd: int) -> bool:
    """Whether the fd is of a namespace at all: a lost bind mount leaves a plain file behind under the same path."""
    buffer = (ctypes.c_long * 32)()  # more than struct statfs needs on any architecture; f_type comes first
    return _libc.fstatfs(netns_fd, ctypes.byref(buffer)) == 0 and buffer[0] == _NSFS_MAGIC


def open_namespace(path: str, wanted: NetnsId) -> int | None:
    """Open a namespace by its path or, where the path is gone or leads elsewhere, through a process that is in it.

    None when it does not exist any more. The caller closes the fd: an open fd keeps the namespace alive. Raises
    KernelError when it cannot look.
    """
    for candidate in chain((path,), _process_namespaces(wanted)):
        try:
            # a path that is no namespace any more can be a FIFO, or no path at all
            netns_fd = os.open(candidate, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except ValueError:
            continue
        except OSError as error:
            check_answer(error, f"opening network namespace {candidate}")
            continue
        if identify(netns_fd) == wanted:
            return netns_fd
        os.close(netns_fd)
    return None


def find_processes(wanted: NetnsId) -> list[str]:
    """The processes that are in a namespace, by their ids."""
    return [path.split("/")[2] for path in _process_namespaces(wanted)]


def _process_namespaces(wanted: NetnsId) -> Iterator[str]:
    """Path of the wanted namespace below each process that is in it."""
    for process in filter(str.isdecimal, list_names("/proc")):
        path = f"/proc/{process}/ns/net"
        try:
            if identify(path) == wanted:
                yield path
        except OSError as error:  # the process has ended, or is none of ours to look at
            check_answer(error, f"looking into {path}")


def run_in(netns_fd: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` with the network namespace of `netns_fd`, and give back what it returns or raises.

    It must start neither a program nor a thread, which would stay there. Raises KernelError when there is no way in.
    """
    try:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(f"opening this network namespace failed: {error.strerror}", errno=error.errno or 0) from error
    try:
        if _libc.setns(netns_fd, _CLONE_NEWNET) != 0:
            raise KernelError("entering the sandbox's network namespace failed", errno=ctypes.get_errno())
        try:
            return function(*args, **kwargs)
        finally:
            if _libc.setns(home, _CLONE_NEWNET) != 0:
                os.abort()
    finally:
        os.close(home)
