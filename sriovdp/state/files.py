"""Small files that other programs read while we write them: whole or not there."""

import contextlib
import os
import tempfile
from pathlib import Path


def check_writable(folder: Path) -> None:
    """Write something into a folder that is lost at once. Raises OSError, which names the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
            probe.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def open_lock(path: Path) -> int:
    """A descriptor for flock(2) on a file, made with its folder if it is not there. Raises OSError.

    What is there in its place serves as well: a folder can be locked too, and a FIFO is not waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.is_dir():
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


def write_whole(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write beside its place and rename. Its folder is made when it is not there. Raises OSError.

    Not flushed to the disk: for what lives on tmpfs, or is not worse lost than old.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")  # no reader takes such a name
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            os.fchmod(descriptor, mode)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
