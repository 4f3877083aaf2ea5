"""`sriovdp doctor`: what is wrong with this node, and the command that fixes it."""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from sriovdp.cli.allocated import ask_kubelet
from sriovdp.cli.options import (
    DEFAULT_CONFIG,
    STDIN,
    config_file,
    kubelet_option,
    node_options,
    run_option,
    state_option,
)
from sriovdp.cli.status import ask, list_report
from sriovdp.config.file import load_text, read_text
from sriovdp.config.nodes import NodeIdentity
from sriovdp.doctor.examined import Examined, Folders, Peers
from sriovdp.doctor.verdict import CHECKS, Verdict, describe, examine, sort
from sriovdp.doctor.view import UnseenError, View
from sriovdp.errors import ConfigError, SriovdpError
from sriovdp.reading import UnreadableError

_FAILED = 1
_COLOURS = {"fail": "red", "warn": "yellow", "ok": "green", "skipped": "bright_black"}

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("/"),
    show_default=True,
    metavar="DIR",
    help="Root of the node: /host in a pod, `node` of a report, or a folder of `sriovdp record`.",
)


@click.command(epilog="Example: sriovdp doctor --json | jq '.checks[] | select(.status == \"fail\")'")
@config_file
@root_option
@state_option
@run_option
@kubelet_option
@click.option(
    "--check", "names", multiple=True, metavar="NAME", help="Do this check alone; repeat the option for more."
)
@click.option("--all", "show_all", is_flag=True, help="Show what is well too, and what could not be seen.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@node_options
@click.pass_context
def command(  # noqa: PLR0913 (one for each option)
    context: click.Context,
    config_path: Path,
    root: Path,
    *,
    key: str,
    state: Path,
    run: Path,
    kubelet: Path,
    names: tuple[str, ...],
    show_all: bool,
    as_json: bool,
    node_name: str | None,
    node_labels: dict[str, str] | None,
) -> None:
    """Examine this node: the kernel, its PFs and VFs, the runtime, the kubelet, and sriovdp itself. Changes nothing.

    Needs no agent, and no root: what it cannot see it names. Faults come first, the cause before what follows from it,
    each with the command that fixes it. The exit code is 1 if a check fails; warnings leave it at 0.
    """
    if unknown := sorted(set(names) - {check.name for check in CHECKS}):
        raise click.UsageError(f"there is no check {unknown[0]}; `sriovdp doctor --all` lists all")
    examined = prepare(root, config_path, key, node_name, node_labels, Folders(str(state), str(run), str(kubelet)))
    verdicts = examine(examined, [check for check in CHECKS if not names or check.name in names])
    if as_json:
        click.echo(json.dumps(describe(verdicts), indent=2))
    else:
        click.echo("\n".join(write(verdicts, show_all=show_all or bool(names))))
    if any(verdict.status == "fail" for verdict in verdicts):
        context.exit(_FAILED)


def prepare(
    root: Path,
    config_path: Path,
    key: str,
    node_name: str | None,
    node_labels: dict[str, str] | None,
    folders: Folders,
) -> Examined:
    """The node that is to be examined. A config file that is the default and not there is none. Raises SriovdpError."""
    try:
        view = View(root)
        default = Path(view.place(str(DEFAULT_CONFIG)))
    except (UnreadableError, OSError) as error:
        raise SriovdpError(
            f"examining {root} failed: {error}", hint="name the root of a node, or a report's `node`"
        ) from error
    examined = Examined(view, folders=folders, peers=make_peers(view, folders))
    path = default if config_path == DEFAULT_CONFIG else config_path
    examined.config_path = str(DEFAULT_CONFIG if path == default else "standard input" if path == STDIN else path)
    if path == default and not default.exists():
        return examined
    if path.exists() and not os.access(path, os.R_OK, effective_ids=True):
        examined.is_hidden = True
        return examined
    identity = _identify(view, node_name, node_labels)
    try:
        examined.config_text = read_text(path)
        examined.config = load_text(examined.config_text, examined.config_path, identity, key=key)
    except ConfigError as error:
        examined.fault = error
    return examined


def _identify(view: View, name: str | None, labels: dict[str, str] | None) -> NodeIdentity:
    """Which node it is: of a recorded one that is recorded too."""
    found = NodeIdentity.find(name, labels)
    if view.is_live or name:
        return found
    try:
        recorded = view.ask("node", lambda: ())
    except (UnseenError, ValueError):
        return found
    pairs = dict(line.partition("=")[::2] for line in recorded[1:])
    return NodeIdentity(recorded[0], labels if labels is not None else pairs or None) if recorded else found


def make_peers(view: View, folders: Folders) -> Peers:
    """Who can be asked on a live node."""

    def ask_for_devices() -> list[str]:
        _demand_access(Path(view.place(folders.kubelet)) / "pod-resources/kubelet.sock")
        devices = ask_kubelet(Path(view.place(folders.kubelet)))
        given = [f"{id_} {holders[0].pod_name}" for (_, id_), holders in devices.holders.items() if holders]
        return [devices.problem or "ok", *given]

    def ask_agent() -> list[str]:
        socket = Path(view.place(folders.run)) / "agent.sock"
        _demand_access(socket)
        try:
            reply, report = ask(socket), ask(socket, "REPORT")
        except (SriovdpError, ValueError) as error:
            return [str(error)]
        answer = json.loads(reply.stdout) if reply.exit_code else {}
        said = f"{answer.get('msg', '')} {answer.get('details', '')}".strip()
        lines = [line for line in list_report(report) if not line.startswith("RDMA mode: ")]  # no fault
        return [said if reply.exit_code else "ok", *lines]

    return Peers(ask_for_devices, ask_agent)


def _demand_access(socket: Path) -> None:
    """Raises PermissionError where this user may not connect: then nobody is at fault."""
    if socket.exists() and not os.access(socket, os.W_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write(verdicts: Sequence[Verdict], *, show_all: bool) -> Iterator[str]:
    """Lines for people: faults, then warnings, then what is well, and what was not seen."""
    for verdict in sort(verdicts):
        if not show_all and verdict.status in {"ok", "skipped"}:
            continue
        label = click.style(f"{verdict.status:8}", fg=_COLOURS[verdict.status], bold=verdict.status == "fail")
        shown = [one for one in verdict.findings if show_all or one.status in {"fail", "warn"}]
        yield f"{label}{verdict.check.name}" + ("" if shown else f": {verdict.check.about}")
        for one in shown:
            yield f"        {one.text}"
            if one.fix:
                yield f"          fix: {one.fix}"
        if verdict.left_out:
            yield f"        and {verdict.left_out} more"
    yield _sum_up(verdicts)


def _sum_up(verdicts: Sequence[Verdict]) -> str:
    counted = describe(verdicts)["counts"]
    unseen = [v.check.name for v in verdicts if v.status == "skipped" and "run it as root" in v.findings[0].text]
    more = f"; not seen without root: {', '.join(unseen)}" if unseen else ""
    return f"{len(verdicts)} checks: " + ", ".join(f"{count} {status}" for status, count in counted.items()) + more
