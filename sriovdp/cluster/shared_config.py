"""One config for all nodes from the operator's objects alone: no node is known, and PFs are what selectors name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from sriovdp.cluster.entries import write_tree
from sriovdp.cluster.findings import Findings
from sriovdp.cluster.merge import Group, Policy, merge
from sriovdp.cluster.node_config import Objects, list_usable, wants_cdi
from sriovdp.cluster.specs import PfName
from sriovdp.cluster.target import Setup, Target
from sriovdp.cluster.vf_ids import VF_IDS
from sriovdp.config.ranges import VfIndices

_UNKNOWN = "give the SriovNetworkNodeStates too, then the PFs are known"


@dataclass(frozen=True, slots=True)
class _Key:
    """PFs that a policy names, on the nodes that it names."""

    labels: tuple[tuple[str, str], ...]
    vendor: str
    device: str
    roots: tuple[str, ...]
    name: str

    def may_meet(self, other: "_Key") -> bool:
        """Whether both may mean one PF of one node."""
        mine, others = dict(self.labels), dict(other.labels)
        return (
            all(others.get(key, value) == value for key, value in mine.items())
            and all(not a or not b or a == b for a, b in ((self.vendor, other.vendor), (self.device, other.device)))
            and (not self.name or not other.name or self.name == other.name)
            and (not self.roots or not other.roots or not set(self.roots).isdisjoint(other.roots))
        )

    def __str__(self) -> str:
        parts = (self.name, " ".join(self.roots), ":".join(part for part in (self.vendor, self.device) if part))
        nodes = ",".join(f"{key}={value}" for key, value in self.labels)
        return f"PF {' '.join(part for part in parts if part)}" + (f" of nodes {nodes}" if nodes else "")


def compute_shared_tree(objects: Objects, findings: Findings) -> dict[str, Any]:
    """A config for all nodes as a tree; with a fault it is not to be used."""
    groups: dict[_Key, list[Group]] = {}
    pairs = [
        (key, Group(policy, indices))
        for policy in list_usable(objects.policies, findings)
        for key, indices in _list_keys(policy, findings)
    ]
    for key, group in pairs:
        groups.setdefault(_join_alike(key, [other for other, _ in pairs]), []).append(group)
    _warn_of_meetings(groups, findings)
    setups = [
        Setup(_make_target(key, members, findings), merge(members, str(key), findings))
        for key, members in groups.items()
    ]
    setups.sort(key=lambda setup: setup.merged.winner.spec.priority)
    for one in objects.pool_configs:
        if one.spec.rdma_mode:
            findings.warn(one, f"set the RDMA subsystem of its nodes to {one.spec.rdma_mode} mode yourself")
    for config in objects.operator_configs:
        if config.spec.config_daemon_node_selector:
            findings.warn(
                config, "configDaemonNodeSelector has no effect on the config; run the DaemonSet on these nodes only"
            )
    tree = write_tree(setups, objects.prefix, findings)
    return ({"cdi": True} if tree and wants_cdi(objects.operator_configs) else {}) | tree


def _list_keys(policy: Policy, findings: Findings) -> Iterator[tuple[_Key, VfIndices]]:
    selector, whole = policy.spec.nic_selector, VfIndices((range(policy.spec.num_vfs),))
    if selector.net_filter:
        findings.refuse(policy, f"netFilter means PFs by their network in the cloud; {_UNKNOWN}")
        return
    labels = tuple(sorted(policy.spec.node_selector.items()))
    roots = tuple(sorted(str(address) for address in selector.root_devices))
    by_name: dict[str, list[PfName]] = {}
    for entry in selector.pf_names:
        by_name.setdefault(entry.name, []).append(entry)
    for name, entries in (by_name or {"": []}).items():
        spans = [entry.indices for entry in entries]
        parts = [str(span) for span in spans if span is not None]
        indices = VfIndices.parse(",".join(parts)) if parts and len(parts) == len(spans) else whole
        if len(entries) > 1:
            findings.warn(
                policy, f"pfNames has {name} {len(entries)} times, and all count; sriov-network-operator takes one"
            )
        yield _Key(labels, selector.vendor or "", selector.device_id or "", roots, name), indices


def _join_alike(key: _Key, keys: Sequence[_Key]) -> _Key:
    """The closest selector of all that name the same PF of the same nodes, so that these policies are put together."""
    same = [other for other in keys if key.name and (other.labels, other.name) == (key.labels, key.name)]
    if not same or not all(one.may_meet(other) for one, other in combinations(same, 2)):
        return key
    roots = [set(other.roots) for other in same if other.roots]
    return replace(
        key,
        vendor=next((other.vendor for other in same if other.vendor), ""),
        device=next((other.device for other in same if other.device), ""),
        roots=tuple(sorted(set.intersection(*roots))) if roots else (),
    )


def _make_target(key: _Key, members: Sequence[Group], findings: Findings) -> Target:
    select = {
        "pfNames": [key.name] if key.name else None,
        "pciAddresses": [*key.roots] or None,
        "vendors": [key.vendor] if key.vendor else None,
        "devices": [key.device] if key.device else None,
    }
    nodes = {"labels": dict(key.labels)} if key.labels else None
    given = {name: value for name, value in select.items() if value}
    devices, ranged = _name_devices(key, members, findings)
    return Target(str(key), given, devices, ranged, nodes=nodes)


def _name_devices(key: _Key, members: Sequence[Group], findings: Findings) -> tuple[Mapping[str, Any], str]:
    """The selector for VFs of these PFs. Device ids of PFs mean nothing there, as VFs have their own."""
    both = {"pfNames": [key.name] if key.name else [], "rootDevices": [*key.roots]}
    named = {name: value for name, value in both.items() if value}
    vendor = {"vendors": [key.vendor]} if key.vendor else {}
    if named:
        return named | vendor, next(iter(named))
    for group in members:
        if not key.device:
            findings.warn(group.policy, "names PFs by vendor alone: the pool takes all VFs of this vendor")
        elif (key.vendor, key.device) not in VF_IDS:
            pf = f"{key.vendor}:{key.device}" if key.vendor else key.device
            findings.refuse(
                group.policy, f"the device id of VFs of {pf} is not known here; {_UNKNOWN}, or give pfNames"
            )
    vf = VF_IDS.get((key.vendor, key.device))
    return vendor | ({"devices": [vf]} if vf else {}), ""


def _warn_of_meetings(groups: Mapping[_Key, Sequence[Group]], findings: Findings) -> None:
    """Different selectors may mean one PF: then the config takes the first entry, and the operator merges them."""
    for one, other in combinations(groups, 2):
        if one.may_meet(other):
            names = sorted({group.policy.name for key in (one, other) for group in groups[key]})
            sentence = f"{one} and {other} may be one PF; then the first entry has it, and nothing of the other"
            findings.warn(f"SriovNetworkNodePolicy {' and '.join(names)}", f"{sentence}: {_UNKNOWN}")
