"""The agent's socket, on real Unix sockets."""

import asyncio
import json
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cni import server as server_module
from cni.server import CniServer
from cni.spec import DECODING_FAILURE, INTERNAL
from cni.wire import STDIN_MAX, STDOUT_MAX, Reply, Request, decode_reply, encode_request
from sriovdp.errors import SriovdpError

ADD = Request("ADD", "id", "/run/netns/a", "net1", "", "/opt/cni/bin", b'{"name": "red"}')
TIMEOUT = 30.0  # seconds, a bound for a test that hangs


def answer(request: Request, netns_fd: int | None) -> Reply:
    """Echo the request's stdin."""
    return Reply(0, request.stdin)


@asynccontextmanager
async def serving(path: Path, handle: Callable[[Request, int | None], Reply] = answer) -> AsyncIterator[CniServer]:
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

    def __call__(self, request: Request, netns_fd: int | None) -> Reply:
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


async def test_request_reaches_the_handler_and_its_reply_comes_back(tmp_path: Path) -> None:
    """Every field arrives, and exit code and stdout return."""
    seen: list[tuple[Request, int | None]] = []

    def handle(request: Request, netns_fd: int | None) -> Reply:
        seen.append((request, netns_fd))
        return Reply(7, b"printed")

    async with serving(tmp_path / "agent.sock", handle):
        assert await call(tmp_path / "agent.sock") == Reply(7, b"printed")

    assert seen == [(ADD, None)]


@pytest.mark.parametrize("outcome", ["answers", "raises"])
async def test_fd_arrives_and_is_closed_afterwards(tmp_path: Path, outcome: str) -> None:
    """The handler has the sender's file, closed on exec; when the reply is there, nobody here has it open."""
    file, extra = tmp_path / "netns", tmp_path / "extra"
    seen: list[tuple[int, int]] = []

    def handle(request: Request, netns_fd: int | None) -> Reply:
        assert netns_fd is not None
        assert not os.get_inheritable(netns_fd)
        status = os.fstat(netns_fd)
        seen.append((status.st_dev, status.st_ino))
        if outcome == "raises":
            raise RuntimeError("boom")
        return Reply(0, b"")

    async with serving(tmp_path / "agent.sock", handle):
        reply = await call(tmp_path / "agent.sock", ADD, file, extra)
        left = open_inodes()

    assert reply.exit_code == (0 if outcome == "answers" else 1)
    assert seen == [identify(file)]
    assert not left & {identify(file), identify(extra)}


async def test_fd_of_a_malformed_request_is_closed(tmp_path: Path) -> None:
    """A namespace is not kept alive by a request that no handler sees."""
    file = tmp_path / "netns"

    async with serving(tmp_path / "agent.sock"):
        assert await asyncio.to_thread(converse, tmp_path / "agent.sock", b"HTTP" + encode_request(ADD)[4:], file)
        assert identify(file) not in open_inodes()


async def test_two_requests_run_at_once(tmp_path: Path) -> None:
    """A handler that waits for another request's handler gets it."""
    both = threading.Barrier(2, timeout=TIMEOUT)

    def handle(request: Request, netns_fd: int | None) -> Reply:
        both.wait()
        return Reply(0, request.stdin)

    async with serving(tmp_path / "agent.sock", handle):
        replies = await asyncio.gather(*(call(tmp_path / "agent.sock") for _ in range(2)))

    assert replies == [Reply(0, ADD.stdin)] * 2


async def test_more_requests_than_workers_are_all_answered(tmp_path: Path) -> None:
    """What finds no free worker waits for one."""
    async with serving(tmp_path / "agent.sock"):
        requests = [Request("DEL", str(number), "", "", "", "", str(number).encode()) for number in range(40)]
        replies = await asyncio.gather(*(call(tmp_path / "agent.sock", request) for request in requests))

    assert replies == [Reply(0, request.stdin) for request in requests]


