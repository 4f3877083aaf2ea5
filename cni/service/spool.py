"""Requests that launchers kept on disk while there was no agent: DEL and GC, to be replayed in their order.

A file is complete or not there; cni/protocol/wire.py describes its format. Its name begins with the time at which it
was written, so that names sort as requests came. A request is forgotten once it was done; what can never be done is
moved to a name that ends with `.rejected`, for a person to look at.
"""

import fcntl
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cni.protocol.spec import DECODING_FAILURE, INCOMPATIBLE_VERSION, INVALID_CONFIG, INVALID_ENVIRONMENT
from cni.protocol.wire import (
    ENVIRONMENT_MAX,
    HEADER_SIZE,
    SPOOLED_MAX,
    Reply,
    Request,
    Spooled,
    VersionError,
    WireError,
    decode_spooled,
)
from cni.service.connection import Handle
from sriovdp.errors import SriovdpError
from sriovdp.kernel import netns
from sriovdp.reading import UnreadableError, parse_object, read_file
from sriovdp.state.journal import read_boot_id

logger = logging.getLogger(__name__)

_REJECTED = ".rejected"
_PERMANENT = {INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT, DECODING_FAILURE, INVALID_CONFIG}
_RETRY_PAUSE, _RETRY_PAUSE_MAX = 60.0, 3600.0  # seconds after the first failure, doubled with each, and at most
_THREADS, _PER_PLUGIN = 8, 2  # requests that are done at a time, and of these with one IPAM plugin
_COMMAND = re.compile(rb"CNI_COMMAND=([A-Z]+)\0")
_LOCK_TIMEOUT = 10.0  # seconds; a launcher holds the lock for as long as it writes one file


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many requests are in the spool: to be replayed, and moved aside for a person."""

    spooled: int
    rejected: int


class Spool:
    """The spool's folder, which need not exist. `replay` and `count` can be called from several threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._attempts: dict[str, tuple[int, float]] = {}  # by file: how many failed, and when the next one is due
        self._waiting: dict[Path, str] = {}  # what is due, with its IPAM plugin, in order
        self._running: dict[Path, str] = {}  # what is being done
        self._condition = threading.Condition()

    def settle(self) -> None:
        """Wait until no launcher writes any more, and remove what killed ones left half written.

        To be called while the agent listens already: who looked for it before is in the spool now, who looks later
        finds it. See cni/launcher/sriov.c.
        """
        try:
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if not _lock(descriptor):
                logger.error("%s: a launcher writes there for too long; serving without waiting", self._directory)
                return
            for path in self._directory.glob(".*"):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def note_gcs(self, note: Callable[[Request], None]) -> None:
        """Hand over each GC, which must only be about what there was at that time; it is forgotten then.

        To be called before the agent answers anybody: later, a GC would not know of pods that came since.
        """
        for path in self._list():
            try:
                if _read_command(path) != "GC":
                    continue
                note(_read(path).request)
                logger.info("%s: took over a GC, which came while there was no agent", path)
                self._forget(path)
            except Exception as error:  # noqa: BLE001 - whatever a file holds, the others are taken over
                self._reject(path, f"this GC is invalid, the runtime sends another: {error}")

    def replay(self, handle: Handle) -> bool:
        """Do what is due, oldest first; gives whether anything was done. What fails is retried, with growing pauses.

        Each request is done in a thread of its own, so many at a time, and so many of one IPAM plugin: one that hangs
        keeps no other waiting. Returns when all that was due and is not with another caller is done. A GC is dropped:
        it does not know of pods that came since.
        """
        listed = self._list()
        names = {path.name for path in listed}
        now = time.monotonic()
        with self._condition:
            self._attempts = {name: found for name, found in self._attempts.items() if name in names}
            taken = {*self._waiting, *self._running}
            due = [path for path in listed if path not in taken and self._due_at(path) <= now]
            self._waiting |= {path: _find_plugin(path) for path in due}
            self._begin(handle)
            self._condition.wait_for(lambda: not {*due} & {*self._waiting, *self._running})
        return bool(due)

    def _due_at(self, path: Path) -> float:
        return self._attempts.get(path.name, (0, 0.0))[1]

    def _begin(self, handle: Handle) -> None:
        """Start threads for what waits, as far as there are any. To be called with the condition held."""
        for path, plugin in list(self._waiting.items()):
            if len(self._running) >= _THREADS:
                return
            if not plugin or list(self._running.values()).count(plugin) < _PER_PLUGIN:
                threading.Thread(target=self._run, args=(path, handle), name="replay", daemon=True).start()
                self._running[path] = self._waiting.pop(path)

    def _run(self, path: Path, handle: Handle) -> None:
        """Try once, in a thread of its own."""
        try:
            self._replay(path, handle)
        except VersionError as error:
            self._retry(path, f"it waits for another agent: {error}")
        except WireError as error:
            self._reject(path, str(error))
        except OSError as error:
            self._retry(path, f"it cannot be read: {error}")
        except Exception as error:  # noqa: BLE001 - whatever a file holds: the others are replayed
            self._retry(path, f"it cannot be replayed: {error!r}")
        finally:
            with self._condition:
                del self._running[path]
                self._begin(handle)
                self._condition.notify_all()

    def count(self) -> Waiting:
        """What is in the folder now. Raises OSError when it cannot be read."""
        try:
            found = [path.suffix for path in self._directory.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            found = []
        rejected = found.count(_REJECTED)
        return Waiting(len(found) - rejected, rejected)

    def _list(self) -> list[Path]:
        try:
            found = [path for path in self._directory.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            logger.error("%s: the spool cannot be read, its requests wait: %s", self._directory, error)
            return []
        return sorted(path for path in found if path.suffix != _REJECTED and not path.is_dir())

    def _replay(self, path: Path, handle: Handle) -> None:
        spooled = _read(path)
        request = spooled.request
        said = f"{request.command} of {request.caller or 'a network'}"
        if request.is_delegated:
            raise WireError("an IPAM plugin of a network is this plugin itself")
        if request.command == "GC":
            logger.warning("%s: dropped: this GC is too old, and the runtime sends another", path)
        elif request.command != "DEL":
            raise WireError(f"a spool holds DEL and GC, not {request.command}")
        else:
            reply = _handle(spooled, handle)
            if reply.exit_code != 0:
                self._keep(path, said, reply)
                return
            logger.info("%s: replayed %s, which came while there was no agent", request.caller, request.command)
        self._forget(path)

    def _keep(self, path: Path, said: str, reply: Reply) -> None:
        code, text = _read_error(reply)
        if code in _PERMANENT:
            self._reject(path, f"{said} failed, and fails each time: {text}")
        else:
            self._retry(path, f"{said} failed: {text}")

    def _retry(self, path: Path, reason: str) -> None:
        """Try again later; the first failure is logged."""
        with self._condition:
            failed = self._attempts.get(path.name, (0, 0.0))[0]
            pause = min(_RETRY_PAUSE * 2 ** min(failed, 20), _RETRY_PAUSE_MAX)
            self._attempts[path.name] = (failed + 1, time.monotonic() + pause)
        level = logging.DEBUG if failed else logging.ERROR
        logger.log(level, "%s: the agent retries this request in %.0f s: %s", path, pause, reason)

    def _reject(self, path: Path, reason: str) -> None:
        aside = path.with_name(f"{path.name}{_REJECTED}")
        logger.error("%s: moved to %s: %s", path, aside.name, reason)
        try:
            path.rename(aside)
        except OSError as error:
            logger.error("%s: moving it to %s failed: %s", path, aside.name, error)

    def _forget(self, path: Path) -> None:
        """Not flushed: a request that comes back after a power loss is done once more, and nothing is left to do."""
        path.unlink(missing_ok=True)


def _read(path: Path) -> Spooled:
    """Raises WireError for what is no request, OSError."""
    try:
        return decode_spooled(read_file(path, SPOOLED_MAX))
    except UnreadableError as error:
        raise WireError(str(error)) from error


def _find_plugin(path: Path) -> str:
    """Name of the IPAM plugin that a request needs; empty for none, and for what is no request."""
    try:
        ipam = parse_object(_read(path).request.stdin).get("ipam")
    except (OSError, ValueError, SriovdpError):
        return ""
    return str(ipam.get("type") or "") if isinstance(ipam, dict) else ""


def _read_command(path: Path) -> str:
    """The verb of a request, without reading all of it: there can be many, of a megabyte each."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        start = os.read(descriptor, HEADER_SIZE + ENVIRONMENT_MAX)
    finally:
        os.close(descriptor)
    found = _COMMAND.search(start)
    return found[1].decode() if found else ""


def _lock(descriptor: int) -> bool:
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def _handle(spooled: Spooled, handle: Handle) -> Reply:
    """Do the request, with its network namespace only if that is the very one that it was about."""
    netns_fd = _open_namespace(spooled)
    try:
        return handle(spooled.request, netns_fd, threading.Event())
    finally:
        if netns_fd is not None:
            os.close(netns_fd)


def _open_namespace(spooled: Spooled) -> int | None:
    if not spooled.netns_ino or spooled.boot_id != read_boot_id():
        return None
    return netns.open_namespace(spooled.request.netns, netns.NetnsId(spooled.netns_dev, spooled.netns_ino))


def _read_error(reply: Reply) -> tuple[int, str]:
    try:
        document = json.loads(reply.stdout)
        return int(document["code"]), str(document["msg"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0, reply.stdout.decode(errors="replace")
