"""Reading and writing sysfs, under a root that tests and containers can move.

What is not there, or what the kernel or a driver refuses to report, is None or empty. What could not be asked, as this
process has no file descriptor or the machine no memory left, is no answer: KernelError.
"""

import errno
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from sriovdp.errors import DeviceError, KernelError

_ROOM = 4096  # bytes; an attribute is a page at most
_NO_ANSWER = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


@dataclass(frozen=True, slots=True)
class Sysfs:
    """A sysfs tree; `/sys` if nothing else is given."""

    root: Path = Path("/sys")

    def pci(self, address: str) -> Path:
        """Directory of a PCI function. Raises DeviceError when the node has no such function."""
        path = _join(self.root, address)
        if not os.path.exists(path):  # noqa: PTH110 - as below
            raise DeviceError(f"there is no PCI function {address}", hint="`sriovdp discover` lists what there is")
        return path

    def addresses(self) -> list[str]:
        """Addresses of all PCI functions of the node, in order. Raises KernelError."""
        return list_names(self.root / "bus/pci/devices")


@lru_cache(4096)
def _join(root: Path, address: str) -> Path:
    return root / "bus/pci/devices" / address


def check_answer(error: OSError, what: str) -> None:
    """Raise KernelError when an error does not mean that something is missing, but that it could not be read."""
    if error.errno in _NO_ANSWER:
        raise KernelError(f"{what} failed: {error.strerror}", errno=error.errno) from error


def read_text(path: Path | str) -> str | None:
    """Content of an attribute without its newline; None when it is not there or the driver refuses to report it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.read(descriptor, _ROOM)
            while more := os.read(descriptor, _ROOM):  # a file of /proc may have more than a page
                content += more
        finally:
            os.close(descriptor)
    except OSError as error:
        check_answer(error, f"reading {path}")
        return None
    return content.decode(errors="replace").strip()


def _read_attribute(path: str) -> str | None:
    """As `read_text`, of an attribute of sysfs: it comes whole with one read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.read(descriptor, _ROOM)
        finally:
            os.close(descriptor)
    except OSError as error:
        check_answer(error, f"reading {path}")
        return None
    return content.decode(errors="replace").strip()


def read_int(path: Path | str) -> int | None:
    """Number in an attribute, decimal or hex with 0x; None when there is none."""
    return _parse(read_text(path))


def _parse(text: str | None) -> int | None:
    try:
        return int(text, 0) if text else None
    except ValueError:
        return None


def read_target(path: Path | str) -> str | None:
    """Where a link leads, as it is written; None when there is no link."""
    try:
        return os.readlink(path)  # noqa: PTH115 - pathlib costs more than the system call, here and below
    except OSError as error:
        check_answer(error, f"reading {path}")
        return None


def read_link(path: Path | str) -> str | None:
    """Last part of where a link leads, like the driver's name; None when there is no link."""
    target = read_target(path)
    return target.rpartition("/")[2] if target else None


def list_names(path: Path | str) -> list[str]:
    """Names in a directory, in order; empty when there is none."""
    return sorted(_list(path))


def _list(path: Path | str) -> list[str]:
    try:
        return os.listdir(path)  # noqa: PTH208
    except OSError as error:
        check_answer(error, f"listing {path}")
        return []


def write_text(path: Path, text: str) -> None:
    """Write an attribute with one write(2), as sysfs wants it. Raises KernelError with the kernel's errno."""
    try:
        with path.open("wb", buffering=0) as attribute:
            attribute.write(text.encode())
    except OSError as error:
        message = f"writing {text.strip()!r} to {path} failed: {error.strerror}"
        raise KernelError(message, errno=error.errno or 0) from error


class Folder:
    """A folder of sysfs read fast: listed once, then only what is in it is opened. A node has thousands of them."""

    def __init__(self, path: str) -> None:
        self.path = path

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all entries."""
        return frozenset(_list(self.path))

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    def has(self, name: str) -> bool:
        """Whether there is such an entry; quicker than `names` where nothing else is asked."""
        return os.path.lexists(f"{self.path}/{name}")

    def text(self, name: str) -> str | None:
        """Content of an attribute without its newline."""
        return _read_attribute(f"{self.path}/{name}") if name in self.names else None

    def number(self, name: str) -> int | None:
        """Number in an attribute, decimal or hex with 0x."""
        return _parse(self.text(name))

    def target(self, name: str) -> str | None:
        """Where a link leads, as it is written."""
        return read_target(f"{self.path}/{name}") if name in self.names else None

    def link(self, name: str) -> str | None:
        """Last part of where a link leads, like the driver's name."""
        return read_link(f"{self.path}/{name}") if name in self.names else None

    def folder(self, name: str) -> "Folder":
        """A folder in it, whether it is there or not."""
        return Folder(f"{self.path}/{name}")

    def folders(self, name: str) -> "list[Folder]":
        """The entries of a folder in it, in order of their names; none when the folder is not there."""
        return (
            [self.folder(f"{name}/{entry}") for entry in list_names(f"{self.path}/{name}")]
            if name in self.names
            else []
        )
