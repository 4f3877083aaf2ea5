"""The launcher: the real binary, against the real server and against agents that misbehave."""

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from cni.protocol.spec import VERSIONS
from cni.protocol.wire import (
    DELEGATED,
    ENVIRONMENT_MAX,
    HEADER_SIZE,
    STDIN_MAX,
    STDOUT_MAX,
    Reply,
    Request,
    decode_header,
    encode_reply,
)
from tests.cni.launching import BASE, TIMEOUT, Outcome, run, run_alone, scripted, serving

# a runtime's way to exec us in which nothing would end us
WITH_SIGNALS_OFF = ("/usr/bin/env", "--ignore-signal=TERM", "--block-signal=TERM", "--block-signal=ALRM")


async def test_version_is_answered_without_an_agent(launcher: Path) -> None:
    """The versions are those that the verbs know."""
    outcome = await run(launcher, CNI_COMMAND="VERSION", SRIOVDP_SOCKET="/nowhere")

    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout) == {"cniVersion": VERSIONS[-1], "supportedVersions": list(VERSIONS)}


def test_version_takes_all_of_its_stdin(launcher: Path) -> None:
    """A runtime that writes a configuration of any size gets no broken pipe."""
    with subprocess.Popen(
        [launcher], env={**BASE, "CNI_COMMAND": "VERSION"}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0
    ) as process:
        assert process.stdin
        for _ in range(3):
            process.stdin.write(b"x" * STDIN_MAX)

    assert process.returncode == 0


