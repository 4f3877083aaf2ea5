"""One launcher at the agent's socket: its request as it comes in, its verb, its reply.

A state for each callback in place of coroutines and tasks, which cost more than the rest of a small verb
(docs/performance.md). All methods but those of the worker run on the event loop, and none of them blocks: the socket is
a blocking one for the worker's sake, who sends the reply, and is read with MSG_DONTWAIT.
"""

import array
import asyncio
import contextlib
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from cni.protocol.spec import DECODING_FAILURE, INTERNAL, TRY_AGAIN, render_error
from cni.protocol.wire import (
    HEADER_SIZE,
    Header,
    Reply,
    Request,
    VersionError,
    WireError,
    decode_body,
    decode_header,
    encode_reply,
)
from cni.service.workers import Workers
from sriovdp.errors import BusyError, CniError

logger = logging.getLogger(__name__)

Handle = Callable[[Request, int | None, threading.Event], Reply]

_SEND_TIMEOUT = 30  # seconds without the client reading anything
_CHUNK = 1 << 16
_FDS_MAX = 8  # more than the launcher sends; the kernel closes what does not fit
_FDS_SPACE = socket.CMSG_SPACE(_FDS_MAX * array.array("i").itemsize)
_TIMEVAL = struct.Struct("@ll")


class Connection:
    """Calls `forget` on the loop when it is over. To be started once, on the loop."""

    def __init__(
        self,
        connection: socket.socket,
        handle: Handle,
        workers: Workers,
        forget: Callable[["Connection"], None],
    ) -> None:
        self._socket = connection
        self._handle = handle
        self._workers = workers
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._data = bytearray()
        self._header: Header | None = None
        self._netns_fd: int | None = None
        self._request: Request | None = None
        self._cancelled = threading.Event()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        """Whether its request is whole and not yet answered."""
        return self._request is not None

    def start(self, timeout: float) -> None:
        """Receive a request, within so many seconds."""
        self._timer = self._loop.call_later(timeout, self._give_up)
        self._loop.add_reader(self._socket, self._on_readable)
        self._on_readable()  # a launcher has often sent all of it by now

    def drop(self) -> None:
        """Wait for this client no longer, and cancel its verb; the verb's end, if there is one, is the connection's."""
        self._cancelled.set()
        if self._request is None:
            self._end()
            return
        self._loop.remove_reader(self._socket)
        with contextlib.suppress(OSError):  # the client has left
            self._socket.shutdown(socket.SHUT_RDWR)

    def _give_up(self) -> None:
        logger.warning("CNI socket: dropped a connection: its client sent nothing for too long")
        self.drop()

    def _on_readable(self) -> None:
        try:
            if self._request is None:
                self._receive()
            elif not self._socket.recv(_CHUNK, socket.MSG_DONTWAIT):  # this version sends nothing after a request
                self._leave()
        except BlockingIOError:
            return
        except WireError as error:
            self._refuse(error)
        except OSError as error:
            if self._request is not None:
                self._leave()
                return
            logger.info("CNI socket: a client went away: %s", error)
            self._end()

    def _leave(self) -> None:
        """The client closed the connection, as the kernel does for one that was killed, or had its reply."""
        self._loop.remove_reader(self._socket)
        request = self._request
        if request is not None:
            logger.info("%s: the client of its %s went away", request.caller, request.command)
            self._cancelled.set()

    def _receive(self) -> None:
        """Take what there is; once it is whole, start the verb. Raises WireError, and OSError when the peer goes."""
        part = self._receive_start() if not self._data else self._socket.recv(_CHUNK, socket.MSG_DONTWAIT)
        if not part:
            raise ConnectionResetError("it closed the connection before the end of its request")
        self._data += part
        if self._header is None and len(self._data) >= HEADER_SIZE:
            self._header = decode_header(bytes(self._data[:HEADER_SIZE]))
        if self._header is not None and len(self._data) >= (size := HEADER_SIZE + self._header.body_size):
            self._request = decode_body(self._header, bytes(self._data[HEADER_SIZE:size]))
            self._data.clear()
            if self._timer:
                self._timer.cancel()
            self._begin(self._request)

    def _begin(self, request: Request) -> None:
        try:
            job = self._workers.submit(request.command, partial(self._run, request))
        except BusyError as error:
            self._refuse(error)
        else:
            job.add_done_callback(self._on_done)

    def _receive_start(self) -> bytes:
        """The first bytes and the fd that comes with them; further fds are closed, here or later by the kernel."""
        # not socket.recv_fds: it loses the flag, and the fd would leak into IPAM plugins
        flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
        start, messages, _, _ = self._socket.recvmsg(_CHUNK, _FDS_SPACE, flags)
        fds = array.array("i")
        for level, kind, data in messages:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        for extra in fds[1:]:
            os.close(extra)
        self._netns_fd = fds[0] if fds else None
        return start

    def _refuse(self, error: WireError | BusyError) -> None:
        caller = self._request.caller if self._request else ""
        logger.warning("%s: refused a request: %s", caller or "CNI socket", error)
        code = TRY_AGAIN if isinstance(error, VersionError | BusyError) else DECODING_FAILURE
        said = error.message
        if isinstance(error, WireError):
            said = f"the sriovdp agent cannot read the request: {said}"
        try:
            self._socket.send(_encode(_fail(code, said, error.hint)), socket.MSG_DONTWAIT)
        except OSError as gone:
            logger.info("%s: the client went away: %s", caller or "CNI socket", gone)
        self._request = None
        self._end()

    def _end(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._close_netns()
        self._forget(self)

    def _close_netns(self) -> None:
        descriptor, self._netns_fd = self._netns_fd, None
        if descriptor is not None:
            os.close(descriptor)

    # in the worker

    def _run(self, request: Request) -> None:
        reply = self._call(request, self._netns_fd, self._cancelled)
        self._close_netns()
        try:
            if self._cancelled.is_set():
                raise ConnectionResetError("it did not wait for the answer")
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(_SEND_TIMEOUT, 0))
            self._socket.sendall(_encode(reply))
        except OSError as error:
            logger.info("%s: the client of its %s went away: %s", request.caller, request.command, error)
            if request.command == "ADD" and reply.exit_code == 0:
                self._undo(request)

    def _call(self, request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        try:
            return self._handle(request, netns_fd, cancelled)
        except Exception as error:
            logger.exception("%s: %s failed", request.caller, request.command)
            return _fail(INTERNAL, f"{type(error).__name__}: {error}")

    def _undo(self, request: Request) -> None:
        """Release what an ADD attached for a runtime that does not get the answer."""
        logger.warning("%s: undoing the ADD: its client did not take the answer", request.caller)
        reply = self._call(replace(request, command="DEL"), None, threading.Event())
        if reply.exit_code != 0:
            logger.error("%s: undoing the ADD failed: %s", request.caller, reply.stdout.decode(errors="replace"))

    def _on_done(self, job: "Future[None]") -> None:
        """In the worker, or on the loop for a request that did not begin."""
        self._close_netns()
        try:
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:  # the loop ended without waiting for this verb
            self._socket.close()
        if not job.cancelled() and (error := job.exception()):
            caller = self._request.caller if self._request else ""
            logger.error("%s: answering its request failed", caller or "CNI socket", exc_info=error)


def _encode(reply: Reply) -> bytes:
    try:
        return encode_reply(reply)
    except WireError as error:
        logger.error("CNI socket: a reply cannot be sent: %s", error)
        return encode_reply(_fail(INTERNAL, f"the agent's answer cannot be sent: {error.message}"))


def _fail(code: int, message: str, hint: str = "") -> Reply:
    return Reply(1, render_error(CniError(code, message, hint=hint)))
