"""`sriovdp explain`: why a VF is advertised, or why not."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from sriovdp.cli.options import config_option, node_options, sysfs_option
from sriovdp.config.file import load
from sriovdp.config.nodes import NodeIdentity
from sriovdp.errors import DeviceError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import PciAddress
from sriovdp.node.inventory import take_snapshot
from sriovdp.pools.explanation import Verdict, describe, explain, write


@click.command()
@click.argument("devices", nargs=-1, metavar="[PCI]...")
@config_option
@sysfs_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list with an object for each device.")
@node_options
def command(
    devices: tuple[str, ...],
    config_path: Path,
    root: Path,
    *,
    as_json: bool,
    node_name: str | None,
    node_labels: dict[str, str] | None,
) -> None:
    """Tell of each device which pool has it, or for each pool why it does not.

    Without PCI addresses, of all network functions and accelerators of the node.
    """
    config = load(config_path, NodeIdentity.find(node_name, node_labels))
    node = take_snapshot(Sysfs(root))
    verdicts = _pick(list(explain(config.pools, node, config.physical_functions)), devices)
    if as_json:
        described = (
            json.dumps(describe(verdict)) for verdict in verdicts
        )  # a line each: indenting costs thrice the time
        click.echo("[\n" + ",\n".join(described) + "\n]")
        return
    lines = [line for verdict in verdicts for line in write(verdict)]
    click.echo("\n".join(lines) or "no PCI network function or accelerator on this node")


def _pick(verdicts: Sequence[Verdict], devices: Sequence[str]) -> Sequence[Verdict]:
    """The verdicts about these devices, in their order. Raises DeviceError when the node has no such device."""
    if not devices:
        return verdicts
    known = {verdict.candidate.id: verdict for verdict in verdicts}
    return [known.get(device) or known.get(_read(device)) or _miss(device) for device in devices]


def _read(device: str) -> str:
    try:
        return PciAddress.parse(device)
    except DeviceError:
        return device


def _miss(device: str) -> Verdict:
    raise DeviceError(
        f"{device} is no network function, subfunction or accelerator of this node",
        hint="`sriovdp discover` lists what there is",
    )