async def test_request_reaches_the_agent_whole(launcher: Path, tmp_path: Path) -> None:
    """Every variable, stdin and the namespace itself arrive, and exit code and stdout come back."""
    seen: list[tuple[Request, int]] = []

    def handle(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        assert netns_fd is not None
        seen.append((request, os.fstat(netns_fd).st_ino))
        return Reply(3, b'{"cniVersion": "1.0.0"}')

    async with serving(tmp_path / "agent.sock", handle):
        outcome = await run(
            launcher,
            b'{"name": "red"}',
            CNI_COMMAND="ADD",
            CNI_CONTAINERID="0123",
            CNI_NETNS="/proc/self/ns/net",
            CNI_IFNAME="net1",
            CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=ä",
            CNI_PATH="/opt/cni/bin:/usr/lib/cni",
            SRIOVDP_SOCKET=str(tmp_path / "agent.sock"),
        )

    assert outcome == Outcome(3, b'{"cniVersion": "1.0.0"}')
    request = Request(
        "ADD",
        "0123",
        "/proc/self/ns/net",
        "net1",
        "IgnoreUnknown=1;K8S_POD_NAME=ä",
        "/opt/cni/bin:/usr/lib/cni",
        b'{"name": "red"}',
    )
    assert seen == [(request, os.stat("/proc/self/ns/net").st_ino)]  # noqa: PTH116 - pathlib is taken for blocking


async def test_only_cni_variables_pass(launcher: Path, tmp_path: Path) -> None:
    """Secrets in a runtime's environment stay there; what the specification adds later comes along."""
    async with scripted(tmp_path / "agent.sock", encode_reply(Reply(0, b""))) as frames:
        outcome = await run(
            launcher,
            b"{}",
            CNI_COMMAND="DEL",
            CNI_NETNS_OVERRIDE="1",
            SECRET="CNI_ARGS=x",
            XCNI_PATH="/",
            SRIOVDP_SOCKET=str(tmp_path / "agent.sock"),
        )

    assert outcome == Outcome(0, b"")
    header = decode_header(frames[0][:HEADER_SIZE])
    environment = frames[0][HEADER_SIZE : HEADER_SIZE + header.environment_size]
    assert sorted(environment.split(b"\0")) == [b"", b"CNI_COMMAND=DEL", b"CNI_NETNS_OVERRIDE=1"]


@pytest.mark.parametrize(
    ("netns", "reason"),
    [("/nowhere/at/all", errno.ENOENT), ("/proc/self/environ/x", errno.ENOTDIR), ("", 0)],
    ids=["missing", "no directory", "empty"],
)
async def test_namespace_that_can_not_be_opened(launcher: Path, tmp_path: Path, netns: str, reason: int) -> None:
    """The agent gets the errno in place of the fd; an empty CNI_NETNS, as DEL may have it, is no error."""
    seen: list[tuple[int, int | None]] = []

    def handle(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        seen.append((request.netns_errno, netns_fd))
        return Reply(0, b"")

    async with serving(tmp_path / "agent.sock", handle):
        socket_path = str(tmp_path / "agent.sock")
        assert await run(launcher, CNI_COMMAND="DEL", CNI_NETNS=netns, SRIOVDP_SOCKET=socket_path) == Outcome(0, b"")

    assert seen == [(reason, None)]


async def test_fifo_as_namespace_does_not_hang(static_launcher: Path, tmp_path: Path) -> None:
    """Whatever CNI_NETNS names, the agent is asked."""
    os.mkfifo(tmp_path / "fifo")
    async with serving(tmp_path / "agent.sock", lambda request, _, __: Reply(0, b"asked")):
        outcome = await run(
            static_launcher,
            CNI_COMMAND="ADD",
            CNI_NETNS=str(tmp_path / "fifo"),
            SRIOVDP_SOCKET=str(tmp_path / "agent.sock"),
        )

    assert outcome == Outcome(0, b"asked")


async def test_largest_stdin_and_reply(launcher: Path, tmp_path: Path) -> None:
    """1 MiB in and 4 MiB out pass whole."""
    stdin, stdout = os.urandom(STDIN_MAX), os.urandom(STDOUT_MAX)
    seen: list[bytes] = []

    def handle(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        seen.append(request.stdin)
        return Reply(0, stdout)

    async with serving(tmp_path / "agent.sock", handle):
        outcome = await run(launcher, stdin, CNI_COMMAND="ADD", SRIOVDP_SOCKET=str(tmp_path / "agent.sock"))

    assert outcome == Outcome(0, stdout)
    assert seen == [stdin]


async def test_one_byte_more_of_stdin_is_refused(launcher: Path) -> None:
    """A configuration over 1 MiB is an invalid one."""
    outcome = await run(launcher, b"x" * (STDIN_MAX + 1), CNI_COMMAND="ADD", SRIOVDP_SOCKET="/nowhere")

    assert outcome.error["code"] == 7
    assert "larger than 1048576 bytes" in outcome.error["msg"]


async def test_environment_at_its_bound_and_beyond(launcher: Path, tmp_path: Path) -> None:
    """64 KiB of CNI_* variables pass; one byte more is refused."""
    fixed = len("CNI_COMMAND=ADD\0CNI_ARGS=\0")
    socket_path = str(tmp_path / "agent.sock")
    async with serving(tmp_path / "agent.sock", lambda request, _, __: Reply(0, str(len(request.args)).encode())):
        fits = "x" * (ENVIRONMENT_MAX - fixed)
        taken = await run(launcher, CNI_COMMAND="ADD", CNI_ARGS=fits, SRIOVDP_SOCKET=socket_path)
        refused = await run(launcher, CNI_COMMAND="ADD", CNI_ARGS=fits + "x", SRIOVDP_SOCKET=socket_path)

    assert taken == Outcome(0, str(ENVIRONMENT_MAX - fixed).encode())
    assert refused.error["code"] == 4


@pytest.mark.parametrize("environment", [{"CNI_IFNAME": "net1"}, {"CNI_COMMAND": ""}], ids=["unset", "empty"])
async def test_without_a_command(launcher: Path, environment: dict[str, str]) -> None:
    """A person who runs it reads what it is, in the specification's shape."""
    outcome = await run(launcher, b"{}", **environment)

    assert outcome.error["code"] == 4
    assert "CNI_COMMAND is not set" in outcome.error["msg"]


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("DEL", 11), ("CHECK", 11), ("STATUS", 50)])
async def test_no_agent(launcher: Path, tmp_path: Path, command: str, code: int) -> None:
    """Without a socket, and with one without a server, the runtime has to try again, or not available.

    The DEL here names no container: nobody could ever replay it.
    """
    path = tmp_path / "agent.sock"
    missing = await run(launcher, CNI_COMMAND=command, SRIOVDP_SOCKET=str(path))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    stale = await run(launcher, CNI_COMMAND=command, SRIOVDP_SOCKET=str(path))

    assert missing.error["code"] == stale.error["code"] == code
    assert missing.error["msg"] == f"the sriovdp agent does not answer at {path}: No such file or directory"
    assert stale.error["msg"].endswith("Connection refused")


async def test_error_is_json_whatever_the_path_is(launcher: Path) -> None:
    """Quotes, backslashes, control characters and bytes that are no text are escaped, too long a path is named."""
    quoted = await run(launcher, CNI_COMMAND="ADD", SRIOVDP_SOCKET='/a"b\\c\nd\x7f\udcff')
    long = await run(launcher, CNI_COMMAND="ADD", SRIOVDP_SOCKET="/" + '"' * 3000)

    assert '/a"b\\c\nd\x7f?:' in quoted.error["msg"]
    assert long.error["code"] == 11


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "closed the connection before its answer was complete"),
        (b"SRIO", "closed the connection before its answer was complete"),
        (encode_reply(Reply(0, b"{}" * 5000))[:-1], "closed the connection before its answer was complete"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no sriovdp agent"),
        (
            b"SRIO\0\0\0\2" + bytes(8),
            "it answers in protocol version 2, this launcher speaks 1; run `sriovdp install-cni`",
        ),
        (b"SRIO\0\0\0\1\0\0\1\0" + bytes(4), "out of bounds"),
        (b"SRIO\0\0\0\1\0\0\0\0\0\x40\0\1", "out of bounds"),
    ],
    ids=["nothing", "part of the header", "part of stdout", "garbage", "version", "exit code", "size"],
)
async def test_agent_that_misbehaves(launcher: Path, tmp_path: Path, answer: bytes, reason: str) -> None:
    """Nothing of a broken answer is printed; the runtime reads what is wrong and that it has to try again."""
    async with scripted(tmp_path / "agent.sock", answer):
        outcome = await run(launcher, CNI_COMMAND="ADD", SRIOVDP_SOCKET=str(tmp_path / "agent.sock"))

    assert outcome.error["code"] == 11
    assert reason in outcome.error["msg"]


