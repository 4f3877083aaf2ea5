"""Clients of the agent's socket, and handlers behind it."""

import asyncio
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from cni.protocol.wire import Reply, Request, decode_reply, encode_request
from cni.service.connection import Handle
from cni.service.server import CniServer

ADD = Request("ADD", "id", "/run/netns/a", "net1", "", "/opt/cni/bin", b'{"name": "red"}')
TIMEOUT = 30.0  # seconds, a bound for a test that hangs


def answer(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
    """Echo the request's stdin."""
    return Reply(0, request.stdin)


@asynccontextmanager
async def serving(path: Path, handle: Handle = answer) -> AsyncIterator[CniServer]:
    """A started server that is stopped in the end."""
    server = CniServer(path, handle)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Held:
    """A handler that answers "done" once it may finish."""

    def __init__(self) -> None:
        self.running, self.finish = threading.Event(), threading.Event()

    def __call__(self, request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        """Say that it runs, and wait."""
        self.running.set()
        assert self.finish.wait(TIMEOUT)
        return Reply(0, b"done")


def converse(path: Path, data: bytes, *files: Path) -> bytes:
    """Send all of it with the files' fds, keeping none of them open, and give all that comes back."""
    with socket.socket(socket.AF_UNIX) as connection, ExitStack() as opened:
        connection.settimeout(TIMEOUT)
        connection.connect(str(path))
        fds = [opened.enter_context(file.open("a")).fileno() for file in files]
        try:
            sent = socket.send_fds(connection, [data], fds) if fds else 0
            connection.sendall(data[sent:])
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server has seen enough
        opened.close()
        return read_all(connection)


def leave(path: Path, request: Request, size: int | None = None) -> None:
    """Send a request, or a part of it, and close the connection."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(encode_request(request)[:size])


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes; a reset is how it closes with input unread."""
    received = b""
    try:
        while part := connection.recv(1 << 16):
            received += part
    except ConnectionResetError:
        pass
    return received


async def call(path: Path, request: Request = ADD, *files: Path) -> Reply:
    """Exchange one request, off the loop."""
    return decode_reply(await asyncio.to_thread(converse, path, encode_request(request), *files))


async def refusal(path: Path, data: bytes) -> Any:
    """The CNI error that these bytes are answered with."""
    reply = decode_reply(await asyncio.to_thread(converse, path, data))
    assert reply.exit_code == 1
    return json.loads(reply.stdout)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens on the loop or in a thread."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110 - what happens in a thread or a log sets no event
            await asyncio.sleep(0.01)


def open_inodes() -> set[tuple[int, int]]:
    """Device and inode of every fd of this process."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            status = os.fstat(int(entry.name))
        except OSError:
            continue  # the directory's own
        found.add((status.st_dev, status.st_ino))
    return found


def identify(path: Path) -> tuple[int, int]:
    """Device and inode of a file."""
    return path.stat().st_dev, path.stat().st_ino
