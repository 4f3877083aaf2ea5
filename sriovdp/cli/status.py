"""`sriovdp status`: ask the agent the CNI verb STATUS, as a runtime does. Quick to start."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cni.protocol.wire import REPLY_HEADER_SIZE, REPORT, STDOUT_MAX, Reply, Request, decode_reply, encode_request
from sriovdp.cli.options import run_option
from sriovdp.errors import SriovdpError

_CONFIG = b'{"cniVersion": "1.1.0", "name": "sriovdp-status", "type": "sriov"}'
_TIMEOUT = 10.0  # seconds to connect, and then for each piece of the answer
_FAILED = 1


@click.command(epilog="Example: sriovdp status")
@run_option
@click.option("--alive", is_flag=True, help="Succeed if the agent answers at all, even that it is not ready.")
@click.pass_context
def command(context: click.Context, run: Path, *, alive: bool) -> None:
    """Ask the agent whether it can attach a VF now. The probes of the DaemonSet call this.

    VFs that no pod gets, and addresses that are not freed, are listed with the reason, and the RDMA mode of the node.
    The exit code is 1 if it cannot, or if no agent answers.
    """
    reply = ask(run / "agent.sock")
    if reply.exit_code == 0:
        click.echo("the agent is ready")
    else:
        answer = json.loads(reply.stdout)
        click.echo(f"the agent answers: {answer['msg']} {answer.get('details', '')}".strip(), err=not alive)
    if alive:
        return
    for line in list_report(ask(run / "agent.sock", REPORT)):
        click.echo(line)
    if reply.exit_code != 0:
        context.exit(_FAILED)


def list_report(reply: Reply) -> list[str]:
    """A line for each VF that no pod gets, for each container whose addresses are not free, and for what waits.

    The RDMA mode has one where the node has RDMA.
    """
    if reply.exit_code != 0:
        return []  # an older agent
    report = json.loads(reply.stdout)
    owed = report["owed"]
    names = [found.get("name") or found["device"] or "addresses" for found in owed]  # an older agent has no name
    lines = [
        f"{name}: {found['reason']} (attempts: {found['attempts']})" for name, found in zip(names, owed, strict=True)
    ]
    if fault := report.get("fault"):
        lines.append(f"the config file is not in force: {fault}")
    if mode := report.get("rdma_mode"):
        lines.append(f"RDMA mode: {mode}")
    return lines + [_write_fault(found) for found in report.get("health", ())] + list_waiting(report)


def _write_fault(found: Mapping[str, Any]) -> str:
    """What is wrong with devices of a resource, from an agent's JSON."""
    more = found["devices"] - len(found["names"])
    names = ", ".join(found["names"]) + (f" and {more} more" if more else "")
    what = "not healthy" if found["is_fatal"] else "warning"
    return f"{found['resource']}: {what}: {names}: {found['reason']} ({found['condition']})"


def list_waiting(report: Mapping[str, Any]) -> list[str]:
    """A line for each reason that keeps a PF from being as the config says, from an agent's JSON."""
    return [f"waiting: {who}" for found in report.get("waiting", {}).values() for who in found]


def ask(path: Path, command: str = "STATUS", *, timeout: float = _TIMEOUT) -> Reply:
    """The agent's answer to a command, awaited for `timeout` seconds. Raises SriovdpError when there is none."""
    request = Request(command, "", "", "", "", "/opt/cni/bin", _CONFIG)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
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
