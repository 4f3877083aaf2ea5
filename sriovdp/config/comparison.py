"""Whether an agent runs with what its config file says now."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sriovdp.config.values import Config
from sriovdp.errors import ConfigError


@dataclass(frozen=True, slots=True)
class FileState:
    """`valid`: an agent could start with the file. `current`: for this node it says what the running agent does."""

    valid: bool
    current: bool


class ComparedFile:
    """A config file that may change at any time: `load` reads it, when it was touched. For one thread at a time."""

    def __init__(self, path: Path, load: Callable[[], Config]) -> None:
        self._path = path
        self._load = load
        self._seen: object = None  # what was compared last
        self._state = FileState(valid=False, current=False)

    def compare(self, running: Config) -> FileState:
        """Compare the file with a config. A change of comments or of other nodes' entries is no change."""
        seen = identify_file(self._path), running
        if seen != self._seen:
            self._state = self._compare(running)
            self._seen = seen
        return self._state

    def _compare(self, running: Config) -> FileState:
        try:
            found = self._load()
        except ConfigError:
            return FileState(valid=False, current=False)
        return FileState(valid=True, current=replace(found, warnings=()) == replace(running, warnings=()))


def identify_file(path: Path) -> object:
    """What changes with a file's content; a ConfigMap's is another file behind the same symbolic links."""
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
