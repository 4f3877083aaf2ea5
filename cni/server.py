"""The agent's socket for the launcher: takes requests with their network namespace and sends back replies.

Receiving and sending happen on the event loop, never blocking it; the verbs run in worker threads.
"""

import array
import asyncio
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cni.spec import DECODING_FAILURE, INTERNAL, render_error
from cni.wire import HEADER_SIZE, Reply, Request, WireError, decode_body, decode_header, encode_reply
from sriovdp.errors import CniError, SriovdpError

logger = logging.getLogger(__name__)

Handle = Callable[[Request, int | None], Reply]

_WORKERS = 16
_BACKLOG = 128
_RECEIVE_TIMEOUT = 30.0  # seconds for a whole request
_SEND_TIMEOUT = 30.0  # seconds for a whole reply
_STOP_TIMEOUT = 20.0  # seconds that stop() waits for running requests
_ACCEPT_PAUSE = 1.0  # seconds after a failed accept, which fails again at once (EMFILE)
_FDS_MAX = 8  # more than the launcher sends; the kernel closes what does not fit
_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid


class CniServer:
    """Serves one socket. `handle` is called in a worker thread and may block.

    It gets a request and the fd of its network namespace, or None. The fd is closed as soon as `handle` is done.
    """

    def __init__(self, socket_path: Path, handle: Handle) -> None:
        self._path = socket_path
        self._handle = handle
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="cni")
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises SriovdpError when another agent answers at the socket, or when it can not be made."""
        self._listener = await asyncio.to_thread(_listen, self._path)
        self._accepting = asyncio.create_task(self._accept(self._listener))

    async def stop(self) -> None:
        """Take no more requests, let the running ones finish (at most 20 s), and remove the socket."""
        if self._listener is None or self._accepting is None:
            return
        # removed before it is closed: whoever starts next may listen at the same path at once
        await asyncio.to_thread(self._path.unlink, missing_ok=True)
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
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                logger.error("accepting a CNI request failed, trying again: %s", error)
                await asyncio.sleep(_ACCEPT_PAUSE)
            else:
                self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        task = asyncio.create_task(self._serve(connection))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        task.add_done_callback(lambda _: connection.close())  # also when it was cancelled before its first step

    async def _serve(self, connection: socket.socket) -> None:
        try:
            if _is_trusted(connection):
                reply = await self._answer(connection)
                async with asyncio.timeout(_SEND_TIMEOUT):
                    await asyncio.get_running_loop().sock_sendall(connection, _encode(reply))
        except TimeoutError:
            logger.warning("dropped a CNI connection: its client neither sent nor read for too long")
        except OSError as error:
            logger.info("a CNI client went away: %s", error)
        except Exception:
            logger.exception("serving a CNI connection failed")

    async def _answer(self, connection: socket.socket) -> Reply:
        try:
            async with asyncio.timeout(_RECEIVE_TIMEOUT):
                request, netns_fd = await _receive(connection)
        except WireError as error:
            logger.warning("refused a CNI request: %s", error)
            return _refuse(DECODING_FAILURE, f"the sriovdp agent can not read the request: {error.message}", error.hint)
        task = asyncio.current_task()
        assert task  # noqa: S101 - there is one inside a coroutine of asyncio
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await self._run(request, netns_fd)

    async def _run(self, request: Request, netns_fd: int | None) -> Reply:
        job = self._workers.submit(self._handle, request, netns_fd)
        if netns_fd is not None:
            # by the job and not here: a cancelled task must not close what the thread still uses
            job.add_done_callback(lambda _: os.close(netns_fd))
        try:
            return await asyncio.wrap_future(job)
        except Exception as error:
            logger.exception("%s of %s %s failed", request.command, request.container_id, request.ifname)
            return _refuse(INTERNAL, f"{type(error).__name__}: {error}")


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
