"""All objects of sriov-network-operator in a set of manifests, as one config and the networks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sriovdp.cluster.findings import Findings
from sriovdp.cluster.interface import read_interfaces
from sriovdp.cluster.manifest import Manifest
from sriovdp.cluster.nad import OWNER, render_network
from sriovdp.cluster.node_config import NodeView, Objects, compute_tree
from sriovdp.cluster.nodes import unite_trees
from sriovdp.cluster.reading import Read, read_objects
from sriovdp.cluster.shared_config import compute_shared_tree
from sriovdp.cluster.specs import (
    GROUP,
    SPECS,
    OperatorConfigSpec,
    OVSNetworkSpec,
    PolicySpec,
    PoolConfigSpec,
    SriovIBNetworkSpec,
    SriovNetworkSpec,
)

NODE_STATE = "SriovNetworkNodeState"
NETWORK = "NetworkAttachmentDefinition"
_KNOWN_NAMESPACES = frozenset({"", "openshift-sriov-network-operator", "sriov-network-operator"})
_SERVER_FIELDS = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def read_config_objects(manifests: Sequence[Manifest], prefix: str, findings: Findings) -> Objects:
    """The objects that say what nodes are like."""
    objects = Objects(
        read_objects(manifests, PolicySpec, findings),
        read_objects(manifests, PoolConfigSpec, findings),
        read_objects(manifests, OperatorConfigSpec, findings),
        prefix,
    )
    for one in objects.pool_configs:
        if one.spec.max_unavailable is not None:
            findings.warn(one, "maxUnavailable has no effect: sriovdp drains no node, a change waits for the pods")
        if one.spec.ovs_hardware_offload_config:
            findings.warn(one, "ovsHardwareOffloadConfig has no effect: set up Open vSwitch on the nodes yourself")
    for config in objects.operator_configs:
        _warn_of_settings(config, findings)
    namespaces = {one.manifest.namespace for one in objects.policies} - {""}
    if len(namespaces) > 1:
        listed = ", ".join(sorted(namespaces))
        findings.warn(
            "SriovNetworkNodePolicy", f"policies are in {listed}; sriov-network-operator reads its own namespace only"
        )
    return objects


def convert_config(manifests: Sequence[Manifest], objects: Objects, findings: Findings) -> dict[str, Any]:
    """The config for the nodes whose states are there; for all nodes where there is none."""
    states = [one for one in manifests if one.kind == NODE_STATE and one.group == GROUP]
    if not states:
        return compute_shared_tree(objects, findings)
    labels = {one.name: _read_labels(one, findings) for one in manifests if one.kind == "Node"}
    trees = {}
    for state in states:
        if state.name not in labels and _needs_labels(objects):
            sentence = "the labels of this node are not known; add the output of `kubectl get nodes -o yaml`"
            findings.refuse(state.place(), sentence)
        view = NodeView(state.name, labels.get(state.name, {}), read_interfaces(state, findings))
        trees[state.name] = compute_tree(objects, view, findings)
    return unite_trees(trees)


def convert_networks(manifests: Sequence[Manifest], prefix: str, findings: Findings) -> list[dict[str, Any]]:
    """NetworkAttachmentDefinitions of all networks, and those that are there already."""
    there = {_key(one.tree): one for one in manifests if one.kind == NETWORK}
    homes = {one.namespace for one in manifests if one.kind in {"SriovNetworkNodePolicy", "SriovOperatorConfig"}}
    made: dict[tuple[str, str], tuple[Read[Any], dict[str, Any]]] = {}
    kinds: tuple[type[Any], ...] = (SriovNetworkSpec, SriovIBNetworkSpec, OVSNetworkSpec)
    for kind in kinds:
        for network in read_objects(manifests, kind, findings):
            nad = render_network(_fill(network), prefix, findings)
            if nad is None:
                continue
            if network.spec.network_namespace and network.manifest.namespace not in homes | _KNOWN_NAMESPACES:
                findings.warn(network, "sriov-network-operator refuses networkNamespace outside of its own namespace")
            first = made.setdefault(_key(nad), (network, nad))
            if first[1] is not nad:
                findings.refuse(network, f"makes the same {NETWORK} as {first[0].manifest}; rename one")
            elif _key(nad) in there:
                _join(network, nad, there[_key(nad)], findings)
    others = [_strip(one.tree) for key, one in there.items() if key not in made]
    return [nad for _, nad in made.values()] + others


def list_ignored(manifests: Iterable[Manifest], used: Iterable[str]) -> dict[str, int]:
    """Kinds of objects that nothing was made of, with how many there are."""
    known, counts = {*SPECS, NODE_STATE, NETWORK, "Node", *used}, dict[str, int]()
    for one in manifests:
        if one.kind not in known:
            counts[one.kind] = counts.get(one.kind, 0) + 1
    return counts


def _fill(network: Read[Any]) -> Read[Any]:
    """A network as the API server keeps it: with the default of its CustomResourceDefinition."""
    spec = network.manifest.tree.get("spec")
    if isinstance(network.spec, SriovNetworkSpec) and isinstance(spec, dict) and spec.get("logLevel") is None:
        return replace(network, spec=replace(network.spec, log_level="info"))
    return network


def _join(network: Read[Any], nad: dict[str, Any], old: Manifest, findings: Findings) -> None:
    """Keep what people added to a network that the operator made. Another owner's is a fault."""
    stripped = _strip(old.tree)
    annotations = stripped["metadata"].get("annotations") or {}
    wanted = nad["metadata"]["annotations"]
    owner = annotations.get(OWNER)
    if owner not in (None, wanted[OWNER]):
        findings.refuse(
            old.place(), f"belongs to {owner}, and {network.manifest} makes one of the same name; rename one"
        )
    if stripped.get("spec") != nad["spec"]:
        findings.warn(old.place(), f"differs from what {network.manifest} says, which is taken")
    nad["metadata"]["annotations"] = {**annotations, **wanted}


