"""`sriovdp discover`: PFs, VFs and accelerators of the node, as tables for people or as JSON for programs."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from sriovdp.cli.options import sysfs_option
from sriovdp.cli.table import Row, write_table
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import NetDevice, Node, PhysicalFunction, Subfunction, Traits, VfSettings, VirtualFunction
from sriovdp.node.inventory import take_snapshot
from sriovdp.node.pci_names import name_ids


@click.command(epilog="Example: sriovdp discover --json")
@sysfs_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: a list of PFs, then accelerators, each with its VFs."
)
def command(root: Path, *, as_json: bool) -> None:
    """Show the PFs, VFs, subfunctions and accelerators of this node. Needs no root."""
    node = take_snapshot(Sysfs(root))
    if as_json:
        mode = {"rdma_mode": node.rdma_mode}
        click.echo(json.dumps([_describe_pf(pf) | mode for pf in (*node.pfs, *node.accelerators)], indent=2))
    elif node.pfs or node.accelerators:
        click.echo("\n".join(_draw(node)))
    else:
        click.echo("this node has no PCI network function or accelerator")


def _describe_pf(pf: PhysicalFunction) -> dict[str, Any]:
    vendor_name, device_name = name_ids(pf.vendor, pf.device)
    return {
        "address": pf.address,
        "vendor": pf.vendor,
        "device": pf.device,
        "vendor_name": vendor_name,
        "device_name": device_name,
        "driver": pf.driver,
        "numa_node": pf.numa_node,
        "netdev": asdict(pf.netdev) if pf.netdev else None,
        "link": _name_link(pf.netdev),
        "link_type": pf.traits.link_type,
        "port_guid": pf.traits.guid,
        **_describe_traits(pf.traits),
        "switchdev": pf.switchdev,
        "host_use": pf.traits.host_use or None,
        "total_vfs": pf.total_vfs,
        "num_vfs": len(pf.vfs),
        "vfs": [_describe_vf(vf) for vf in pf.vfs],
        "sfs": [_describe_sf(sf) for sf in pf.sfs],
    }


def _describe_vf(vf: VirtualFunction) -> dict[str, Any]:
    """Every VF has the same keys; settings are null where they are not known."""
    vendor_name, device_name = name_ids(vf.vendor, vf.device)
    settings: dict[str, Any] = asdict(vf.settings) if vf.settings else dict.fromkeys(VfSettings.__dataclass_fields__)
    return {
        "index": vf.index,
        "address": vf.address,
        "vendor": vf.vendor,
        "device": vf.device,
        "vendor_name": vendor_name,
        "device_name": device_name,
        "driver": vf.driver,
        "iommu_group": vf.iommu_group,
        "numa_node": vf.numa_node,
        "netdev": asdict(vf.netdev) if vf.netdev else None,
        "uio": vf.uio,
        "representor": vf.representor,
        **_describe_traits(vf.traits),
        "admin_mac": settings.pop("mac"),
        **settings,
    }


def _describe_sf(sf: Subfunction) -> dict[str, Any]:
    return {
        "name": sf.name,
        "index": sf.index,
        "driver": sf.driver,
        "netdev": asdict(sf.netdev) if sf.netdev else None,
        **_describe_traits(sf.traits),
    }


def _describe_traits(traits: Traits) -> dict[str, Any]:
    return {
        "rdma": [device.name for device in traits.rdma],
        "soft_rdma": list(traits.soft_rdma),
        "vdpa": [asdict(device) for device in traits.vdpa],
    }


def _draw(node: Node) -> Iterator[str]:
    pfs = (*node.pfs, *node.accelerators)
    yield from write_table([_list_pf(pf) for pf in pfs])
    for pf in pfs:
        for kind, rows in (("VFs", [_list_vf(vf) for vf in pf.vfs]), ("Subfunctions", [_list_sf(sf) for sf in pf.sfs])):
            if rows:
                yield f"\n{kind} of {click.style(pf.name, bold=True)} ({pf.address})"
                yield from write_table(rows)
    if node.rdma_mode:
        yield f"\nRDMA mode: {node.rdma_mode}"


def _list_pf(pf: PhysicalFunction) -> Row:
    names = " ".join(name for name in name_ids(pf.vendor, pf.device) if name)
    return {
        "PF": pf.address,
        "netdev": _name(pf.netdev),
        "link": _name_link(pf.netdev),
        "type": pf.traits.link_type if pf.traits.link_type != "ether" else None,
        "e-switch": "switchdev" if pf.switchdev else None,
        "VFs": f"{len(pf.vfs)}/{pf.total_vfs}" if pf.total_vfs else None,
        "SFs": len(pf.sfs) or None,
        "NUMA": pf.numa_node,
        "driver": pf.driver,
        **_list_traits(pf.traits),
        "port GUID": pf.traits.guid,
        "vendor:device": f"{pf.vendor}:{pf.device} {names}",
    }


def _list_vf(vf: VirtualFunction) -> Row:
    settings = vf.settings
    return {
        "VF": vf.index,
        "address": vf.address,
        "driver": vf.driver,
        "IOMMU": vf.iommu_group,
        "NUMA": vf.numa_node,
        "netdev": _name(vf.netdev) or vf.uio,
        "representor": vf.representor,
        **_list_traits(vf.traits),
        "admin MAC": settings and settings.mac,
        "VLAN": settings and (settings.vlan or None),
        "spoofchk": settings and _name_switch(settings.spoofchk),
        "trust": settings and _name_switch(settings.trust),
        "node GUID": settings and settings.node_guid,
        "port GUID": settings and settings.port_guid,
    }


def _list_sf(sf: Subfunction) -> Row:
    return {
        "SF": sf.index,
        "name": sf.name,
        "driver": sf.driver,
        "NUMA": sf.numa_node,
        "netdev": _name(sf.netdev),
        **_list_traits(sf.traits),
    }


def _list_traits(traits: Traits) -> Row:
    vdpa = " ".join(device.name + (f" ({device.kind})" if device.kind else "") for device in traits.vdpa)
    rdma = [*(device.name for device in traits.rdma), *(f"{name} (soft)" for name in traits.soft_rdma)]
    return {"RDMA": " ".join(rdma) or None, "vDPA": vdpa or None}


def _name(netdev: NetDevice | None) -> str | None:
    return netdev.name if netdev else None


def _name_switch(switch: bool | None) -> str | None:
    return None if switch is None else "on" if switch else "off"


def _name_link(netdev: NetDevice | None) -> str | None:
    if netdev is None:
        return None
    return "down" if not netdev.up else "up" if netdev.carrier else "no carrier"
