"""Whether what an agent runs with is what its config file says by now."""

from dataclasses import dataclass, replace
from pathlib import Path

from sriovdp.config.file import load
from sriovdp.config.nodes import NodeIdentity
from sriovdp.config.values import Config
from sriovdp.errors import ConfigError


@dataclass(frozen=True, slots=True)
class FileState:
    """`valid`: an agent could start with the file. `current`: for this node it says what the running agent does."""

    valid: bool
    current: bool


class ComparedFile:
    """A config file that may change at any time. Read again only when it was touched. For one thread at a time."""

    def __init__(self, path: Path, identity: NodeIdentity) -> None:
        self._path = path
        self._identity = identity
        self._seen: object = None  # what was compared last
        self._state = FileState(valid=False, current=False)

    def compare(self, running: Config) -> FileState:
        """How the file stands to a config. A change of comments or of other nodes' entries is none."""
        seen = _identify(self._path), running
        if seen != self._seen:
            self._state = self._compare(running)
            self._seen = seen
        return self._state

    def _compare(self, running: Config) -> FileState:
        try:
            found = load(self._path, self._identity)
        except ConfigError:
            return FileState(valid=False, current=False)
        return FileState(valid=True, current=replace(found, warnings=()) == replace(running, warnings=()))


def _identify(path: Path) -> object:
    """What changes with a file's content; a ConfigMap's is another file behind the same symbolic links."""
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