def _strip(tree: Mapping[str, Any]) -> dict[str, Any]:
    """An object without what the API server keeps in it."""
    metadata = {key: value for key, value in tree["metadata"].items() if key not in _SERVER_FIELDS}
    metadata.pop("ownerReferences", None)
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict):
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != _LAST_APPLIED}
    return {**tree, "metadata": metadata}


def _key(tree: Mapping[str, Any]) -> tuple[str, str]:
    metadata = tree["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])


def _needs_labels(objects: Objects) -> bool:
    return (
        any(one.spec.node_selector for one in objects.policies)
        or any(one.spec.node_selector for one in objects.pool_configs)
        or any(one.spec.config_daemon_node_selector for one in objects.operator_configs)
    )


def _read_labels(node: Manifest, findings: Findings) -> dict[str, str]:
    labels = node.tree["metadata"].get("labels") or {}
    if isinstance(labels, dict) and all(isinstance(value, str) for value in labels.values()):
        return dict(labels)
    findings.refuse(node.place(("metadata", "labels")), "must be an object of texts")
    return {}


_WITHOUT_EFFECT = {
    "enable_injector": "enableInjector: keep the Network Resources Injector if pods rely on it",
    "enable_operator_webhook": "enableOperatorWebhook: `sriovdp validate` checks configs and networks",
    "enable_ovs_offload": "enableOvsOffload: set up Open vSwitch on the nodes yourself",
    "disable_plugins": "disablePlugins: sriovdp changes no firmware",
    "feature_gates": "featureGates",
    "config_daemon_env_vars": "configDaemonEnvVars",
}


def _warn_of_settings(config: Read[OperatorConfigSpec], findings: Findings) -> None:
    if config.name != "default":
        findings.warn(config, "is ignored, as by sriov-network-operator: its name is not default")
        return
    given = [text for key, text in _WITHOUT_EFFECT.items() if getattr(config.spec, key)]
    if given:
        findings.warn(config, f"without effect here: {'; '.join(given)}")
    if config.spec.configuration_mode == "systemd":
        findings.warn(config, "configurationMode systemd: enable sriovdp-provision.service on the nodes")