async def test_agent_that_answers_before_it_has_read_all(launcher: Path, tmp_path: Path) -> None:
    """A refusal is printed although the rest of the request could not be sent any more."""
    async with scripted(tmp_path / "agent.sock", encode_reply(Reply(1, b"refused")), reads=False):
        outcome = await run(launcher, b"x" * STDIN_MAX, CNI_COMMAND="ADD", SRIOVDP_SOCKET=str(tmp_path / "agent.sock"))

    assert outcome == Outcome(1, b"refused")


async def test_time_outs(impatient_launcher: Path, tmp_path: Path) -> None:
    """An agent that does not accept, does not read, or does not answer is given up with code 11."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        unread = await run(impatient_launcher, b"x" * STDIN_MAX, CNI_COMMAND="ADD", SRIOVDP_SOCKET=str(path))
        unanswered = await run(impatient_launcher, CNI_COMMAND="STATUS", SRIOVDP_SOCKET=str(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(path))
        listener.listen(0)
        other.connect(str(path))  # fills the backlog
        unaccepted = await run(impatient_launcher, CNI_COMMAND="DEL", SRIOVDP_SOCKET=str(path))

    assert [outcome.error["code"] for outcome in (unread, unanswered, unaccepted)] == [11, 50, 11]
    assert all("timed out" in outcome.error["msg"] for outcome in (unread, unanswered, unaccepted))


async def test_stdin_that_never_ends(impatient_launcher: Path) -> None:
    """A runtime that keeps stdin open does not hold a process of this forever; VERSION is answered all the same."""
    reader, writer = os.pipe()
    try:
        for command, code in (("ADD", 1), ("VERSION", 0)):
            finished = await asyncio.to_thread(
                subprocess.run,
                [impatient_launcher],
                stdin=reader,
                env={**BASE, "CNI_COMMAND": command},
                capture_output=True,
                timeout=TIMEOUT,
                check=False,
            )
            assert finished.returncode == code
            assert command == "VERSION" or Outcome(1, finished.stdout).error["code"] == 5
    finally:
        os.close(reader)
        os.close(writer)


async def test_stdout_that_nobody_reads(impatient_launcher: Path, tmp_path: Path) -> None:
    """The alarm ends it, blocked or ignored as its signal may be by the program that execs it."""
    reader, writer = os.pipe()
    try:
        async with serving(tmp_path / "agent.sock", lambda request, _, __: Reply(0, b"x" * STDOUT_MAX)):
            process = await asyncio.create_subprocess_exec(
                *WITH_SIGNALS_OFF,
                impatient_launcher,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                env={**BASE, "CNI_COMMAND": "ADD", "SRIOVDP_SOCKET": str(tmp_path / "agent.sock")},
            )
            assert await asyncio.wait_for(process.wait(), TIMEOUT) == -signal.SIGALRM
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_killed_launcher_cancels_its_request(launcher: Path, tmp_path: Path, number: signal.Signals) -> None:
    """The running verb learns at once that no client waits, and an ADD that succeeds all the same is undone."""
    running, undone = threading.Event(), threading.Event()

    def handle(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        if request.command == "DEL":
            assert (request.container_id, request.ifname) == ("c1", "net1")
            undone.set()
            return Reply(0, b"")
        running.set()
        assert cancelled.wait(TIMEOUT)
        return Reply(0, b"result")

    variables = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "net1"}
    async with serving(tmp_path / "agent.sock", handle):
        process = await asyncio.create_subprocess_exec(
            *WITH_SIGNALS_OFF,
            launcher,
            stdin=subprocess.DEVNULL,
            env={**BASE, **variables, "SRIOVDP_SOCKET": str(tmp_path / "agent.sock")},
        )
        assert await asyncio.to_thread(running.wait, TIMEOUT)
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), TIMEOUT) == -number
        assert await asyncio.to_thread(undone.wait, TIMEOUT)


async def test_two_hundred_at_once(static_launcher: Path, tmp_path: Path) -> None:
    """More launchers than workers, and than the backlog has room for: each gets its own answer."""

    def handle(request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        return Reply(0, request.container_id.encode())

    async with serving(tmp_path / "agent.sock", handle):
        processes = [
            await asyncio.create_subprocess_exec(
                static_launcher,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env={
                    **BASE,
                    "CNI_COMMAND": "ADD",
                    "CNI_CONTAINERID": str(number),
                    "SRIOVDP_SOCKET": str(tmp_path / "agent.sock"),
                },
            )
            for number in range(200)
        ]
        answers = await asyncio.gather(*(process.communicate() for process in processes))

    assert [stdout for stdout, _ in answers] == [str(number).encode() for number in range(200)]


@pytest.mark.parametrize("sink", ["closed pipe", "full device"])
async def test_result_that_can_not_be_printed_is_a_failure(launcher: Path, tmp_path: Path, sink: str) -> None:
    """A runtime that stopped reading gets no success, and no signal kills the launcher."""
    if sink == "full device":
        stdout = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stdout = os.pipe()
        os.close(reader)
    variables = {**BASE, "CNI_COMMAND": "ADD", "SRIOVDP_SOCKET": str(tmp_path / "agent.sock")}
    try:
        async with serving(tmp_path / "agent.sock", lambda request, _, __: Reply(0, b"result")):
            finished = await asyncio.to_thread(
                subprocess.run, [launcher], input=b"{}", env=variables, stdout=stdout, stderr=subprocess.PIPE
            )
    finally:
        os.close(stdout)

    assert finished.returncode == 1
    assert b"the result cannot be printed" in finished.stderr


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "STATUS", "GC"])
def test_launcher_is_not_its_own_ipam_plugin(launcher: Path, tmp_path: Path, command: str) -> None:
    """Under any name, as by a link: it would wait for its own lock, and be spooled again and again without an agent."""
    alias = tmp_path / "host-local"
    alias.symlink_to(launcher)
    variables = {"CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "net1", DELEGATED: "1"}
    spool = tmp_path / "spool"
    outcome = run_alone(alias, b"{}", **variables, SRIOVDP_SOCKET=str(tmp_path / "none"), SRIOVDP_SPOOL=str(spool))
    assert outcome.error["code"] == 7
    assert "leads to sriovdp itself" in outcome.error["msg"]
    assert not spool.exists()


def test_launcher_needs_nothing_of_the_host(static_launcher: Path) -> None:
    """It is a static executable without a program interpreter, so it runs on any node of its architecture."""
    headers = subprocess.run(["readelf", "-lW", static_launcher], capture_output=True, text=True, check=True).stdout

    assert "LOAD" in headers
    assert "INTERP" not in headers


def test_launcher_is_small(static_launcher: Path) -> None:
    """The whole executable has less than 64 KiB."""
    assert static_launcher.stat().st_size < 64 << 10
