"""Requests that launchers kept on disk while there was no agent: DEL and GC, to be replayed in their order.

A file is complete or not there; its format is told in cni/protocol/wire.py. Its name begins with the time at which it
was written, so that names sort as requests came. A request is forgotten once it was done; what can never be done is put
aside under a name that ends with `.rejected`, for a person to look at.
"""

import fcntl
import json
import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from cni.protocol.spec import DECODING_FAILURE, INCOMPATIBLE_VERSION, INVALID_CONFIG, INVALID_ENVIRONMENT
from cni.protocol.wire import SPOOLED_MAX, Reply, Spooled, VersionError, WireError, decode_spooled
from cni.service.connection import Handle
from sriovdp.kernel import netns
from sriovdp.state.journal import read_boot_id

logger = logging.getLogger(__name__)

_REJECTED = ".rejected"
_PERMANENT = {INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT, DECODING_FAILURE, INVALID_CONFIG}
_RETRY_PAUSE = 60.0  # seconds; an IPAM plugin that fails is not asked more often
_LOCK_TIMEOUT = 10.0  # seconds; a launcher holds the lock for as long as it writes one file


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many requests are in the spool: to be replayed, and put aside for a person."""

    spooled: int
    rejected: int


class Spool:
    """The spool's folder, which need not exist. To be used by one thread at a time, but for `count`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._retry_at = 0.0

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
                logger.error("a launcher has been writing to %s for too long; serving all the same", self._directory)
                return
            for path in self._directory.glob(".*"):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def replay(self, handle: Handle, *, at_start: bool) -> None:
        """Do what is in the spool, oldest first. What fails is kept for the next call, but not before a minute is over.

        Only at the agent's start may a GC be done: later, it does not know of pods that came since, and is dropped.
        """
        if not at_start and time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + _RETRY_PAUSE
        for path in self._list():
            try:
                self._replay(path, handle, at_start)
            except VersionError as error:
                logger.error("the spooled request %s waits for another agent: %s", path, error)
            except WireError as error:
                self._reject(path, str(error))
            except OSError as error:
                logger.error("the spooled request %s can not be replayed: %s", path, error)
            except Exception:  # whatever a file holds: the others are replayed, and the agent goes on
                logger.exception("the spooled request %s can not be replayed", path)

    def count(self) -> Waiting:
        """What is in the folder now. Raises OSError when it can not be read."""
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
            logger.error("the spool %s can not be read, its requests wait: %s", self._directory, error)
            return []
        return sorted(path for path in found if path.suffix != _REJECTED and path.is_file())

    def _replay(self, path: Path, handle: Handle, at_start: bool) -> None:
        with path.open("rb") as stream:
            spooled = decode_spooled(stream.read(SPOOLED_MAX + 1))
        request = spooled.request
        said = f"{request.command} of {request.container_id or 'a network'} {request.ifname}".rstrip()
        if request.command == "GC" and not at_start:
            logger.warning("a spooled GC is too old by now and dropped; the runtime sends another")
        elif request.command not in {"DEL", "GC"}:
            raise WireError(f"a spool holds DEL and GC, not {request.command}")
        else:
            reply = _handle(spooled, handle)
            if reply.exit_code != 0:
                self._keep(path, said, reply)
                return
            logger.info("replayed %s, which came while there was no agent", said)
        self._forget(path)

    def _keep(self, path: Path, said: str, reply: Reply) -> None:
        code, text = _read_error(reply)
        if code in _PERMANENT:
            self._reject(path, f"{said} failed and will always: {text}")
        else:
            logger.error("the spooled %s failed, trying again in %.0f s: %s", said, _RETRY_PAUSE, text)

    def _reject(self, path: Path, reason: str) -> None:
        aside = path.with_name(f"{path.name}{_REJECTED}")
        logger.error("a spooled request is put aside as %s: %s", aside, reason)
        try:
            path.rename(aside)
        except OSError as error:
            logger.error("%s can not be put aside: %s", path, error)

    def _forget(self, path: Path) -> None:
        """Not flushed: a request that comes back after a power loss is done once more, and nothing is left to do."""
        path.unlink(missing_ok=True)


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
    except (ValueError, KeyError, TypeError):
        return 0, reply.stdout.decode(errors="replace")
