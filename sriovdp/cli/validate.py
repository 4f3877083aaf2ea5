"""`sriovdp validate`: check a config file."""

from pathlib import Path

import click

from sriovdp.cli.options import config_file, node_options
from sriovdp.config.dump import write_yaml
from sriovdp.config.file import Loaded, load_with_places
from sriovdp.config.nodes import NodeIdentity
from sriovdp.errors import ConfigError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.node.inventory import list_known_drivers, take_snapshot
from sriovdp.pools.fit import Fit


@click.command(epilog="Example: sriovdp validate config.yaml")
@config_file
@click.option(
    "--sysfs",
    "root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Check against a recorded node.  [default: this machine, if it has a NIC with VFs]",
)
@click.option("--offline", is_flag=True, help="Check the file alone, not against a node.")
@click.option("--show-defaults", is_flag=True, help="Print the file as YAML, with every default.")
@node_options
def command(
    config_path: Path,
    root: Path | None,
    *,
    offline: bool,
    show_defaults: bool,
    node_name: str | None,
    node_labels: dict[str, str] | None,
) -> None:
    """Check a config file and list all its faults, also against the NICs of this node.

    Faults and warnings go to stderr. The exit code is 1 if there is a fault; warnings leave it at 0.
    """
    loaded = load_with_places(config_path, NodeIdentity.find(node_name, node_labels))
    warnings = list(loaded.config.warnings)
    if not offline:
        warnings += _check_node(loaded, Sysfs(root or Path("/sys")), config_path, force=root is not None)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if show_defaults:
        click.echo(write_yaml(loaded.config), nl=False)
    else:
        click.echo(_sum_up(loaded, config_path))


def _check_node(loaded: Loaded, sysfs: Sysfs, source: Path, *, force: bool) -> list[str]:
    """Warnings for a node that has VFs or can have them; another one, like a build machine, only if forced."""
    node = take_snapshot(sysfs)
    if not force and not any(pf.total_vfs or pf.vfs for pf in (*node.pfs, *node.accelerators)):
        return []
    fit = Fit(loaded.config, node, loaded.pf_places, loaded.pool_places)
    faults = loaded.tell(fit.find_faults(list_known_drivers(sysfs)))
    if faults:
        raise ConfigError(str(source), faults)
    return loaded.tell(fit.find_warnings())


def _sum_up(loaded: Loaded, source: Path) -> str:
    pools, entries = len(loaded.config.pools), len(loaded.config.physical_functions)
    plural = "entry" if entries == 1 else "entries"
    return f"{source} is valid: {pools} pool{'' if pools == 1 else 's'}, {entries} PF {plural}"
