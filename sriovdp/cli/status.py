"""`sriovdp status`: ask the agent the CNI verb STATUS, as a runtime does. Quick to start."""

import json
import socket
from pathlib import Path

import click

from cni.protocol.wire import REPLY_HEADER_SIZE, REPORT, STDOUT_MAX, Reply, Request, decode_reply, encode_request
from sriovdp.cli.options import FOLDER
from sriovdp.errors import SriovdpError

_CONFIG = b'{"cniVersion": "1.1.0", "name": "sriovdp-status", "type": "sriov"}'
_TIMEOUT = 10.0  # seconds to connect, and then for each piece of the answer
_FAILED = 1


@click.command(epilog="Example: sriovdp status")
@click.option(
    "--run-dir",
    "run",
    type=FOLDER,
    default=Path("/run/sriovdp"),
    show_default=True,
    help="Folder of the agent's socket.",
)
@click.option("--alive", is_flag=True, help="Succeed if the agent answers at all, even that it is not ready.")
@click.pass_context
def command(context: click.Context, run: Path, *, alive: bool) -> None:
    """Ask the agent whether it can attach a VF now. The probes of the DaemonSet call this.

    VFs that no pod gets, and addresses that are not freed, are listed with the reason. The exit code is 1 if it
    cannot, or if no agent answers.
    """
    reply = ask(run / "agent.sock")
    if reply.exit_code == 0:
        click.echo("the agent is ready")
    else:
        answer = json.loads(reply.stdout)
        click.echo(f"the agent answers: {answer['msg']} {answer.get('details', '')}".strip(), err=not alive)
    if alive:
        return
    for line in _list_owed(ask(run / "agent.sock", REPORT)):
        click.echo(line)
    if reply.exit_code != 0:
        context.exit(_FAILED)


def _list_owed(reply: Reply) -> list[str]:
    """A line for each VF that no pod gets, and for each container whose addresses are not free."""
    if reply.exit_code != 0:
        return []  # an older agent
    owed = json.loads(reply.stdout)["owed"]
    names = [found.get("name") or found["device"] or "addresses" for found in owed]  # an older agent has no name
    return [
        f"{name}: {found['reason']} (attempts: {found['attempts']})" for name, found in zip(names, owed, strict=True)
    ]


def ask(path: Path, command: str = "STATUS") -> Reply:
    """The agent's answer to a command. Raises SriovdpError when there is none."""
    request = Request(command, "", "", "", "", "/opt/cni/bin", _CONFIG)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(str(path))
            connection.sendall(encode_request(request))
            return decode_reply(_receive(connection))
    except OSError as error:
        raise SriovdpError(
            f"no agent answers at {path}: {error}",
            hint="start the agent; if it is running, see its log",
        ) from error


def _receive(connection: socket.socket) -> bytes:
    frame = b""
    while piece := connection.recv(65536):
        frame += piece
        if len(frame) > REPLY_HEADER_SIZE + STDOUT_MAX:
            break  # more than a reply has: decoding it raises an error
    return frame
