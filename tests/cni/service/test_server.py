"""The agent's socket, on real Unix sockets."""

import asyncio
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cni.protocol.spec import DECODING_FAILURE, INTERNAL, TRY_AGAIN
from cni.protocol.wire import STDIN_MAX, STDOUT_MAX, Reply, Request, decode_reply, encode_request
from cni.service.server import CniServer
from sriovdp.errors import SriovdpError
from tests.cni.conversing import (
    ADD,
    TIMEOUT,
    answer,
    call,
    converse,
    identify,
    open_inodes,
    read_all,
    refusal,
    serving,
)


async def test_request_reaches_the_handler_and_its_reply_comes_back(tmp_path: Path) -> None:
    """Every field arrives, and exit code and stdout return."""
    seen: list[tuple[Request, int | None]] = []

    def handle(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        seen.append((request, netns_fd))
        return Reply(7, b"printed")

    async with serving(tmp_path / "agent.sock", handle):
        assert await call(tmp_path / "agent.sock") == Reply(7, b"printed")

    assert seen == [(ADD, None)]


@pytest.mark.parametrize("outcome", ["answers", "raises"])
async def test_fd_arrives_and_is_closed_afterwards(tmp_path: Path, outcome: str) -> None:
    """The handler has the sender's file, closed on exec; when the reply is there, no one here has it open."""
    file, extra = tmp_path / "netns", tmp_path / "extra"
    seen: list[tuple[int, int]] = []

    def handle(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
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


async def test_largest_request_and_reply(tmp_path: Path) -> None:
    """Frames that take many reads and writes arrive whole."""
    largest = Request("ADD", "id", "", "", "", "", os.urandom(STDIN_MAX))
    stdout = os.urandom(STDOUT_MAX)
    seen: list[Request] = []

    def handle(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
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

    async with serving(
        tmp_path / "agent.sock", lambda _, netns_fd, __: Reply(0, b"no fd" if netns_fd is None else b"fd")
    ):
        assert await asyncio.to_thread(send) == Reply(0, b"fd")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n", "starts with b'GET '"),
        (struct.pack(">4sIIII", b"SRIO", 1, 0, 0, STDIN_MAX + 1) + b"x" * (STDIN_MAX + 1), "stdin of 1048577"),
        (struct.pack(">4sIIII", b"SRIO", 1, 0, 4, 0) + b"junk", "does not end with a NUL"),
    ],
    ids=["garbage", "oversize", "environment"],
)
async def test_malformed_request_is_reported(
    tmp_path: Path, data: bytes, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be read is answered with a CNI error and logged, and the next request is served."""
    async with serving(tmp_path / "agent.sock"):
        error = await refusal(tmp_path / "agent.sock", data)
        assert (await call(tmp_path / "agent.sock")).exit_code == 0

    assert error["code"] == DECODING_FAILURE
    assert message in error["msg"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert message in caplog.text


@pytest.mark.parametrize(("version", "older"), [(9, "the agent is the older one"), (0, "the launcher is the older")])
async def test_launcher_of_another_version_is_reported_in_version_1(tmp_path: Path, version: int, older: str) -> None:
    """Every launcher can print a reply of version 1; it says which side to update, and to try again."""
    async with serving(tmp_path / "agent.sock"):
        error = await refusal(tmp_path / "agent.sock", struct.pack(">4sIIII", b"SRIO", version, 0, 0, 0) + b"more")

    assert error["code"] == TRY_AGAIN
    assert f"protocol version {version}, the sriovdp agent 1" in error["msg"]
    assert older in error["details"]


async def test_handler_that_raises_is_an_internal_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A fault of the program reaches the runtime as code 999, and the log as a traceback."""

    def handle(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        raise ZeroDivisionError("boom")

    async with serving(tmp_path / "agent.sock", handle):
        error = await refusal(tmp_path / "agent.sock", encode_request(ADD))

    assert (error["code"], error["msg"]) == (INTERNAL, "ZeroDivisionError: boom")
    assert "Traceback" in caplog.text


async def test_reply_that_is_too_large_is_an_error(tmp_path: Path) -> None:
    """The launcher gets an error that it can print."""
    async with serving(tmp_path / "agent.sock", lambda request, _, __: Reply(0, b"x" * (STDOUT_MAX + 1))):
        error = await refusal(tmp_path / "agent.sock", encode_request(ADD))

    assert error["code"] == INTERNAL


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
        with pytest.raises(SriovdpError, match="another sriovdp agent answers"):
            await CniServer(tmp_path / "agent.sock", answer).start()
        assert (await call(tmp_path / "agent.sock")).exit_code == 0


async def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    """The socket of an agent that was killed is no obstacle."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "agent.sock"))

    async with serving(tmp_path / "agent.sock"):
        assert (await call(tmp_path / "agent.sock")).exit_code == 0


@pytest.mark.parametrize(
    ("below", "reason"), [("", "it is no socket"), ("agent.sock", "the CNI socket cannot be made")]
)
async def test_file_in_the_way_is_reported_and_kept(tmp_path: Path, below: str, reason: str) -> None:
    """A file where the socket or its directory should be is not removed."""
    file = tmp_path / "run"
    file.write_text("precious")

    with pytest.raises(SriovdpError, match=f"{file / below}: {reason}"):
        await CniServer(file / below, answer).start()

    assert file.read_text() == "precious"
