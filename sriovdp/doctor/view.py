"""All that checks read of a node, below a root that can be moved. What was read is remembered, for a report.

A check sees no more of a file than a report writes: each reader says which part of it is needed. So a report is a
root too, in which the same checks find the same.
"""

import errno
import json
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from sriovdp.errors import SriovdpError
from sriovdp.reading import UnreadableError, read_file

ANSWERS = "/doctor"
"""Folder of a recorded root with what no file says: the answers of the kernel and of programs, one JSON list each."""

UNSEEN = f"{ANSWERS}/unseen.json"
_MOST = 1 << 20  # bytes of a file
_MOST_NAMES = 100_000
_MOST_LINKS = 40  # as the kernel, MAXSYMLINKS
_LIVE = "/sys"

T = TypeVar("T")

_NOTHING = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV, errno.ENXIO, errno.EIO}
)
"""A file is not there, or a driver has nothing to say in an attribute."""

Reduce = Callable[[str], str]
"""The part of a file that a check needs. Reducing what is reduced changes nothing."""


class UnseenError(SriovdpError):
    """What a check would have to see cannot be seen: it needs root, or was not recorded."""


class View:
    """A node's files. `root` is `/`, another node's root, what a report has in `node/`, or a folder of `record`.

    `tops` are the folders below the root in which something was looked for: what is not in them was not there.
    `texts`, `links`, `places` and `answers` are what was read, by path. A file is bounded, and never waited for.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = str(root).rstrip("/")
        is_bare = not (root / "sys").is_dir() and (root / "bus/pci").is_dir()
        self.sysfs = Path(self.root or "/") if is_bare else Path(f"{self.root}/sys")
        self.is_live = _is_same(self.sysfs, Path(_LIVE))
        if self.is_live:
            self.sysfs = Path(_LIVE)  # /host/sys is this node's own
        self._is_bare = is_bare
        self._hidden = frozenset() if self.is_live else frozenset(self._read_list(UNSEEN) or ())
        self.texts: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.places: dict[str, int] = {}
        self.answers: dict[str, list[str]] = {}
        self.unseen: set[str] = set()
        self.tops: set[str] = set()

    def text(self, path: str, reduce: Reduce = str.strip) -> str | None:
        """The needed part of a file; None when it is not there. Raises UnseenError, UnreadableError."""
        if path in self.texts:
            return self.texts[path]
        raw = self._ask(path, _read)
        if raw is None:
            return None
        self.texts[path] = reduce(raw)
        return self.texts[path]

    def lines(self, path: str, pattern: str) -> list[str]:
        """Lines of a file in which a pattern is found; none when it is not there. Raises as `text`."""
        wanted = re.compile(pattern)
        text = self.text(path, lambda raw: "\n".join(line for line in raw.splitlines() if wanted.search(line)))
        return text.splitlines() if text else []

    def number(self, path: str) -> int | None:
        """Number in an attribute, decimal or hex with 0x; None when there is none."""
        text = self.text(path) or ""
        try:
            return int(text, 0)
        except ValueError:
            return None

    def names(self, path: str, pattern: str = "") -> list[str]:
        """Names in a folder that a pattern matches, in order; none when it is not there. Raises UnseenError."""
        found = self._ask(path, os.listdir)
        if found is None:
            return []
        if len(found) > _MOST_NAMES:
            raise UnreadableError(f"{path} has {len(found)} entries")
        names = sorted(name for name in found if re.search(pattern, name))
        self.places.setdefault(path.rstrip("/") + "/", 0o755)
        for name in names:
            self.places.setdefault(f"{path.rstrip('/')}/{name}", 0o644)
        return names

    def link(self, path: str) -> str | None:
        """Last part of where a link leads; None when there is none."""
        target = self._ask(path, os.readlink, follow=False)
        if target is None:
            return None
        self.links[path] = target.rpartition("/")[2]
        return self.links[path]

    def has(self, path: str) -> bool:
        """Whether something is at a path."""
        return self.mode(path) is not None

    def mode(self, path: str) -> int | None:
        """Permissions of what is at a path, None when nothing is there. Raises UnseenError."""
        mode = self._ask(path, lambda place: stat.S_IMODE(Path(place).stat().st_mode))
        if mode is not None:
            self.places[path] = mode
        return mode

    def ask(self, name: str, question: Callable[[], Iterable[str]]) -> list[str]:
        """What no file says, as lines; of a recorded node what was answered then. Raises UnseenError."""
        if name in self.answers:
            return self.answers[name]
        if self.is_live:
            try:
                self.answers[name] = list(question())
            except PermissionError as error:
                raise self._hide(f"{ANSWERS}/{name}.json", f"{name}: {error.strerror}; run it as root") from error
            return self.answers[name]
        recorded = self._read_list(f"{ANSWERS}/{name}.json")
        if recorded is None:
            raise UnseenError(f"{name}: not recorded of this node")
        self.answers[name] = recorded
        return recorded

    def place(self, path: str) -> str:
        """Where a path of the node is on this machine: with links followed as in a chroot. Raises UnreadableError."""
        if path == _LIVE or path.startswith(f"{_LIVE}/"):
            if self.is_live:
                return path
            if self._is_bare:
                return f"{self.root}{resolve(self.root, path.removeprefix(_LIVE))}"
        return path if not self.root else f"{self.root}{resolve(self.root, path)}"

    def _ask(self, path: str, question: Callable[[str], T], *, follow: bool = True) -> T | None:
        """The answer about a path; None when nothing is there."""
        if path in self._hidden:
            raise UnseenError(f"{path} could not be read when this node was recorded")
        try:
            folder, _, name = path.rpartition("/")
            return question(self.place(path) if follow else f"{self.place(folder)}/{name}")
        except PermissionError as error:
            raise self._hide(path, f"{path}: {error.strerror}; run it as root") from error
        except OSError as error:
            if error.errno not in _NOTHING:
                raise UnreadableError(f"{path}: {error.strerror}") from error
        top = path.split("/")[1]
        self.tops.add(top)
        is_recorded = self.is_live or top == "sys" or (Path(f"{self.root}/{top}").is_dir() and not self._is_bare)
        if not is_recorded:
            raise UnseenError(f"/{top}: not recorded of this node")
        return None

    def _hide(self, path: str, reason: str) -> UnseenError:
        self.unseen.add(path)
        return UnseenError(reason)

    def _read_list(self, path: str) -> list[str] | None:
        """A recorded answer; None when there is none. Raises UnreadableError when it is not as written."""
        try:
            answer = json.loads(read_file(self.place(path), _MOST))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise UnreadableError(f"{path} is not as written: {error}") from error
        if not isinstance(answer, list) or not all(isinstance(line, str) for line in answer):
            raise UnreadableError(f"{path} is not a list of texts")
        return answer


def _read(place: str) -> str:
    return read_file(os.path.realpath(place), _MOST).decode("utf-8", errors="replace")


def resolve(root: str, path: str) -> str:
    """Where a path leads with a folder as its root, as in a chroot: no link leads out.

    Raises UnreadableError, OSError.
    """
    waiting, done, links = deque(path.split("/")), list[str](), 0
    while waiting:
        part = waiting.popleft()
        if part == "..":
            del done[-1:]
        elif part not in {"", "."}:
            target = _read_link("/".join((root, *done, part)))
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise UnreadableError(f"{path} has too many links")
            done = [] if target.startswith("/") else done
            waiting.extendleft(reversed(target.split("/")))
    return "/" + "/".join(done)


def _read_link(path: str) -> str | None:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise
        return None


def _is_same(one: Path, other: Path) -> bool:
    """Whether two folders are one: each network namespace has its own /sys."""
    try:
        return os.path.samestat(one.stat(), other.stat())
    except OSError:
        return False
