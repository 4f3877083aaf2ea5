"""`sriovdp reload`: let the agent read its config file now, and print what came of it."""

import json
from pathlib import Path
from typing import Any

import click

from cni.protocol.wire import RELOAD
from sriovdp.cli.options import run_option
from sriovdp.cli.status import ask, list_waiting
from sriovdp.errors import SriovdpError

_PATIENCE = 150.0  # seconds; the agent answers after 120 at the latest


@click.command(epilog="Example: sriovdp reload")
@run_option
def command(run: Path) -> None:
    """Let the agent read its config file now. It does so by itself when the file changes.

    Prints what the agent does: pools change at once, PFs as far as no pod is in the way. The exit code is 1 if the file
    is not valid, which leaves the config in force as it is, or if the node could not be made like it.
    """
    reply = ask(run / "agent.sock", RELOAD, timeout=_PATIENCE)
    if reply.exit_code != 0:
        raise SriovdpError("this agent cannot reload: it is an older one", hint="restart it")
    answer: dict[str, Any] = json.loads(reply.stdout)
    if answer["fault"]:
        raise SriovdpError(f"nothing was changed: {answer['fault']}")
    click.echo("the changed config is in force" if answer["changed"] else "the config in force is what the file says")
    if not answer["done"]:
        click.echo("PFs are still being changed; `sriovdp status` shows what waits for pods")
    waiting = list_waiting(answer)
    for line in waiting:
        click.echo(line)
    if answer["failure"] and not waiting:
        raise SriovdpError(f"the node is not as the config says: {answer['failure']}")
