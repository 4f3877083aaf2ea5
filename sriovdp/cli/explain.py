"""`sriovdp explain`: why a device is in a pool, or in none."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from sriovdp.cli.options import config_option, key_option, name_config, node_options, sysfs_option
from sriovdp.config.file import load
from sriovdp.config.nodes import NodeIdentity
from sriovdp.errors import DeviceError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import PciAddress
from sriovdp.node.inventory import take_snapshot
from sriovdp.pools.explanation import Verdict, describe, explain, write

_FILE_ENDINGS = (".yaml", ".yml", ".json", ".conf")


def _split(context: click.Context, _: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    """Keep the word that names the config file for its option; the others are devices."""
    files = [word for word in words if word == "-" or "/" in word or word.lower().endswith(_FILE_ENDINGS)]
    if len(files) > 1:
        raise click.UsageError(f"two config files: {' and '.join(files)}. Give one.")
    name_config(context, files[0] if files else None)
    return tuple(word for word in words if word not in files)


@click.command(epilog="Example: sriovdp explain config.yaml 0000:3b:02.1")
@click.argument("devices", nargs=-1, metavar="[FILE] [DEVICE]...", is_eager=True, callback=_split)
@config_option
@key_option
@sysfs_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list with an object for each device.")
@node_options
def command(
    devices: tuple[str, ...],
    config_path: Path,
    root: Path,
    *,
    key: str,
    as_json: bool,
    node_name: str | None,
    node_labels: dict[str, str] | None,
) -> None:
    """Show for each device which pool has it, or for each pool why it does not take it.

    A DEVICE is a PCI address or the name of a subfunction; without any, all devices of the node are shown. FILE is the
    config file: a word with a / or one that ends in .yaml, .yml, .json or .conf; - is standard input.
    """
    config = load(config_path, NodeIdentity.find(node_name, node_labels), key=key)
    node = take_snapshot(Sysfs(root))
    verdicts = _pick(list(explain(config.pools, node, config.physical_functions)), devices)
    if as_json:
        # a line each: indenting takes three times as long
        described = (json.dumps(describe(verdict)) for verdict in verdicts)
        click.echo("[\n" + ",\n".join(described) + "\n]")
        return
    lines = [line for verdict in verdicts for line in write(verdict)]
    click.echo("\n".join(lines) or "this node has no PCI network function or accelerator")


def _pick(verdicts: Sequence[Verdict], devices: Sequence[str]) -> Sequence[Verdict]:
    """The verdicts about these devices, in their order. Raises DeviceError if the node has no such device."""
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
        f"{device} is not a network function, subfunction or accelerator of this node",
        hint="list them with `sriovdp discover`",
    )
