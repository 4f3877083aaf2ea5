"""A sysfs folder read fast: listed once, then only what is in it is opened. A node has thousands of such folders."""

import os
from functools import cached_property


def read_attribute(path: str) -> str | None:
    """Content of an attribute without its newline; None when it is not there, or the kernel refuses to tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, 4096).decode(errors="replace").strip()  # an attribute is a page at most
    except OSError:
        return None
    finally:
        os.close(descriptor)


class Folder:
    """A folder of sysfs. What is not there, or what the kernel refuses to tell, is None or empty."""

    def __init__(self, path: str) -> None:
        self.path = path

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all entries."""
        try:
            return frozenset(os.listdir(self.path))  # noqa: PTH208 (names only; a Path for each would cost ten times as much)
        except OSError:
            return frozenset()

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    def has(self, name: str) -> bool:
        """Whether there is such an entry; quicker than `names` where nothing else is asked."""
        return os.path.lexists(f"{self.path}/{name}")

    def text(self, name: str) -> str | None:
        """Content of an attribute without its newline."""
        return read_attribute(f"{self.path}/{name}") if name in self.names else None

    def number(self, name: str) -> int | None:
        """Number in an attribute, decimal or hex with 0x."""
        text = self.text(name)
        try:
            return int(text, 0) if text else None
        except ValueError:
            return None

    def target(self, name: str) -> str | None:
        """Where a link leads, as it is written."""
        if name not in self.names:
            return None
        try:
            return os.readlink(f"{self.path}/{name}")  # noqa: PTH115
        except OSError:
            return None

    def link(self, name: str) -> str | None:
        """Last part of where a link leads, like the driver's name."""
        target = self.target(name)
        return target.rpartition("/")[2] if target else None

    def folder(self, name: str) -> "Folder":
        """A folder in it, whether it is there or not."""
        return Folder(f"{self.path}/{name}")

    def folders(self, name: str) -> "list[Folder]":
        """The entries of a folder in it, in order of their names; none when the folder is not there."""
        if name not in self.names:
            return []
        inner = self.folder(name)
        return [inner.folder(entry) for entry in sorted(inner.names)]
