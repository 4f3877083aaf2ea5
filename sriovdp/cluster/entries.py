"""The config's entries for PFs whose policies are put together: `physicalFunctions` and `resourceList`, as a tree."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sriovdp.cluster.differences import warn_of_differences
from sriovdp.cluster.findings import Findings
from sriovdp.cluster.merge import Group, Policy
from sriovdp.cluster.target import Setup

_LINK_TYPES = {"eth": "ether", "ib": "infiniband"}
_VFIO = "vfio-pci"
_LISTS = ("rootDevices", "pciAddresses", "pfNames")


def write_tree(setups: Sequence[Setup], prefix: str, findings: Findings) -> dict[str, Any]:
    """A config with these PFs, and a pool for each resource under this prefix."""
    for setup in setups:
        warn_of_differences(setup, findings)
    pfs = [_write_pf(setup) for setup in setups if not setup.target.is_passed_in]
    pools = [*_write_pools(setups, prefix, findings)]
    return ({"physicalFunctions": pfs} if pfs else {}) | ({"resourceList": pools} if pools else {})


def _write_pf(setup: Setup) -> dict[str, Any]:
    merged, target = setup.merged, setup.target
    groups = sorted(merged.groups, key=lambda group: group.indices.spans[0].start)
    given: dict[str, Any] = {
        "mtu": merged.mtu,
        "eSwitchMode": merged.eswitch_mode,
        "externallyManaged": merged.externally_managed or None,
        "nodes": target.nodes,
    }
    return {
        "select": dict(target.select),
        "numVfs": merged.num_vfs,
        "vfs": [{"range": str(group.indices), "driver": _name_driver(group.policy)} for group in groups],
        **{key: value for key, value in given.items() if value is not None},
    }


def _name_driver(policy: Policy) -> str:
    return _VFIO if policy.spec.device_type == _VFIO else "kernel"


def _write_pools(setups: Sequence[Setup], prefix: str, findings: Findings) -> Iterator[dict[str, Any]]:
    by_resource: dict[str, list[tuple[Setup, Group]]] = {}
    for setup in setups:
        for group in setup.merged.groups:
            by_resource.setdefault(group.policy.spec.resource_name, []).append((setup, group))
    for resource, members in sorted(by_resource.items()):
        policies = list({group.policy.name: group.policy for _, group in members}.values())
        _check_resource(resource, policies, findings)
        pool: dict[str, Any] = {
            "resourceName": resource,
            "resourcePrefix": prefix,
            "selectors": _unite(_write_selectors(members)),
        }
        if policies[0].spec.exclude_topology:
            pool["excludeTopology"] = True
        nodes = [setup.target.nodes for setup, _ in members]
        if nodes[0] is not None and all(entry == nodes[0] for entry in nodes):
            pool["nodes"] = nodes[0]
        elif any(entry is not None for entry in nodes):
            names = _name(policies)
            findings.warn(names, f"nodeSelector differs, so {resource} is offered wherever a node has such VFs")
        yield pool


def _write_selectors(members: Iterable[tuple[Setup, Group]]) -> Iterator[dict[str, Any]]:
    for setup, group in members:
        spec = group.policy.spec
        is_vfio = spec.device_type == _VFIO
        link = _LINK_TYPES.get((spec.link_type or "").lower())
        given = {
            "drivers": [_VFIO] if is_vfio else None,
            "linkTypes": [link] if link and not is_vfio else None,
            "isRdma": spec.is_rdma or None,
            "vdpaType": spec.vdpa_type,
            "needVhostNet": spec.need_vhost_net or None,
        }
        selector = setup.target.write_selector(group.indices, setup.merged.num_vfs)
        yield selector | {key: value for key, value in given.items() if value is not None}


def _unite(selectors: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Selectors that differ in one list of PFs only are one."""
    united: dict[str, dict[str, Any]] = {}
    for selector in selectors:
        key = next((name for name in _LISTS if name in selector), "")
        rest = repr((key, sorted((name, value) for name, value in selector.items() if name != key)))
        first = united.setdefault(rest, selector)
        if first is not selector and key:
            first[key] = list(dict.fromkeys([*first[key], *selector[key]]))
    return list(united.values())


def _check_resource(resource: str, policies: Sequence[Policy], findings: Findings) -> None:
    """What policies of one resource must agree in, and what the operator makes of it when they do not."""
    if len(policies) == 1:
        return
    names = _name(policies)
    if len({policy.spec.exclude_topology for policy in policies}) > 1:
        findings.refuse(names, f"excludeTopology differs for {resource}; give all the same")
    options = {(one.spec.is_rdma, one.spec.need_vhost_net, one.spec.vdpa_type) for one in policies}
    if len(options) > 1:
        sentence = f"isRdma, needVhostNet or vdpaType differ for {resource}; each policy keeps its own"
        findings.warn(names, f"{sentence}, where sriov-network-operator takes those of the first policy for all")
    sentence = f"{resource} has the VFs of each of them"
    findings.warn(names, f"{sentence}; sriov-network-operator unites the selectors, which may take more VFs")


def _name(policies: Iterable[Policy]) -> str:
    return f"SriovNetworkNodePolicy {' and '.join(sorted(policy.name for policy in policies))}"
