"""A config as text again, with every default written out. What it writes reads as the same config."""

from collections.abc import Iterable
from typing import Any

import yaml

from sriovdp.config.values import Config, NodeSelect, PfConfig, PfSelect, Pool, Selector, VfConfig

Tree = dict[str, Any]


def write_yaml(config: Config) -> str:
    """The config as YAML."""
    text: str = yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True, width=110)
    return text


def to_tree(config: Config) -> Tree:
    """The config as it would stand in a file. What is left alone where nothing is given (like `mtu`) is not there."""
    return _drop_nothing(
        {
            "cdi": config.cdi,
            "physicalFunctions": [_write_pf(pf) for pf in config.physical_functions],
            "resourceList": [_write_pool(pool) for pool in config.pools],
        }
    )


def _drop_nothing(tree: Tree) -> Tree:
    return {key: value for key, value in tree.items() if value is not None and value not in ([], {})}


def _words(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]


def _write_nodes(nodes: NodeSelect | None) -> Tree | None:
    return _drop_nothing({"names": list(nodes.names), "labels": dict(nodes.labels)}) if nodes else None


def _write_pf(pf: PfConfig) -> Tree:
    return _drop_nothing(
        {
            "select": _write_select(pf.select),
            "nodes": _write_nodes(pf.nodes),
            "numVfs": pf.num_vfs,
            "mtu": pf.mtu,
            "externallyManaged": pf.externally_managed,
            "allowHostUplink": pf.allow_host_uplink,
            "vfs": [_write_vf(vf) for vf in pf.vfs],
        }
    )


def _write_select(select: PfSelect) -> Tree:
    return _drop_nothing(
        {
            "pfNames": list(select.pf_names),
            "pciAddresses": _words(select.pci_addresses),
            "vendors": list(select.vendors),
            "devices": list(select.devices),
            "rootDevices": _words(select.root_devices),
            "numaNodes": list(select.numa_nodes),
        }
    )


def _write_vf(vf: VfConfig) -> Tree:
    return _drop_nothing(
        {
            "range": str(vf.indices),
            "driver": vf.driver,
            "mac": vf.mac if isinstance(vf.mac, str) else {str(index): mac for index, mac in vf.mac.items()},
            "trust": vf.trust,
            "spoofchk": vf.spoofchk,
            "vlan": vf.vlan,
            "minTxRate": vf.min_tx_rate,
            "maxTxRate": vf.max_tx_rate,
            "noiommu": vf.noiommu,
        }
    )


def _write_pool(pool: Pool) -> Tree:
    tree = {
        "resourceName": pool.name,
        "resourcePrefix": pool.prefix,
        "deviceType": pool.device_type,
        "excludeTopology": pool.exclude_topology,
        "nodes": _write_nodes(pool.nodes),
        "additionalInfo": {str(key): dict(info) for key, info in pool.additional_info.items()},
        "allocation": str(pool.allocation),
        "deviceNodes": [
            {"hostPath": n.host_path, "containerPath": n.container_path, "permissions": n.permissions}
            for n in pool.device_nodes
        ],
        "mounts": [
            {"hostPath": m.host_path, "containerPath": m.container_path, "readOnly": m.read_only} for m in pool.mounts
        ],
        "env": dict(pool.env),
    }
    selectors = [_write_selector(selector) for selector in pool.selectors]
    return _drop_nothing(tree) | {"health": list(pool.health), "selectors": selectors}


def _write_selector(selector: Selector) -> Tree:
    return _drop_nothing(
        {
            "vendors": list(selector.vendors),
            "devices": list(selector.devices),
            "drivers": list(selector.drivers),
            "pciAddresses": _words(selector.pci_addresses),
            "acpiIndexes": list(selector.acpi_indexes),
            "pfNames": _words(selector.pf_names),
            "rootDevices": _words(selector.root_devices),
            "linkTypes": list(selector.link_types),
            "ddpProfiles": list(selector.ddp_profiles),
            "pKeys": list(selector.p_keys),
            "auxTypes": list(selector.aux_types),
            "isRdma": selector.is_rdma,
            "vdpaType": selector.vdpa_type,
            "needVhostNet": selector.need_vhost_net,
        }
    )
