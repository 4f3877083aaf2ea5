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