async def test_largest_request_and_reply(tmp_path: Path) -> None:
    """Frames that take many reads and writes arrive whole."""
    largest = Request("ADD", "id", "", "", "", "", os.urandom(STDIN_MAX))
    stdout = os.urandom(STDOUT_MAX)
    seen: list[Request] = []

    def handle(request: Request, netns_fd: int | None) -> Reply:
        seen.append(request)
        return Reply(0, stdout)

    async with serving(tmp_path / "agent.sock", handle):
        reply = await call(tmp_path / "agent.sock", largest)

    assert (seen, reply) == ([largest], Reply(0, stdout))


async def test_request_in_single_bytes(tmp_path: Path) -> None:
    """A request may come in any pieces; the first has the fd."""

    def send() -> Reply:
        with socket.socket(socket.AF_UNIX) as connection, (tmp_path / "netns").open("w") as file:
            connection.connect(str(tmp_path / "agent.sock"))
            data = encode_request(ADD)
            socket.send_fds(connection, [data[:1]], [file.fileno()])
            for byte in data[1:]:
                connection.send(bytes([byte]))
            return decode_reply(read_all(connection))

    async with serving(tmp_path / "agent.sock", lambda _, netns_fd: Reply(0, b"no fd" if netns_fd is None else b"fd")):
        assert await asyncio.to_thread(send) == Reply(0, b"fd")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n", "starts with b'GET '"),
        (struct.pack(">4sIIII", b"SRIO", 9, 0, 0, 0), "protocol version 9"),
        (struct.pack(">4sIIII", b"SRIO", 1, 0, 0, STDIN_MAX + 1) + b"x" * (STDIN_MAX + 1), "stdin of 1048577"),
        (struct.pack(">4sIIII", b"SRIO", 1, 0, 4, 0) + b"junk", "does not end with a NUL"),
    ],
    ids=["garbage", "version", "oversize", "environment"],
)
async def test_malformed_request_is_told(
    tmp_path: Path, data: bytes, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What can not be read is answered with a CNI error and logged, and the next request is served."""
    async with serving(tmp_path / "agent.sock"):
        error = await refusal(tmp_path / "agent.sock", data)
        assert (await call(tmp_path / "agent.sock")).exit_code == 0

    assert error["code"] == DECODING_FAILURE
    assert message in error["msg"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert message in caplog.text


async def test_handler_that_raises_is_an_internal_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A fault of the program reaches the runtime as code 999, and the log as a traceback."""

    def handle(request: Request, netns_fd: int | None) -> Reply:
        raise ZeroDivisionError("boom")

    async with serving(tmp_path / "agent.sock", handle):
        error = await refusal(tmp_path / "agent.sock", encode_request(ADD))

    assert (error["code"], error["msg"]) == (INTERNAL, "ZeroDivisionError: boom")
    assert "Traceback" in caplog.text


async def test_reply_that_is_too_large_is_an_error(tmp_path: Path) -> None:
    """The launcher gets an error that it can print."""
    async with serving(tmp_path / "agent.sock", lambda request, _: Reply(0, b"x" * (STDOUT_MAX + 1))):
        error = await refusal(tmp_path / "agent.sock", encode_request(ADD))

    assert error["code"] == INTERNAL


@pytest.mark.parametrize("size", [0, 3, 25, None], ids=["nothing", "part of the header", "part of the body", "all"])
async def test_client_that_leaves_before_its_reply_is_no_error(
    tmp_path: Path, size: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """However much it had sent, it is told in the log below warnings, and the next request is served."""
    caplog.set_level("INFO")
    held = Held()

    def leave() -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "agent.sock"))
            connection.sendall(encode_request(ADD)[:size])
        held.finish.set()

    async with serving(tmp_path / "agent.sock", held):
        await asyncio.to_thread(leave)
        await until(lambda: "went away" in caplog.text)
        assert await call(tmp_path / "agent.sock") == Reply(0, b"done")

    assert {record.levelname for record in caplog.records} == {"INFO"}


