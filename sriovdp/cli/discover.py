"""`sriovdp discover`: PFs, VFs and accelerators of the node, as tables for people or as JSON for programs."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sriovdp.cli.options import sysfs_option
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import NetDevice, Node, PhysicalFunction, Subfunction, VfSettings, VirtualFunction
from sriovdp.node.inventory import take_snapshot
from sriovdp.node.pci_names import name_ids

_PIPE_WIDTH = 118  # columns where stdout is no terminal


@click.command(epilog="Example: sriovdp discover --json")
@sysfs_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: a list of PFs, then accelerators, each with its VFs."
)
def command(root: Path, *, as_json: bool) -> None:
    """Show the PFs and VFs of this node, and its accelerators. Needs no root."""
    node = take_snapshot(Sysfs(root))
    if as_json:
        click.echo(json.dumps([_describe_pf(pf) for pf in (*node.pfs, *node.accelerators)], indent=2))
    elif node.pfs or node.accelerators:
        _draw(node)
    else:
        click.echo("no PCI network function or accelerator on this node")


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
        "switchdev": pf.switchdev,
        "host_use": pf.traits.host_use or None,
        "total_vfs": pf.total_vfs,
        "num_vfs": len(pf.vfs),
        "vfs": [_describe_vf(vf) for vf in pf.vfs],
        "sfs": [_describe_sf(sf) for sf in pf.sfs],
    }


def _describe_vf(vf: VirtualFunction) -> dict[str, Any]:
    """Keys are there for every VF; settings are null where they are not known."""
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
        "rdma": [device.name for device in vf.traits.rdma],
        "admin_mac": settings.pop("mac"),
        **settings,
    }


def _describe_sf(sf: Subfunction) -> dict[str, Any]:
    return {
        "name": sf.name,
        "index": sf.index,
        "driver": sf.driver,
        "netdev": asdict(sf.netdev) if sf.netdev else None,
        "rdma": [device.name for device in sf.traits.rdma],
    }


def _draw(node: Node) -> None:
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    pfs = (*node.pfs, *node.accelerators)
    console.print(_table_of_pfs(pfs))
    for pf in pfs:
        if pf.vfs:
            console.print(f"\nVFs of [bold]{escape(pf.name)}[/] ({pf.address})")
            console.print(_table_of_vfs(pf))


def _table_of_pfs(pfs: Sequence[PhysicalFunction]) -> Table:
    table = _make_table("PF", "netdev", "link", "VFs", "NUMA", "driver", "vendor:device")
    for pf in pfs:
        names = " ".join(name for name in name_ids(pf.vendor, pf.device) if name)
        vfs = f"{len(pf.vfs)}/{pf.total_vfs}" if pf.total_vfs else None
        name = pf.netdev.name if pf.netdev else None
        ids = f"{pf.vendor}:{pf.device} {names}"
        table.add_row(*map(_cell, (pf.address, name, _name_link(pf.netdev), vfs, pf.numa_node, pf.driver, ids)))
    return table


def _table_of_vfs(pf: PhysicalFunction) -> Table:
    headings = ("VF", "address", "driver", "IOMMU", "NUMA", "netdev", "admin MAC", "VLAN", "spoofchk", "trust")
    table = _make_table(*headings)
    for vf in pf.vfs:
        name = vf.netdev.name if vf.netdev else vf.uio
        known = _list_settings(vf.settings)
        table.add_row(*map(_cell, (vf.index, vf.address, vf.driver, vf.iommu_group, vf.numa_node, name, *known)))
    return table


def _list_settings(settings: VfSettings | None) -> tuple[object, ...]:
    if settings is None:
        return (None,) * 4
    return (settings.mac, settings.vlan or None, _name_switch(settings.spoofchk), _name_switch(settings.trust))


def _name_switch(switch: bool | None) -> str | None:
    return None if switch is None else "on" if switch else "off"


def _name_link(netdev: NetDevice | None) -> str | None:
    if netdev is None:
        return None
    return "down" if not netdev.up else "up" if netdev.carrier else "no carrier"


def _make_table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading != "vendor:device")
    return table


def _cell(value: object) -> str:
    return "-" if value is None else escape(str(value))
