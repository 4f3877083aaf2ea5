"""The agent's socket with many clients, and with such that leave: bounds, cancelling, stopping."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from cni.protocol.wire import STDIN_MAX, STDOUT_MAX, Reply, Request, encode_request
from cni.service import server as server_module
from cni.service.server import CniServer
from tests.cni.conversing import (
    ADD,
    TIMEOUT,
    Held,
    answer,
    call,
    converse,
    identify,
    leave,
    open_inodes,
    serving,
    until,
)


async def test_two_requests_run_at_once(tmp_path: Path) -> None:
    """A handler that waits for another request's handler gets it."""
    both = threading.Barrier(2, timeout=TIMEOUT)

    def handle(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
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


@pytest.mark.parametrize("size", [0, 3, 25], ids=["nothing", "part of the header", "part of the body"])
async def test_client_that_leaves_before_its_request_is_no_error(
    tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """However much it had sent, it is logged below warnings, and the next request is served."""
    caplog.set_level("INFO")

    async with serving(tmp_path / "agent.sock"):
        await asyncio.to_thread(leave, tmp_path / "agent.sock", ADD, size)
        await until(lambda: "went away" in caplog.text)
        assert (await call(tmp_path / "agent.sock")).exit_code == 0

    assert {record.levelname for record in caplog.records} == {"INFO"}


@pytest.mark.parametrize(
    ("command", "code", "then"),
    [("ADD", 0, ["ADD", "DEL"]), ("ADD", 1, ["ADD"]), ("DEL", 0, ["DEL"])],
    ids=["ADD done", "ADD rolled back", "DEL"],
)
async def test_client_that_leaves_before_its_reply_cancels(
    tmp_path: Path, command: str, code: int, then: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The verb's event is set, and an ADD that is done all the same is undone by a DEL, which cannot be cancelled."""
    caplog.set_level("INFO")
    seen: list[str] = []

    def handle(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        seen.append(request.command)
        if len(seen) == 1:
            assert cancelled.wait(TIMEOUT)
            return Reply(code, b"answer")
        assert not cancelled.is_set()
        return Reply(0, b"")

    async with serving(tmp_path / "agent.sock", handle):
        await asyncio.to_thread(leave, tmp_path / "agent.sock", Request(command, "id", "", "net1", "", "", b""))
        await until(lambda: "went away" in caplog.text)

    assert seen == then


async def test_stop_cancels_what_it_does_not_wait_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb that an agent leaves behind at its end learns of it, and can roll back."""
    monkeypatch.setattr(server_module, "_STOP_TIMEOUT", 0.05)
    running, rolled_back = threading.Event(), threading.Event()

    def handle(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        running.set()
        assert cancelled.wait(TIMEOUT)
        rolled_back.set()
        return Reply(1, b"")

    async with serving(tmp_path / "agent.sock", handle) as server:
        client = asyncio.create_task(asyncio.to_thread(converse, tmp_path / "agent.sock", encode_request(ADD)))
        await until(running.is_set)
        await server.stop()
        assert await client == b""
    await until(rolled_back.is_set)


async def test_listening_server_answers_once_it_serves(tmp_path: Path) -> None:
    """Between `listen` and `serve`, as while the spool is replayed, launchers wait; none is refused."""
    server = CniServer(tmp_path / "agent.sock", answer)
    await server.listen()
    try:
        client = asyncio.create_task(call(tmp_path / "agent.sock"))
        done, _ = await asyncio.wait({client}, timeout=0.2)
        assert not done
        server.serve()
        assert (await client).exit_code == 0
    finally:
        await server.stop()


async def test_connections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients over the bound wait in the backlog, unread, until others are done."""
    monkeypatch.setattr(server_module, "_CONNECTIONS", 2)
    path, held = tmp_path / "agent.sock", Held()
    async with serving(path, held) as server:
        clients = [asyncio.create_task(call(path)) for _ in range(5)]
        await until(lambda: len(server._connections) == 2)
        await asyncio.sleep(0.1)
        assert len(server._connections) == 2
        held.finish.set()
        assert await asyncio.gather(*clients) == [Reply(0, b"done")] * 5


async def test_nothing_blocks_the_event_loop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The debug mode of asyncio reports slow callbacks: none is while verbs, clients and frames are."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 5.0  # far above what a busy machine costs, far below what verbs and clients wait
    path, held = tmp_path / "agent.sock", Held()

    def handle(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        held(request, netns_fd, cancelled)
        return Reply(0, b"x" * STDOUT_MAX)

    async with serving(path, handle):
        largest = Request("DEL", "id", "", "net1", "", "", b"x" * STDIN_MAX)
        clients = [asyncio.create_task(call(path, largest)) for _ in range(20)]
        idle = asyncio.create_task(asyncio.to_thread(converse, path, b"SRIO"))
        await until(held.running.is_set)
        held.finish.set()  # which a loop that waits for the verb never comes to
        assert [len(reply.stdout) for reply in await asyncio.gather(*clients)] == [STDOUT_MAX] * 20
    assert await idle == b""
    assert "Executing" not in caplog.text

    loop.slow_callback_duration = 0.01
    loop.call_soon(time.sleep, 0.05)  # the proof that it would be reported
    await until(lambda: "Executing" in caplog.text)


async def test_client_that_never_sends_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unfinished request is not waited for without end."""
    monkeypatch.setattr(server_module, "_RECEIVE_TIMEOUT", 0.05)
    async with serving(tmp_path / "agent.sock"):
        received = await asyncio.to_thread(converse, tmp_path / "agent.sock", encode_request(ADD)[:-1])

    assert received == b""
    assert "its client sent nothing for too long" in caplog.text


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
        assert "1 requests are still running" in caplog.text
        assert identify(file) in open_inodes()
        held.finish.set()
        await until(lambda: identify(file) not in open_inodes())


async def test_stop_without_start_does_nothing(tmp_path: Path) -> None:
    """An agent that failed before it listened can stop all the same."""
    await CniServer(tmp_path / "agent.sock", answer).stop()
