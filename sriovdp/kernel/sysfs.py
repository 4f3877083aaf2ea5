"""Reading and writing sysfs, under a root that tests and containers can move."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sriovdp.errors import DeviceError, KernelError


@dataclass(frozen=True, slots=True)
class Sysfs:
    """A sysfs tree; `/sys` unless told otherwise."""

    root: Path = Path("/sys")

    def pci(self, address: str) -> Path:
        """Directory of a PCI function. Raises DeviceError when the node has no such function."""
        path = _join(self.root, address)
        if not os.path.exists(path):  # noqa: PTH110 - as below
            raise DeviceError(f"there is no PCI function {address}", hint="`sriovdp discover` lists what there is")
        return path

    def addresses(self) -> list[str]:
        """Addresses of all PCI functions of the node, in order."""
        folder = self.root / "bus/pci/devices"
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


@lru_cache(4096)
def _join(root: Path, address: str) -> Path:
    return root / "bus/pci/devices" / address


def read_text(path: Path | str) -> str | None:
    """Content of an attribute without its newline; None when it is not there or the driver refuses to tell."""
    try:
        with open(path) as attribute:  # noqa: PTH123 - as below
            return attribute.read().strip()
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """Number in an attribute, None when there is none."""
    text = read_text(path)
    try:
        return int(text, 0) if text else None
    except ValueError:
        return None


def read_link(path: Path | str) -> str | None:
    """Last part of where a link leads, like the driver's name; None when there is no link."""
    try:
        return os.readlink(path).rpartition("/")[2]  # noqa: PTH115 - pathlib costs more than the system call
    except OSError:
        return None


def list_names(path: Path | str) -> list[str]:
    """Names in a directory, in order; empty when there is none."""
    try:
        return sorted(os.listdir(path))  # noqa: PTH208 - as above
    except OSError:
        return []


def write_text(path: Path, text: str) -> None:
    """Write an attribute with one write(2), as sysfs wants it. Raises KernelError with the kernel's errno."""
    try:
        with path.open("wb", buffering=0) as attribute:
            attribute.write(text.encode())
    except OSError as error:
        message = f"writing {text.strip()!r} to {path} failed: {error.strerror}"
        raise KernelError(message, errno=error.errno or 0) from error
