"""The agent's socket for the launcher: takes requests with their network namespace and sends back replies.

Receiving and sending happen on the event loop, never blocking it; the verbs run in worker threads. What two verbs must
not do at once is for the verbs to lock: requests start in the order in which they came, whichever PF they are about.
"""

import array
import asyncio
import errno
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cni.spec import DECODING_FAILURE, INTERNAL, TRY_AGAIN, render_error
from cni.wire import HEADER_SIZE, Reply, Request, VersionError, WireError, decode_body, decode_header, encode_reply
from sriovdp.errors import CniError, SriovdpError

logger = logging.getLogger(__name__)

Handle = Callable[[Request, int | None, threading.Event], Reply]

_WORKERS = 16
_CONNECTIONS = 256  # at once, so that memory is bounded; more wait in the backlog
_BACKLOG = 128
_RECEIVE_TIMEOUT = 30.0  # seconds for a whole request
_SEND_TIMEOUT = 30.0  # seconds for a whole reply
_STOP_TIMEOUT = 20.0  # seconds that stop() waits for running requests
_ACCEPT_PAUSE = 1.0  # seconds after a failed accept, which fails again at once (EMFILE)
_FDS_MAX = 8  # more than the launcher sends; the kernel closes what does not fit
_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid


class CniServer:
    """Serves one socket. `handle` is called in a worker thread and may block.

    It gets a request, the fd of its network namespace or None, and an event that is set when nobody waits for the
    answer any more: an ADD should then undo what it did and fail. The fd is closed as soon as `handle` is done. An ADD
    that succeeds all the same is undone by a DEL.
    """

    def __init__(self, socket_path: Path, handle: Handle) -> None:
        self._path = socket_path
        self._handle = handle
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="cni")
        self._room = asyncio.Semaphore(_CONNECTIONS)
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen and serve. Raises SriovdpError as `listen` does."""
        await self.listen()
        self.serve()

    async def listen(self) -> None:
        """Let launchers connect and wait: none takes this node for one without an agent from now on.

        Raises SriovdpError when another agent answers at the socket, or when it can not be made.
        """
        self._listener = await asyncio.to_thread(_listen, self._path)

    def serve(self) -> None:
        """Answer whoever has connected, and will."""
        assert self._listener, "listen() comes first"  # noqa: S101
        self._accepting = asyncio.create_task(self._accept(self._listener))

    async def stop(self) -> None:
        """Take no more requests, let the running ones finish (at most 20 s), and remove the socket."""
        if self._listener is None:
            return
        # removed before it is closed: whoever starts next may listen at the same path at once
        await asyncio.to_thread(self._path.unlink, missing_ok=True)
        if self._accepting:
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
        self._listener.close()
        self._listener = None
        for connection in self._connections - self._running:
            connection.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=_STOP_TIMEOUT)
        if self._running:
            logger.warning("%d CNI requests are still running, their runtime gets no answer", len(self._running))
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._room.release()
                logger.error("accepting a CNI request failed, trying again: %s", error)
                await asyncio.sleep(_ACCEPT_PAUSE)
            else:
                self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        task = asyncio.create_task(self._serve(connection))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        task.add_done_callback(lambda _: connection.close())  # also when it was cancelled before its first step
        task.add_done_callback(lambda _: self._room.release())

    async def _serve(self, connection: socket.socket) -> None:
        try:
            if _is_trusted(connection) and (request := await self._receive(connection)):
                await self._answer(connection, *request)
        except TimeoutError:
            logger.warning("dropped a CNI connection: its client neither sent nor read for too long")
        except OSError as error:
            logger.info("a CNI client went away: %s", error)
        except Exception:
            logger.exception("serving a CNI connection failed")

    async def _receive(self, connection: socket.socket) -> tuple[Request, int | None] | None:
        """A request and the fd of its network namespace; None when it can not be read, and its sender was told."""
        try:
            async with asyncio.timeout(_RECEIVE_TIMEOUT):
                return await _receive(connection)
        except WireError as error:
            logger.warning("refused a CNI request: %s", error)
            code = TRY_AGAIN if isinstance(error, VersionError) else DECODING_FAILURE
            said = f"the sriovdp agent can not read the request: {error.message}"
            await _send(connection, _refuse(code, said, error.hint))
            return None

    async def _answer(self, connection: socket.socket, request: Request, netns_fd: int | None) -> None:
        task = asyncio.current_task()
        assert task  # noqa: S101 - there is one inside a coroutine of asyncio
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        cancelled = threading.Event()
        watching = asyncio.create_task(_watch(connection, request, cancelled))
        try:
            reply = await self._run(request, netns_fd, cancelled)
        finally:
            watching.cancel()
        try:
            if cancelled.is_set():
                raise ConnectionResetError("it did not wait for its answer")
            await _send(connection, reply)
        except (OSError, TimeoutError):
            if request.command == "ADD" and reply.exit_code == 0:
                await self._undo(request)
            raise

    async def _run(self, request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        job = self._workers.submit(self._handle, request, netns_fd, cancelled)
        if netns_fd is not None:
            # by the job and not here: a cancelled task must not close what the thread still uses
            job.add_done_callback(lambda _: os.close(netns_fd))
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        except Exception as error:
            logger.exception("%s of %s %s failed", request.command, request.container_id, request.ifname)
            return _refuse(INTERNAL, f"{type(error).__name__}: {error}")

    async def _undo(self, request: Request) -> None:
        """Release what an ADD attached for a runtime that will never learn of it."""
        logger.warning("undoing the ADD of %s %s: nobody took its answer", request.container_id, request.ifname)
        reply = await self._run(replace(request, command="DEL"), None, threading.Event())
        if reply.exit_code != 0:
            logger.error("undoing that ADD failed: %s", reply.stdout.decode(errors="replace"))


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
            f"the socket {path} for the CNI launcher can not be made: {error}",
            hint="the agent runs as root and needs its run directory writable",
        ) from error
    return listener


def _remove_stale(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_socket():
        raise SriovdpError(f"{path} is no socket", hint="remove it, or move the agent's run directory")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        refused = probe.connect_ex(str(path))
    if refused != errno.ECONNREFUSED:  # EAGAIN is an agent that is busy
        raise SriovdpError(f"another sriovdp agent answers at {path}", hint="stop it first; one agent serves a node")
    path.unlink()


def _is_trusted(connection: socket.socket) -> bool:
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid in {0, os.geteuid()}:
        return True
    logger.warning("dropped a CNI connection of process %d: user %d is not root", pid, uid)
    return False


async def _receive(connection: socket.socket) -> tuple[Request, int | None]:
    """A whole request and its fd, which is the caller's to close. Raises WireError, and OSError when the peer goes."""
    await _wait_readable(connection)
    start, netns_fd = _receive_start(connection)
    try:
        header = decode_header(start + await _receive_exactly(connection, HEADER_SIZE - len(start)))
        return decode_body(header, await _receive_exactly(connection, header.body_size)), netns_fd
    except BaseException:
        if netns_fd is not None:
            os.close(netns_fd)
        raise


