"""`sriovdp status`, against a real server of the CNI socket."""

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from click.testing import CliRunner, Result

from cni.protocol.wire import REPORT, Reply, Request
from cni.service.server import CniServer
from sriovdp.cli.main import cli

TROUBLE = Reply(1, b'{"cniVersion": "1.1.0", "code": 50, "msg": "this node has no VFs", "details": "make some"}')

NOTHING_OWED = Reply(0, b'{"owed": []}')
OLDER = Reply(1, b'{"cniVersion": "1.1.0", "code": 4, "msg": "unknown CNI_COMMAND: REPORT"}')


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["status", *arguments])


async def ask(reply: Reply, *arguments: str, report: Reply = NOTHING_OWED) -> tuple[Result, list[str]]:
    """Run the command against an agent that answers so; its result, and the verbs that the agent was asked."""
    asked: list[str] = []

    def answer(request: Request, *_: object) -> Reply:
        asked.append(f"{request.command} {json.loads(request.stdin)['cniVersion']}")
        return report if request.command == REPORT else reply

    with TemporaryDirectory() as folder:  # a socket's path is short
        server = CniServer(Path(folder) / "agent.sock", answer)
        await server.start()
        result = await asyncio.to_thread(run, "--run-dir", folder, *arguments)
        await server.stop()
    return result, asked


async def test_an_agent_that_can_attach_is_ready() -> None:
    """STATUS in the version that has it is asked, and its success is exit code 0."""
    result, asked = await ask(Reply(0, b""))
    assert (result.exit_code, result.stdout, asked) == (0, "the agent is ready\n", ["STATUS 1.1.0", "REPORT 1.1.0"])
    result, _ = await ask(Reply(0, b""), report=OLDER)
    assert (result.exit_code, result.stdout) == (0, "the agent is ready\n")


async def test_the_rdma_mode_is_shown() -> None:
    """Of a node that has RDMA, with what waits for it."""
    report = {"owed": [], "rdma_mode": "shared", "waiting": {"node": ["node: set RDMA mode exclusive: busy"]}}
    result, _ = await ask(Reply(0, b""), report=Reply(0, json.dumps(report).encode()))
    lines = ["the agent is ready", "RDMA mode: shared", "waiting: node: set RDMA mode exclusive: busy"]
    assert (result.exit_code, result.stdout.splitlines()) == (0, lines)
    result, _ = await ask(Reply(0, b""), report=Reply(0, json.dumps({"owed": [], "rdma_mode": None}).encode()))
    assert result.stdout == "the agent is ready\n"


async def test_what_no_pod_gets_is_listed() -> None:
    """With the reason, in readiness and trouble, and not for the question for life."""
    found = {
        "device": "0000:01:10.2",
        "owner": "pod a/b (net1)",
        "reason": "not back from pod a/b (net1)",
        "attempts": 3,
    }
    owed = Reply(0, json.dumps({"owed": [found, {**found, "device": "", "reason": "not free"}]}).encode())
    line = "0000:01:10.2: not back from pod a/b (net1) (attempts: 3)\n"
    result, _ = await ask(Reply(0, b""), report=owed)
    assert (result.exit_code, result.stdout) == (
        0,
        f"the agent is ready\n{line}addresses: not free (attempts: 3)\n",
    )
    result, _ = await ask(TROUBLE, report=owed)
    assert (result.exit_code, line in result.stdout) == (1, True)
    _, asked = await ask(Reply(0, b""), "--alive", report=owed)
    assert asked == ["STATUS 1.1.0"]


async def test_an_agent_in_trouble_is_alive_but_not_ready() -> None:
    """The agent's own words are shown; they fail the question for readiness, not the one for life."""
    result, _ = await ask(TROUBLE)
    assert (result.exit_code, result.stderr) == (1, "the agent answers: this node has no VFs make some\n")
    result, _ = await ask(TROUBLE, "--alive")
    assert (result.exit_code, result.stderr) == (0, "")


def test_no_agent_fails_either_question(tmp_path: Path) -> None:
    """Nobody listens: both end with 1 and name the socket."""
    for question in ([], ["--alive"]):
        result = run("--run-dir", str(tmp_path), *question)
        assert result.exit_code == 1
        assert f"no agent answers at {tmp_path}/agent.sock" in result.stderr
