"""The agent's socket for the launcher: takes requests with their network namespace and sends back replies.

The event loop accepts and receives, never blocking; a request's verb runs in a worker thread, which sends the reply
itself (connection.py). What two verbs must not do at once is for the verbs to lock: requests start in the order in
which they came, whichever PF they are about.
"""

import asyncio
import errno
import logging
import os
import socket
import struct
from pathlib import Path

from cni.service.connection import Connection, Handle
from cni.service.workers import Workers
from sriovdp.errors import SriovdpError

logger = logging.getLogger(__name__)

_CONNECTIONS = 256  # at once, so that memory is bounded; more wait in the backlog
_BACKLOG = 128
_RECEIVE_TIMEOUT = 30.0  # seconds for a whole request
_STOP_TIMEOUT = 20.0  # seconds that stop() waits for running requests
_ACCEPT_PAUSE = 1.0  # seconds after a failed accept, which fails again at once (EMFILE)
_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid


class CniServer:
    """Serves one socket. `handle` is called in a worker thread and may block.

    It gets a request, the fd of its network namespace or None, and an event that is set when no client waits for the
    answer any more: an ADD should then undo what it did and fail. The fd is closed as soon as `handle` is done. An ADD
    that succeeds all the same is undone by a DEL.
    """

    def __init__(self, socket_path: Path, handle: Handle) -> None:
        self._path = socket_path
        self._handle = handle
        self._workers = Workers(_CONNECTIONS)
        self._listener: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Listen and serve. Raises SriovdpError as `listen` does."""
        await self.listen()
        self.serve()

    async def listen(self) -> None:
        """Let launchers connect and wait: none takes this node for one without an agent from now on.

        Raises SriovdpError when another agent answers at the socket, or when it cannot be made.
        """
        self._listener = await asyncio.to_thread(_listen, self._path)

    def serve(self) -> None:
        """Answer the clients that have connected, and those that will."""
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def stop(self) -> None:
        """Take no more requests, let the running ones finish (at most 20 s), and remove the socket."""
        if self._listener is None:
            return
        # removed before it is closed: the next agent may listen at the same path at once
        await asyncio.to_thread(self._path.unlink, missing_ok=True)
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        for connection in [found for found in self._connections if not found.is_running]:
            connection.drop()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                while self._connections:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            left = len(self._connections)
            logger.warning("CNI socket: %d requests are still running, their runtime gets no answer", left)
        for connection in list(self._connections):
            connection.drop()
        self._workers.shutdown()

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 - it is what called
        loop = asyncio.get_running_loop()
        try:
            accepted, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            logger.error("CNI socket: accepting a request failed, the agent retries: %s", error)
            loop.remove_reader(self._listener)
            loop.call_later(_ACCEPT_PAUSE, self.serve)
            return
        if not _is_trusted(accepted):
            accepted.close()
            return
        connection = Connection(accepted, self._handle, self._workers, self._forget)
        self._connections.add(connection)
        if len(self._connections) >= _CONNECTIONS:
            loop.remove_reader(self._listener)
        connection.start(_RECEIVE_TIMEOUT)

    def _forget(self, connection: Connection) -> None:
        is_full = len(self._connections) >= _CONNECTIONS
        self._connections.discard(connection)
        self._changed.set()
        if is_full:
            self.serve()


def _listen(path: Path) -> socket.socket:
    """A listening socket at the path, readable and writable by its owner only."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
        os.fchmod(listener.fileno(), 0o600)  # unix(7) sockets are bound with the mode they have: never open to others
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except SriovdpError:
        listener.close()
        raise
    except OSError as error:
        listener.close()
        raise SriovdpError(
            f"{path}: the CNI socket cannot be made: {error}",
            hint="the agent runs as root and needs its run directory writable",
        ) from error
    return listener


def _remove_stale(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_socket():
        raise SriovdpError(f"{path}: it is no socket", hint="remove it, or move the agent's run directory")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        refused = probe.connect_ex(str(path))
    if refused != errno.ECONNREFUSED:  # EAGAIN is an agent that is busy
        raise SriovdpError(f"{path}: another sriovdp agent answers", hint="stop it first; one agent serves a node")
    path.unlink()


def _is_trusted(connection: socket.socket) -> bool:
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid in {0, os.geteuid()}:
        return True
    logger.warning("CNI socket: dropped a connection of process %d: user %d is not root", pid, uid)
    return False
