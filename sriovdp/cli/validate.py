"""`sriovdp validate`: check a config file, or networks."""

from collections.abc import Iterator
from pathlib import Path

import click

from sriovdp.cli.network_fit import Findings, Surroundings
from sriovdp.cli.networks import Network, find_networks
from sriovdp.cli.options import DEFAULT_CONFIG, STDIN, key_option, node_options
from sriovdp.config.dump import write_yaml
from sriovdp.config.file import Loaded, load, load_text, read_text
from sriovdp.config.nodes import NodeIdentity
from sriovdp.errors import ConfigError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import Node
from sriovdp.node.inventory import take_snapshot
from sriovdp.node.sources import list_known_drivers
from sriovdp.policy import make_policy
from sriovdp.pools.fit import Fit

_PATH = click.Path(path_type=Path)


@click.command(epilog="Example: sriovdp validate config.yaml && sriovdp validate nad.yaml -c config.yaml")
@click.argument("file", required=False, type=_PATH, metavar="[FILE]")
@click.option("-c", "--config", "config_path", type=_PATH, help=f"The config file.  [default: {DEFAULT_CONFIG}]")
@click.option(
    "--sysfs",
    "root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Check against a recorded node.  [default: this machine, if it has a NIC with VFs]",
)
@click.option("--offline", is_flag=True, help="Check the file alone, not against a node.")
@click.option("--show-defaults", is_flag=True, help="Print the config as YAML, with every default.")
@key_option
@node_options
def command(  # noqa: PLR0913 (one for each option)
    file: Path | None,
    config_path: Path | None,
    root: Path | None,
    *,
    offline: bool,
    show_defaults: bool,
    key: str,
    node_name: str | None,
    node_labels: dict[str, str] | None,
) -> None:
    """Check a config file and list all its faults, also against the NICs of this node.

    FILE can have networks too: NetworkAttachmentDefinitions, or one CNI configuration. They are checked with the
    devices that their resource has by the config file. - is standard input.

    Faults and warnings go to stderr. The exit code is 1 if there is a fault; warnings leave it at 0.
    """
    path = STDIN if Path("-") in {file, config_path} else file or config_path or DEFAULT_CONFIG
    text, identity = read_text(path), NodeIdentity.find(node_name, node_labels)
    networks, is_config = find_networks(text)
    if file and config_path and not networks:
        raise click.UsageError(f"two config files: {file} and {config_path}. Give one, as FILE or with --config.")
    node = None if offline else _take_node(root)
    faults: list[str] = []
    warnings: list[str] = []
    loaded = None
    if is_config or not networks:
        try:
            loaded = load_text(text, str(path), identity, key=key)
            warnings += _check_config(loaded, str(path), root, node)
        except ConfigError as error:
            faults += error.faults
    if networks:
        around = _surround(loaded, file and config_path, identity, key, node) if not faults else Surroundings()
        for findings in _check_networks(networks, around):
            faults += findings.faults
            warnings += findings.warnings
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if faults:
        raise ConfigError(str(path), faults)
    if show_defaults and loaded:
        click.echo(write_yaml(loaded.config), nl=False)
    else:
        click.echo(f"{path} is valid: {_sum_up(loaded, networks)}")


def _take_node(root: Path | None) -> Node | None:
    """The recorded node, or this machine if it has VFs or can have them; a build machine is not checked against."""
    node = take_snapshot(Sysfs(root or Path("/sys")))
    is_worth_it = root or any(pf.total_vfs or pf.vfs for pf in (*node.pfs, *node.accelerators))
    return node if is_worth_it else None


def _check_config(loaded: Loaded, source: str, root: Path | None, node: Node | None) -> list[str]:
    """Warnings of a config. Raises ConfigError when it does not fit the node."""
    warnings = list(loaded.config.warnings)
    if node is None:
        return warnings
    fit = Fit(loaded.config, node, loaded.pf_places, loaded.pool_places)
    faults = loaded.tell(fit.find_faults(list_known_drivers(Sysfs(root or Path("/sys")))))
    if faults:
        raise ConfigError(source, faults)
    return warnings + loaded.tell(fit.find_warnings())


def _surround(
    loaded: Loaded | None, path: Path | None, identity: NodeIdentity, key: str, node: Node | None
) -> Surroundings:
    """What networks are checked with: the config beside them, or the one that is named, or that of this node."""
    if loaded is None and path is None and not DEFAULT_CONFIG.exists():
        return Surroundings()
    config = loaded.config if loaded else load(path or DEFAULT_CONFIG, identity, key=key)
    return Surroundings.of(config, node) if node else Surroundings(make_policy(config))


def _check_networks(networks: list[Network], around: Surroundings) -> Iterator[Findings]:
    """Findings with the network's name. A network of other plugins is a fault only if it is the whole file."""
    found = [(network, around.check(network)) for network in networks]
    is_ours = any(not findings.foreign for _, findings in found)
    for network, findings in found:
        prefix = f"network {network.name}: "
        sentences = [prefix + fault for fault in findings.faults], [prefix + warning for warning in findings.warnings]
        yield Findings([], sentences[0]) if findings.foreign and is_ours else Findings(*sentences)


def _sum_up(loaded: Loaded | None, networks: list[Network]) -> str:
    counts = [_count(len(networks), "network", "networks")] if networks else []
    if loaded:
        counts.append(_count(len(loaded.config.pools), "pool", "pools"))
        counts.append(_count(len(loaded.config.physical_functions), "PF entry", "PF entries"))
    return ", ".join(counts)


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