async def _watch(connection: socket.socket, request: Request, cancelled: threading.Event) -> None:
    """Set the event when the client closes the connection, as the kernel does for one that was killed."""
    try:
        while await asyncio.get_running_loop().sock_recv(connection, 4096):
            pass  # nothing is told after a request in this version
    except OSError:
        pass  # a reset says the same
    logger.info("nobody waits any more for the %s of %s %s", request.command, request.container_id, request.ifname)
    cancelled.set()


async def _send(connection: socket.socket, reply: Reply) -> None:
    async with asyncio.timeout(_SEND_TIMEOUT):
        await asyncio.get_running_loop().sock_sendall(connection, _encode(reply))


async def _wait_readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)


def _receive_start(connection: socket.socket) -> tuple[bytes, int | None]:
    """The first bytes and the fd that comes with them; further fds are closed, here or later by the kernel."""
    # not socket.recv_fds: it loses the flag, and the fd would leak into IPAM plugins
    space = socket.CMSG_SPACE(_FDS_MAX * array.array("i").itemsize)
    start, messages, _, _ = connection.recvmsg(HEADER_SIZE, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    for extra in fds[1:]:
        os.close(extra)
    return start, fds[0] if fds else None


async def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    filled = 0
    while filled < size:
        got = await asyncio.get_running_loop().sock_recv_into(connection, memoryview(data)[filled:])
        if not got:
            raise ConnectionResetError(f"it closed the connection {size - filled} bytes before the end of its request")
        filled += got
    return bytes(data)


def _encode(reply: Reply) -> bytes:
    try:
        return encode_reply(reply)
    except WireError as error:
        logger.error("a CNI reply can not be sent: %s", error)
        return encode_reply(_refuse(INTERNAL, f"the agent's answer can not be sent: {error.message}"))


def _refuse(code: int, message: str, hint: str = "") -> Reply:
    return Reply(1, render_error(CniError(code, message, hint=hint)))