async def test_client_that_never_sends_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unfinished request is not waited for without end."""
    monkeypatch.setattr(server_module, "_RECEIVE_TIMEOUT", 0.05)
    async with serving(tmp_path / "agent.sock"):
        received = await asyncio.to_thread(converse, tmp_path / "agent.sock", encode_request(ADD)[:-1])

    assert received == b""
    assert "neither sent nor read" in caplog.text


async def test_only_root_and_the_own_user_are_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another user that gets at the socket all the same is dropped without an answer."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user: run this test as root")
    script = """if True:
        import os, socket, sys
        connection = socket.socket(socket.AF_UNIX)
        os.chdir(sys.argv[1])
        os.setresuid(65534, 65534, 65534)
        connection.connect("agent.sock")
        sys.exit(len(connection.recv(1)))
    """
    async with serving(tmp_path / "agent.sock"):
        os.chmod(tmp_path / "agent.sock", 0o666)  # noqa: PTH101
        os.chmod(tmp_path, 0o755)  # noqa: PTH101 - pathlib is taken for blocking
        command = [sys.executable, "-I", "-c", script, str(tmp_path)]
        child = await asyncio.to_thread(subprocess.run, command, timeout=TIMEOUT, check=False, capture_output=True)

    assert (child.returncode, child.stderr) == (0, b"")
    assert "user 65534 is not root" in caplog.text


async def test_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    """Mode 0600, in a directory that is made where it is missing; gone after stop."""
    path = tmp_path / "run" / "agent.sock"
    async with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755

    assert not path.exists()


async def test_second_server_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    """Two agents on one node would both change VFs; the first one goes on serving."""
    async with serving(tmp_path / "agent.sock"):
        with pytest.raises(SriovdpError, match="another sriovdp agent answers at"):
            await CniServer(tmp_path / "agent.sock", answer).start()
        assert (await call(tmp_path / "agent.sock")).exit_code == 0


async def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    """The socket of an agent that was killed is no obstacle."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "agent.sock"))

    async with serving(tmp_path / "agent.sock"):
        assert (await call(tmp_path / "agent.sock")).exit_code == 0


@pytest.mark.parametrize(
    ("below", "reason"), [("", "is no socket"), ("agent.sock", "for the CNI launcher can not be made")]
)
async def test_file_in_the_way_is_told_and_kept(tmp_path: Path, below: str, reason: str) -> None:
    """A file where the socket or its directory should be is not removed."""
    file = tmp_path / "run"
    file.write_text("precious")

    with pytest.raises(SriovdpError, match=f"{file / below} {reason}"):
        await CniServer(file / below, answer).start()

    assert file.read_text() == "precious"


async def test_stop_waits_for_running_requests_and_drops_idle_ones(tmp_path: Path) -> None:
    """A request that runs is answered; new ones find no socket, and who has not sent anything is let go."""
    path, held = tmp_path / "agent.sock", Held()
    async with serving(path, held) as server:
        idle = asyncio.create_task(asyncio.to_thread(converse, path, b""))
        client = asyncio.create_task(call(path))
        await until(held.running.is_set)
        stopping = asyncio.create_task(server.stop())
        assert await idle == b""
        assert not path.exists()
        assert not stopping.done()
        held.finish.set()
        assert await client == Reply(0, b"done")
        await stopping


async def test_stop_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that hangs is given up with a word in the log; its namespace's fd is closed once it ends."""
    monkeypatch.setattr(server_module, "_STOP_TIMEOUT", 0.05)
    path, file, held = tmp_path / "agent.sock", tmp_path / "netns", Held()
    async with serving(path, held) as server:
        client = asyncio.create_task(asyncio.to_thread(converse, path, encode_request(ADD), file))
        await until(held.running.is_set)
        await server.stop()
        assert await client == b""
        assert "1 CNI requests are still running" in caplog.text
        assert identify(file) in open_inodes()
        held.finish.set()
        await until(lambda: identify(file) not in open_inodes())


async def test_stop_without_start_does_nothing(tmp_path: Path) -> None:
    """An agent that failed before it listened can stop all the same."""
    await CniServer(tmp_path / "agent.sock", answer).stop()
