"""`sriovdp plan`: the difference between the node and its config file."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from sriovdp.cli.allocated import kubelet_option, list_allocated
from sriovdp.cli.options import config_file, node_options, state_option, sysfs_option
from sriovdp.config.file import load
from sriovdp.config.nodes import NodeIdentity
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision.apply import PATIENCE, survey
from sriovdp.provision.boot import list_reboot_needs
from sriovdp.provision.plan import Plan
from sriovdp.provision.steps import SetRdmaMode, Step
from sriovdp.state.journal import Journal

_BLOCKED = 1


@click.command(epilog="Example: sriovdp plan config.yaml")
@config_file
@state_option
@kubelet_option
@sysfs_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@node_options
def command(  # noqa: PLR0913 (one for each option)
    config_path: Path,
    state: Path,
    kubelet: Path,
    root: Path,
    *,
    key: str,
    as_json: bool,
    node_name: str | None,
    node_labels: dict[str, str] | None,
) -> None:
    """Show what `apply` would change, and which pods that would disturb. Changes nothing.

    The exit code is 1 if a PF cannot be as the config says, or if settings of a VF could not be read.
    """
    config = load(config_path, NodeIdentity.find(node_name, node_labels), key=key)
    sysfs, journal = Sysfs(root), Journal(state / "journal")
    todo, found = survey(config, sysfs, journal, list_allocated(kubelet), patience=PATIENCE)
    obstacles = [obstacle for of_pf in found.values() for obstacle in of_pf]
    needs = list_reboot_needs(config, take_snapshot(sysfs), sysfs)
    click.echo(_write_json(todo, obstacles, needs) if as_json else _write_text(todo, obstacles, needs))
    if todo.blocked:
        click.get_current_context().exit(_BLOCKED)


def _list_steps(todo: Plan) -> list[Step | SetRdmaMode]:
    return [*([todo.mode] if todo.mode else ()), *todo.steps]


def _write_json(todo: Plan, obstacles: Sequence[str], needs: Sequence[str]) -> str:
    steps = [{"action": step.action, **asdict(step), "disturbs": step.disturbs} for step in _list_steps(todo)]
    document = {
        "steps": steps,
        "warnings": todo.warnings,
        "obstacles": obstacles,
        "blocked": todo.blocked,
        "reboot": needs,
    }
    return json.dumps(document, indent=2)


def _write_text(todo: Plan, obstacles: Sequence[str], needs: Sequence[str]) -> str:
    lines = [f"warning: {warning}" for warning in todo.warnings] + [f"needs a reboot: {need}" for need in needs]
    lines += [f"error: {sentence}" for sentence in todo.blocked]
    steps = _list_steps(todo)
    if todo.is_empty and not steps:
        return "\n".join([*lines, "nothing to do: the node is as the config says"])
    width = max((len(str(step)) for step in steps), default=0)
    for step in steps:
        disturbs = f"; disturbs {step.disturbs}" if step.disturbs else ""
        lines.append(f"{step!s:<{width}}   {step.reason}{disturbs}")
    if obstacles:
        lines += [
            "",
            "`apply` would refuse this and leave the PF as it is:",
            *(f"  {obstacle}" for obstacle in obstacles),
        ]
    return "\n".join(lines)
