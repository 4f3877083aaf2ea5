"""The config of one node from the operator's objects: a pure function of them, the node's labels and its PFs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sriovdp.cluster.entries import write_tree
from sriovdp.cluster.findings import Findings
from sriovdp.cluster.interface import Interface
from sriovdp.cluster.labels import matches
from sriovdp.cluster.merge import Group, Policy, merge, sort_policies
from sriovdp.cluster.reading import Read
from sriovdp.cluster.specs import OperatorConfigSpec, PoolConfigSpec
from sriovdp.cluster.target import Setup, target_of
from sriovdp.config.document import Document
from sriovdp.config.faults import list_faults
from sriovdp.config.forms import INVALID, Faults
from sriovdp.config.objects import find_object
from sriovdp.config.ranges import VfIndices
from sriovdp.config.rules import find_broken
from sriovdp.config.values import Config

DEFAULT = "default"
"""The name of the operator's own policy, which it ignores, and of its one SriovOperatorConfig."""


@dataclass(frozen=True, slots=True)
class Objects:
    """The operator's objects that say what nodes are like. `prefix` is the domain of its resources."""

    policies: Sequence[Policy] = ()
    pool_configs: Sequence[Read[PoolConfigSpec]] = ()
    operator_configs: Sequence[Read[OperatorConfigSpec]] = ()
    prefix: str = "openshift.io"


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node by its name, labels and PFs."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    interfaces: Sequence[Interface] = ()


def compute_config(objects: Objects, node: NodeView, findings: Findings) -> Config | None:
    """The config of a node; None when there is a fault. Policies that mean no PF of it do not matter."""
    tree = compute_tree(objects, node, findings)
    return None if findings.faults else read_tree(tree, f"node {node.name}", findings)


def compute_tree(objects: Objects, node: NodeView, findings: Findings) -> dict[str, Any]:
    """The config of a node as a tree, as far as it goes: with a fault it is not to be used."""
    if not _is_configured(objects, node, findings):
        return {}
    policies = [one for one in objects.policies if matches(one.spec.node_selector, node.labels)]
    usable = list_usable(policies, findings)
    setups = []
    for interface in sorted(node.interfaces, key=lambda one: one.address):
        groups = [
            Group(one, _find_indices(one, interface)) for one in usable if interface.is_meant(one.spec.nic_selector)
        ]
        if groups:
            target = target_of(interface)
            setups.append(Setup(target, merge(groups, f"node {node.name}: {target.subject}", findings)))
    _say_unused(usable, node, findings)
    tree = write_tree(setups, objects.prefix, findings)
    return ({"cdi": True} if tree and wants_cdi(objects.operator_configs) else {}) | tree


def list_usable(policies: Iterable[Policy], findings: Findings) -> list[Policy]:
    """The policies that count, in the order in which they are applied."""
    usable = []
    for policy in sort_policies(policies):
        if policy.name == DEFAULT:
            findings.warn(policy, "is ignored, as by sriov-network-operator: it is its own")
        elif policy.spec.num_vfs == 0:
            findings.warn(policy, "is ignored, as by sriov-network-operator: numVfs is 0")
        else:
            usable.append(policy)
    return usable


def wants_cdi(configs: Iterable[Read[OperatorConfigSpec]]) -> bool:
    """Whether the operator's config asks for CDI."""
    return any(one.spec.use_cdi for one in configs if one.name == DEFAULT)


def read_tree(tree: Mapping[str, Any], subject: str, findings: Findings) -> Config | None:
    """The config of a tree, by all rules of the config file; None when one is broken, which is a fault."""
    whole = dict(tree)
    faults = Faults(list(find_broken(whole)))
    config: Config = find_object(Config).read(whole, (), faults)
    for sentence in list_faults(Document(whole), faults.found):
        findings.refuse(subject, sentence.removeprefix("line 1: "))
    return None if faults.found or config is INVALID else config


def _is_configured(objects: Objects, node: NodeView, findings: Findings) -> bool:
    pools = [one for one in objects.pool_configs if not one.spec.ovs_hardware_offload_config]
    of_node = [one for one in pools if matches(one.spec.node_selector or {}, node.labels, is_whole=True)]
    if len(of_node) > 1:
        names = " and ".join(sorted(one.name for one in of_node))
        findings.refuse(
            f"node {node.name}: SriovNetworkPoolConfig {names}", "both mean this node; a node is in one pool"
        )
    for one in of_node:
        if one.spec.rdma_mode:
            sentence = f"set the RDMA subsystem to {one.spec.rdma_mode} mode yourself"
            command = f"`options ib_core netns_mode={int(one.spec.rdma_mode == 'shared')}` in /etc/modprobe.d"
            findings.warn(one, f"{sentence}: {command}")
    selectors = [one.spec.config_daemon_node_selector for one in objects.operator_configs if one.name == DEFAULT]
    return all(matches(selector, node.labels) for selector in selectors)


def _find_indices(policy: Policy, interface: Interface) -> VfIndices:
    entries = interface.find_entries(policy.spec.nic_selector)
    whole = VfIndices((range(policy.spec.num_vfs),))
    if not entries or any(entry.indices is None for entry in entries):
        return whole
    return VfIndices.parse(",".join(str(entry.indices) for entry in entries))


def _say_unused(policies: Iterable[Policy], node: NodeView, findings: Findings) -> None:
    for policy in policies:
        if not any(interface.is_meant(policy.spec.nic_selector) for interface in node.interfaces):
            findings.warn(f"node {node.name}: SriovNetworkNodePolicy {policy.name}", "selects no PF of this node")
