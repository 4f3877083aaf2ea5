"""`sriovdp status`, against a real server of the CNI socket."""

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from click.testing import CliRunner, Result

from cni.protocol.wire import Reply
from cni.service.server import CniServer
from sriovdp.cli.main import cli

TROUBLE = Reply(1, b'{"cniVersion": "1.1.0", "code": 50, "msg": "this node has no VFs", "details": "make some"}')


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["status", *arguments])


async def ask(reply: Reply, *arguments: str) -> tuple[Result, list[str]]:
    """Run the command against an agent that answers so; its result, and the verbs that the agent was asked."""
    asked: list[str] = []

    def answer(request: object, *_: object) -> Reply:
        asked.append(f"{request.command} {json.loads(request.stdin)['cniVersion']}")  # type: ignore[attr-defined]
        return reply

    with TemporaryDirectory() as folder:  # a socket's path is short
        server = CniServer(Path(folder) / "agent.sock", answer)
        await server.start()
        result = await asyncio.to_thread(run, "--run-dir", folder, *arguments)
        await server.stop()
    return result, asked


async def test_an_agent_that_can_attach_is_ready() -> None:
    """STATUS in the version that has it is asked, and its success is exit code 0."""
    result, asked = await ask(Reply(0, b""))
    assert (result.exit_code, result.stdout, asked) == (0, "the agent is ready\n", ["STATUS 1.1.0"])


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
