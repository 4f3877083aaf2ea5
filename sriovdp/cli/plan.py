"""`sriovdp plan`: the difference between the node and its config."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from sriovdp.cli.options import config_option, state_option, sysfs_option
from sriovdp.config.file import load
from sriovdp.inventory import take_snapshot
from sriovdp.journal import Journal
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.provision.plan import Plan, plan
from sriovdp.provision.usage import list_attached, list_obstacles


@click.command()
@config_option
@state_option
@sysfs_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(config_path: Path, state: Path, root: Path, *, as_json: bool) -> None:
    """Show what apply would change, and whom that would disturb. Changes nothing."""
    config, sysfs, journal = load(config_path), Sysfs(root), Journal(state / "journal")
    node = take_snapshot(sysfs)
    todo = plan(config, node, list_attached(journal))
    obstacles = list_obstacles(todo, node, sysfs, journal)
    click.echo(_write_json(todo, obstacles) if as_json else _write_text(todo, obstacles))


def _write_json(todo: Plan, obstacles: list[str]) -> str:
    steps = [{"action": step.action, **asdict(step)} for step in todo.steps]
    return json.dumps({"steps": steps, "warnings": todo.warnings, "obstacles": obstacles}, indent=2)


def _write_text(todo: Plan, obstacles: list[str]) -> str:
    lines = [f"warning: {warning}" for warning in todo.warnings]
    if todo.is_empty:
        return "\n".join([*lines, "nothing to do: the node is as the config says"])
    width = max(len(str(step)) for step in todo.steps)
    lines += [f"{step!s:<{width}}   {step.reason}" for step in todo.steps]
    if obstacles:
        lines += ["", "apply would refuse this and change nothing:", *(f"  {obstacle}" for obstacle in obstacles)]
    return "\n".join(lines)
