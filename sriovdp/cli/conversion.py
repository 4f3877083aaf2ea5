"""`sriovdp import`: files of the three Go programs as our config and networks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from cni.protocol.nad import check_nad
from sriovdp.cli.plugin_files import convert_plugin_files
from sriovdp.cluster.conversion import (
    convert_config,
    convert_networks,
    list_ignored,
    read_config_objects,
)
from sriovdp.cluster.findings import Findings
from sriovdp.cluster.manifest import MAX_BYTES, PLAIN, Manifest, read_manifests, refuse_twins
from sriovdp.cluster.nad import RESOURCE
from sriovdp.cluster.node_config import read_tree
from sriovdp.errors import ConfigError, SriovdpError
from sriovdp.model import escape_unprintable
from sriovdp.state.files import write_whole

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_STDIN = Path("-")
_CONFIG = "config.yaml"
_NETWORKS = "networks.yaml"
_FOREIGN = "no plugin has type"


@click.command(epilog="Example: sriovdp import policies.yaml networks/ nodestates.yaml -o new")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder for what is made.")
@click.option("--force", is_flag=True, help="Replace files that are in the folder already.")
@click.option(
    "--resource-prefix",
    "prefix",
    default="openshift.io",
    show_default=True,
    metavar="DOMAIN",
    help="Domain of the operator's resources, its RESOURCE_PREFIX.",
)
@click.option("--key", default="", metavar="KEY", help="The key of a ConfigMap's data to read, if there are several.")
def command(paths: tuple[Path, ...], output: Path | None, *, force: bool, prefix: str, key: str) -> None:
    """Make our config and networks from files of sriov-network-operator, its device plugin and sriov-cni.

    PATH is a file or a folder with YAML or JSON: the operator's policies, networks and configs, ConfigMaps and the
    DaemonSet of sriov-network-device-plugin, NetworkAttachmentDefinitions; Lists as `kubectl get -o yaml` prints them.
    - is standard input. With SriovNetworkNodeStates and Nodes among them, the config names the PFs of each node.

    Warnings say what changes meaning. Without --output nothing is written. With a fault nothing is written either, and
    the exit code is 1.
    """
    findings = Findings()
    texts = {source: text for path in paths for source, text in _read_files(path, findings)}
    manifests = [one for source, text in texts.items() for one in read_manifests(text, source, findings)]
    manifests = refuse_twins(manifests, findings)
    tree, networks = _convert(manifests, texts, prefix, key, findings)
    for warning in findings.warnings:
        click.echo(f"warning: {escape_unprintable(warning)}", err=True)
    if findings.faults:
        raise ConfigError("import", [escape_unprintable(fault) for fault in findings.faults])
    if not tree and not networks:
        raise ConfigError("import", ["the files have nothing to import: no policy, network or config of a plugin"])
    _write(tree, networks, output, force=force)


def _convert(
    manifests: list[Manifest], texts: dict[str, str], prefix: str, key: str, findings: Findings
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    objects = read_config_objects(manifests, prefix, findings)
    tree = convert_config(manifests, objects, findings) if objects.policies else {}
    plugin = convert_plugin_files(manifests, texts, key, findings, has_policies=bool(objects.policies))
    for name, value in plugin.items():
        tree[name] = [*tree.get(name, ()), *value] if isinstance(value, list) else value
    config = read_tree(tree, _CONFIG, findings) if tree and not findings.faults else None
    networks = convert_networks(manifests, prefix, findings)
    offered = {pool.resource for pool in config.pools} if config else set()
    for nad in networks:
        _check_network(nad, offered, findings)
    for kind, count in list_ignored(manifests, ("ConfigMap", "DaemonSet", PLAIN)).items():
        findings.warn(f"{count} of kind {kind}", "ignored: nothing is made of them")
    return tree, networks


def _check_network(nad: dict[str, Any], offered: set[str], findings: Findings) -> None:
    metadata = nad["metadata"]
    subject = "network " + "/".join(str(metadata[part]) for part in ("namespace", "name") if metadata.get(part))
    report = check_nad(nad)
    for fault in report.faults:
        if not fault.message.startswith(_FOREIGN):
            findings.refuse(subject, str(fault))
    for warning in report.warnings:
        findings.warn(subject, warning)
    annotations = metadata.get("annotations")
    resource = annotations.get(RESOURCE) if isinstance(annotations, dict) else None
    if report.networks and offered and resource not in offered:
        given = f"{RESOURCE} is {resource}, which no pool of the config offers" if resource else f"has no {RESOURCE}"
        findings.warn(subject, given)


def _read_files(path: Path, findings: Findings) -> Iterator[tuple[str, str]]:
    """Files by name. A file that is named is read whatever its name is; in a folder those with a fitting suffix."""
    is_folder = path != _STDIN and path.is_dir()
    files = (
        sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file()) if is_folder else [path]
    )
    if not files:
        findings.refuse(path, "has no file that ends in .yaml, .yml or .json")
    for file in files:
        name = "standard input" if file == _STDIN else str(file)
        try:
            with click.open_file(str(file), "rb") as stream:
                yield name, stream.read(MAX_BYTES + 1).decode("utf-8-sig")
        except OSError as error:
            findings.refuse(name, f"cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            findings.refuse(name, f"not UTF-8 text ({error.reason} at byte {error.start + 1})")


def _write(tree: dict[str, Any], networks: list[dict[str, Any]], output: Path | None, *, force: bool) -> None:
    made = {_CONFIG: _dump([tree])} if tree else {}
    if networks:
        made[_NETWORKS] = _dump(networks)
    pfs, pools = len(tree.get("physicalFunctions", ())), len(tree.get("resourceList", ()))
    counted = f"{pfs} PF entries, {pools} pools, {len(networks)} networks"
    if output is None:
        click.echo(f"{counted}; nothing is written, give --output DIR")
        return
    there = [name for name in made if (output / name).exists()]
    if there and not force:
        raise SriovdpError(f"{output} has {' and '.join(there)} already", hint="choose another folder, or add --force")
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            write_whole(output / name, text)
    except OSError as error:
        raise SriovdpError(f"{output}: cannot be written: {error.strerror}") from error
    click.echo(f"{counted}: {', '.join(str(output / name) for name in made)}")


class _Dumper(yaml.SafeDumper):
    """Writes each value out: no anchors and aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (PyYAML's signature)
        return True


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _write_text)


def _dump(documents: list[dict[str, Any]]) -> str:
    text: str = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text
