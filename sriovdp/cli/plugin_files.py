"""Files of sriov-network-device-plugin: its config in ConfigMaps, and its flags in a DaemonSet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from sriovdp.cli.upstream_flags import translate
from sriovdp.cluster.findings import Findings
from sriovdp.cluster.manifest import PLAIN, Manifest
from sriovdp.config.dump import to_tree
from sriovdp.config.file import parse
from sriovdp.config.flags import Flags
from sriovdp.config.values import Config, Pool, Selector
from sriovdp.errors import ConfigError

_IMAGES = ("sriov-network-device-plugin", "sriov-device-plugin", "sriovdp")
_MADE_BY_OPERATOR = "device-plugin-config"
_FILE_NAMES = (".json", ".yaml", ".yml", ".conf")
_WORDS = ("resourcelist", "physicalfunctions")
_DEFAULTS = to_tree(Config(pools=(Pool("a", (Selector(),)),)))["resourceList"][0]


def convert_plugin_files(
    manifests: Sequence[Manifest], texts: Mapping[str, str], key: str, findings: Findings, *, has_policies: bool
) -> dict[str, Any]:
    """A tree with the pools of all ConfigMaps, under the plugin's flags. `key` chooses one of several."""
    flags = _find_flags(manifests, findings)
    found = [entry for one in manifests for entry in _list_texts(one, texts)]
    if has_policies:
        for manifest, _, _ in found:
            if manifest.name == _MADE_BY_OPERATOR:
                findings.warn(manifest.place(), "is ignored: sriov-network-operator makes it from the policies")
        found = [entry for entry in found if entry[0].name != _MADE_BY_OPERATOR]
    chosen = [entry for entry in found if key in {entry[1], f"{entry[0].name}/{entry[1]}"}] if key else found
    if key and not chosen:
        findings.refuse("the files", f"have no ConfigMap with the key {key!r}")
    shared = [entry for entry in chosen if entry[1].endswith(_FILE_NAMES) or len(chosen) == 1]
    if len(shared) > 1 and not key:
        names = ", ".join(f"{manifest.name}/{name}" for manifest, name, _ in shared)
        findings.refuse("the files", f"have several configs of the device plugin: {names}; choose one with --key")
        return {}
    pools: list[Any] = []
    tree: dict[str, Any] = {"cdi": True} if flags.cdi else {}
    for manifest, name, text in chosen:
        source = manifest.source if manifest.kind == PLAIN else f"{manifest.place()}: {name}"
        config = _read(text, source, flags, findings)
        nodes = None if (manifest, name, text) in shared else {"names": [name]}
        pools += [_shorten(pool, nodes) for pool in config.get("resourceList", ())]
        if "physicalFunctions" in config:
            findings.warn(source, "has physicalFunctions: it is a config of sriovdp already, they are taken over")
            tree["physicalFunctions"] = [*tree.get("physicalFunctions", ()), *config["physicalFunctions"]]
    return tree | ({"resourceList": pools} if pools else {})


def _list_texts(manifest: Manifest, texts: Mapping[str, str]) -> Iterator[tuple[Manifest, str, str]]:
    if manifest.kind == PLAIN:
        yield manifest, manifest.name, texts[manifest.source]
    data = manifest.tree.get("data") if manifest.kind == "ConfigMap" else None
    for key, text in data.items() if isinstance(data, dict) else ():
        if isinstance(text, str) and any(word in text.lower() for word in _WORDS):
            yield manifest, key, text


def _read(text: str, source: str, flags: Flags, findings: Findings) -> dict[str, Any]:
    try:
        config = parse(text, source, flags=flags)
    except ConfigError as error:
        for fault in error.faults:
            findings.refuse(source, fault)
        return {}
    for warning in config.warnings:
        findings.warn(source, warning)
    return to_tree(replace(config, warnings=()))


def _shorten(pool: Mapping[str, Any], nodes: Mapping[str, Any] | None) -> dict[str, Any]:
    """A pool without the defaults that nobody wrote."""
    kept = {key: value for key, value in pool.items() if key == "resourcePrefix" or value != _DEFAULTS.get(key)}
    plain = _DEFAULTS["selectors"][0]
    kept["selectors"] = [
        {key: value for key, value in selector.items() if value != plain.get(key)} for selector in pool["selectors"]
    ]
    return {"resourceName": pool["resourceName"], **kept} | ({"nodes": dict(nodes)} if nodes else {})


def _find_flags(manifests: Sequence[Manifest], findings: Findings) -> Flags:
    flags: dict[Flags, Manifest] = {}
    for manifest in manifests:
        for words in _list_commands(manifest):
            options, ignored = translate(words)
            for sentence in ignored:
                findings.warn(manifest.place(), sentence)
            after = dict(pairwise(options))
            flags.setdefault(Flags(after.get("--resource-prefix", ""), "--use-cdi" in options), manifest)
    if len(flags) > 1:
        places = " and ".join(one.place() for one in flags.values())
        findings.refuse(places, "the device plugin's flags differ; import them one by one")
    return next(iter(flags), Flags())


def _list_commands(manifest: Manifest) -> Iterator[list[str]]:
    """The words of each device plugin's command line in a DaemonSet, without its program."""
    node: Any = manifest.tree if manifest.kind == "DaemonSet" else None
    for key in ("spec", "template", "spec", "containers"):
        node = node.get(key) if isinstance(node, dict) else None
    for container in node if isinstance(node, list) else ():
        image = container.get("image") if isinstance(container, dict) else None
        if isinstance(image, str) and any(name in image for name in _IMAGES):
            words = [*_list_words(container.get("command")), *_list_words(container.get("args"))]
            yield [word for word in words if word.startswith("-") or not word.startswith("/")]


def _list_words(node: Any) -> list[str]:
    return [word for word in node if isinstance(word, str)] if isinstance(node, list) else []
