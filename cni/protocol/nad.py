"""Checking a NetworkAttachmentDefinition before a pod meets it: every fault, and every key without effect, at once."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cni.policy import Policy
from cni.protocol.decoding import decode
from cni.protocol.effect import list_idle_keys
from cni.protocol.keys import TYPES, Findings
from cni.protocol.netconf import NetConf, read_netconf
from cni.protocol.permission import list_refusals
from cni.protocol.spec import INVALID_CONFIG
from sriovdp.errors import CniError
from sriovdp.model import is_userspace

# of a list of plugins, specification, section 1
_LIST_KEYS = frozenset(
    {"cniVersion", "cniVersions", "name", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "plugins"}
)
_KIND = "NetworkAttachmentDefinition"
_RESOURCE = "k8s.v1.cni.cncf.io/resourceName"
_ANY_VF = "0000:00:00.0"
_UNNAMED = "network"  # as good as any: Multus takes the name of the NetworkAttachmentDefinition


@dataclass(frozen=True, slots=True)
class NadReport:
    """What is wrong with a network. `faults` refuse each pod; `warnings` are keys without effect, a sentence each.

    `networks` are the configurations of this plugin, as far as they can be read: one, or more in a list of plugins.
    """

    faults: tuple[CniError, ...] = ()
    warnings: tuple[str, ...] = ()
    networks: tuple[NetConf, ...] = field(default=(), repr=False)


def check_nad(
    document: str | bytes | Mapping[str, Any],
    *,
    name: str = "",
    has_resource: bool = False,
    policy: Policy | None = None,
    mode: str | None = None,
) -> NadReport:
    """Check a NetworkAttachmentDefinition: the decoded manifest, or its `spec.config` as text or decoded.

    The config is one network or a list of plugins. `has_resource` says that the manifest has the annotation with a
    resource name: Multus then fills in `deviceID`. `name` is for a config without one. Both are read from a manifest.
    `policy` is the node's. `mode`, `kernel` or `dpdk`, is what VFs of the resource are attached in; without it the key
    `driver` says it. Raises nothing.
    """
    found, policy = Findings(), policy or Policy()
    networks: list[NetConf] = []
    with found.collect():
        if isinstance(document, Mapping) and document.get("kind") == _KIND:
            document, name, has_resource = _open_manifest(document)
        for network in _list_networks(document, name, found):
            if has_resource and network.pop("deviceID", None):
                found.warnings.append("deviceID has no effect: Multus fills in the VF of the resource")
            given = {"deviceID": _ANY_VF} if has_resource else {}
            with found.collect():
                conf = read_netconf(network | given, "", "ADD", found)
                networks.append(replace(conf, device=None) if has_resource else conf)
                found.faults += list_refusals(conf, policy)
                found.warnings += list_idle_keys(conf, mode or _guess_mode(conf))
    return NadReport(tuple(found.faults), tuple(dict.fromkeys(found.warnings)), tuple(networks))


def _open_manifest(manifest: Mapping[str, Any]) -> tuple[Any, str, bool]:
    """Config, name and whether there is a resource. Raises CniError for a manifest without a config."""
    metadata, spec = manifest.get("metadata"), manifest.get("spec")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    config = spec.get("config") if isinstance(spec, Mapping) else None
    if not isinstance(config, str):
        raise CniError(
            INVALID_CONFIG, "spec.config is no text", hint="write the network's configuration there, as JSON"
        )
    annotations = metadata.get("annotations")
    return (
        config,
        str(metadata.get("name") or ""),
        isinstance(annotations, Mapping) and bool(annotations.get(_RESOURCE)),
    )


def _list_networks(document: str | bytes | Mapping[str, Any], name: str, found: Findings) -> Iterator[dict[str, Any]]:
    """The configurations for this plugin, as libcni makes them of a list: with the list's name and version."""
    config = _decode(document)
    common = {"name": config.get("name") or name or _UNNAMED, "cniVersion": config.get("cniVersion")}
    if "plugins" not in config:
        if config.get("type") not in TYPES:
            raise _no_plugin_of_ours([config.get("type")])
        yield config | {key: value for key, value in common.items() if value}
        return
    plugins = config["plugins"]
    if not isinstance(plugins, list) or not all(isinstance(plugin, dict) for plugin in plugins):
        raise CniError(INVALID_CONFIG, "plugins is no list of objects", hint="put each plugin's configuration into it")
    found.warnings += [f"key {key!r} has no effect outside `plugins`" for key in config if key not in _LIST_KEYS]
    ours = [plugin for plugin in plugins if plugin.get("type") in TYPES]
    if not ours:
        raise _no_plugin_of_ours([plugin.get("type") for plugin in plugins])
    for plugin in ours:
        yield plugin | {key: value for key, value in common.items() if value}


def _decode(document: str | bytes | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(document, Mapping):
        document = json.dumps(document, default=str)
    return decode(document if isinstance(document, bytes) else document.encode(errors="replace"))


def _no_plugin_of_ours(kinds: list[Any]) -> CniError:
    shown = ", ".join(json.dumps(kind) for kind in kinds) or "nothing"
    return CniError(
        INVALID_CONFIG,
        f"no plugin has type {TYPES[0]}: there is {shown}",
        hint=f'set "type": "{TYPES[0]}" to let sriovdp attach a VF; networks of other plugins are not checked',
    )


def _guess_mode(conf: NetConf) -> str | None:
    if conf.driver is None:
        return None
    return "dpdk" if is_userspace(conf.driver) else "kernel"
