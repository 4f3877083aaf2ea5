"""`sriovdp status`: what the agent answers a runtime that asks whether a pod could be attached now. Quick to start."""

import json
import socket
from pathlib import Path

import click

from cni.protocol.wire import REPLY_HEADER_SIZE, STDOUT_MAX, Reply, Request, decode_reply, encode_request
from sriovdp.cli.options import FOLDER
from sriovdp.errors import SriovdpError

_CONFIG = b'{"cniVersion": "1.1.0", "name": "sriovdp-status", "type": "sriov"}'
_TIMEOUT = 10.0  # seconds for the connection, and then for each piece of the answer
_FAILED = 1


@click.command()
@click.option("--run-dir", "run", type=FOLDER, default=Path("/run/sriovdp"), show_default=True, help="The socket's.")
@click.option("--alive", is_flag=True, help="Any answer is good: the agent is at work, whatever the node is like.")
@click.pass_context
def command(context: click.Context, run: Path, *, alive: bool) -> None:
    """Ask the agent by the CNI verb STATUS whether it can attach a VF. Probes of the DaemonSet call this.

    Ends with 1 when it can not, and when nobody answers.
    """
    reply = ask(run / "agent.sock")
    if reply.exit_code == 0:
        click.echo("the agent is ready")
        return
    answer = json.loads(reply.stdout)
    click.echo(f"the agent answers: {answer['msg']} {answer.get('details', '')}".strip(), err=not alive)
    if not alive:
        context.exit(_FAILED)


def ask(path: Path) -> Reply:
    """The agent's answer to STATUS. Raises SriovdpError when there is none."""
    request = Request("STATUS", "", "", "", "", "/opt/cni/bin", _CONFIG)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(str(path))
            connection.sendall(encode_request(request))
            return decode_reply(_receive(connection))
    except OSError as error:
        raise SriovdpError(
            f"no agent answers at {path}: {error}",
            hint="it starts when the node is as the config says; its log tells what it waits for",
        ) from error


def _receive(connection: socket.socket) -> bytes:
    frame = b""
    while piece := connection.recv(65536):
        frame += piece
        if len(frame) > REPLY_HEADER_SIZE + STDOUT_MAX:
            break  # more than a reply has: decoding it says so
    return frame
