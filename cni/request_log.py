"""The keys `logLevel` and `logFile`: what the plugin logs of one request, in a file that the network names as well.

The path comes from a network's author, who is not root. So the file is below a folder of the node's policy, is one that
this program made, and holds text that is inert wherever it is read.
"""

import errno
import logging
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from cni.policy import Place, Policy, find_place
from sriovdp.kernel.beneath import open_beneath

logger = logging.getLogger(__name__)

HEADER = b"# log of sriovdp's CNI plugin (logFile of a network)\n"
"""The first line of each file. A file without it is another program's and stays as it is."""
MAX_SIZE = 16 << 20  # bytes
MAX_FILES = 64
"""So many files this program makes below one folder of the policy; with the size, 1 GiB."""

_FORMAT = "%(asctime)s %(levelname)s {}: %(message)s"
_ACTIVE = re.compile(r"[^ -~]|[`$;|&<>\\]")  # what a shell or a terminal acts on
_LATIN_MAX = 0xFF
_MODE = 0o600
_making = threading.Lock()
_READ_ONLY = "mount the node's folder into the agent's container at the same path"


@contextmanager
def log_to(path: str, level: int, caller: str, policy: Policy) -> Iterator[None]:
    """Write what this thread logs meanwhile to the file as well; `caller` stands before each line.

    A file that cannot be opened is a warning and fails no request.
    """
    stream = _open(path, policy, caller) if path else None
    if stream is None:
        yield
        return
    thread = threading.get_ident()
    handler = logging.StreamHandler(stream)
    handler.setLevel(level)
    handler.setFormatter(_InertFormatter(_FORMAT.format(caller.replace("%", "%%"))))
    handler.addFilter(lambda record: record.thread == thread)
    root = logging.getLogger("cni")
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        with suppress(OSError):  # a full disk
            stream.close()


class _InertFormatter(logging.Formatter):
    r"""One line for each record, without anything that a shell or a terminal would act on; `;` becomes `\x3b`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as plain ASCII."""
        return _ACTIVE.sub(_escape, super().format(record))


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number <= _LATIN_MAX else f"\\u{number:04x}"


def _open(path: str, policy: Policy, caller: str) -> TextIO | None:
    place = find_place(path, policy.log_folders)
    if place is None:
        folders = ", ".join(map(str, policy.log_folders)) or "no folder"
        logger.warning("%s: logFile %r is not written: this node allows %s (cni.logFolders)", caller, path, folders)
        return None
    try:
        return _open_ours(place, caller)
    except OSError as error:
        hint = f"; {_READ_ONLY}" if error.errno in {errno.EROFS, errno.ENOENT} else ""
        logger.warning("%s: logFile %s cannot be written: %s%s", caller, place, error.strerror, hint)
        return None


def _open_ours(place: Place, caller: str) -> TextIO | None:
    """The file, to be appended to, made if it is not there. Raises OSError."""
    flags = os.O_RDWR | os.O_APPEND
    try:
        descriptor = open_beneath(place.folder, place.relative, flags)
    except FileNotFoundError:
        with _making:
            if _has_many(place.folder):
                text = "%s: logFile %s is not written: there are %d logs of networks below %s; remove some"
                logger.warning(text, caller, place, MAX_FILES, place.folder)
                return None
            _make(place)
        descriptor = open_beneath(place.folder, place.relative, flags)
    fault = _find_fault(descriptor)
    if fault:
        os.close(descriptor)
        logger.warning("%s: logFile %s is not written: %s", caller, place, fault)
        return None
    return os.fdopen(descriptor, "a")


def _has_many(folder: Path) -> bool:
    """Whether there are as many files of ours below a folder as there may be. Its subfolders count too."""
    found = 0
    for parent, _, names in os.walk(folder):
        found += sum(_is_ours(f"{parent}/{name}") for name in names)
        if found >= MAX_FILES:
            return True
    return False


def _is_ours(path: str) -> bool:
    """Whether a file is one that `_make` made, by its mode and its first line."""
    try:
        if stat.S_IMODE(os.lstat(path).st_mode) != _MODE:
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.pread(descriptor, len(HEADER), 0) == HEADER
    except OSError:  # a FIFO
        return False
    finally:
        os.close(descriptor)


def _make(place: Place) -> None:
    """Make the file with its first line in it, so that it is never seen without. Raises OSError."""
    parent, name = os.path.split(place.relative)
    folder = open_beneath(place.folder, parent or ".", os.O_PATH | os.O_DIRECTORY)
    temporary = f".sriovdp-{os.getpid()}-{threading.get_native_id()}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE, dir_fd=folder)
        try:
            os.write(descriptor, HEADER)
            with suppress(FileExistsError):  # another request was quicker
                os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.close(descriptor)
            os.unlink(temporary, dir_fd=folder)
    finally:
        os.close(folder)


def _find_fault(descriptor: int) -> str | None:
    """Why an existing file must not be appended to."""
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        return "it is no regular file"
    if os.pread(descriptor, len(HEADER), 0) != HEADER:
        return "another program made it; name another file, or move it away"
    if state.st_size > MAX_SIZE:
        return f"it is larger than {MAX_SIZE >> 20} MiB; move it away"
    return None
