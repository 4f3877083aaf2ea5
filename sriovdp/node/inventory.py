"""The node as it is now: its network PCI functions, their VFs and subfunctions, its accelerators. Needs no root.

From sysfs, rtnetlink, devlink and the routing table; or from a recorded tree, which `recording` wrote, and then from
nothing else.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from typing import Any

from sriovdp.kernel.netdevs import Port, choose_own, is_elsewhere, is_uplink, list_representors
from sriovdp.kernel.rdma import is_rdma, list_rdma, list_soft_rdma, read_mode, read_p_key
from sriovdp.kernel.routes import list_stack
from sriovdp.kernel.sysfs import Folder, Sysfs, read_text
from sriovdp.kernel.vdpa import list_pci_parts, list_vdpa
from sriovdp.model import (
    NO_TRAITS,
    NetDevice,
    Node,
    PciAddress,
    PhysicalFunction,
    Subfunction,
    Traits,
    VdpaDevice,
    VfSettings,
    VirtualFunction,
    is_userspace,
    is_vfio,
)
from sriovdp.node.recording import read_facts
from sriovdp.node.slow_lists import SlowLists
from sriovdp.node.sources import LIVE_ROOT, Source, open_live, open_recorded

_NETWORK_CLASS = "0x02"  # base classes (PCI Code and ID Assignment Specification, sections 1.3 and 1.19)
_ACCELERATOR_CLASS = "0x12"
_IPOIB_ADDRESS_LENGTH = 20
_LINK_TYPES = {1: "ether", 32: "infiniband"}  # ARPHRD_* of linux/if_arp.h
_VF_LINK = re.compile(r"virtfn(\d+)")
_SUBFUNCTION = re.compile(r"[\w-]+\.(sf)\.\d+")  # drivers/net/ethernet/mellanox/mlx5/core/sf/dev/dev.c


def take_snapshot(sysfs: Sysfs, lists: SlowLists | None = None) -> Node:
    """Look at all network PCI functions and accelerators of the node. One that vanishes meanwhile is left out.

    With `lists` settings of the VFs of a PF may be those of an earlier look.

    A tree that is not `/sys` is read as a recorded one: VF settings, default routes and DDP profiles are those recorded
    with it. Raises KernelError when rtnetlink does not answer.
    """
    with ExitStack() as stack:
        live = sysfs.root == LIVE_ROOT
        host = open_live(stack, sysfs, lists) if live else open_recorded(read_facts(sysfs.root))
        return _Reader(sysfs, host).read()


class _Reader:
    """Reads one snapshot."""

    def __init__(self, sysfs: Sysfs, host: Source) -> None:
        self._host = host
        self._addresses = sysfs.addresses()
        self._root = Folder(str(sysfs.root))
        self._is_recorded = sysfs.root != LIVE_ROOT
        self._devices = self._root.folder("bus/pci/devices")
        self._net = self._root.folder("class/net")
        self._vdpa: Mapping[str, tuple[VdpaDevice, ...]] = list_vdpa(self._root)

    def read(self) -> Node:
        """Read everything. The class of a VF is not asked for: it comes with its PF."""
        pfs: dict[str, list[PhysicalFunction]] = {_NETWORK_CLASS: [], _ACCELERATOR_CLASS: []}
        for address in self._addresses:
            folder = self._devices.folder(address)
            if folder.has("physfn"):
                continue
            kind = pfs.get((folder.text("class") or "")[:4])
            pf = self._read_pf(PciAddress(address), folder) if kind is not None else None
            if kind is not None and pf is not None:
                kind.append(pf)
        return Node(tuple(pfs[_NETWORK_CLASS]), tuple(pfs[_ACCELERATOR_CLASS]), read_mode(self._root))

    @cached_property
    def _has_cm(self) -> bool:
        return "rdma_cm" in self._root.folder("class/misc").names

    @cached_property
    def _soft_rdma(self) -> Mapping[str, Sequence[str]]:
        return list_soft_rdma(self._root)

    def _read_pf(self, address: PciAddress, folder: Folder) -> PhysicalFunction | None:
        common = _read_common(folder)
        if common is None:
            return None
        ports = self._host.ports(folder)
        place = choose_own(ports)
        netdev = self._host.find(place) if place else None
        traits = self._read_traits(address, folder, place, netdev, common)
        if place and traits.link_type == "infiniband":
            traits = replace(traits, guid=_read_guid(place))
        if netdev and not traits.host_use and self._host.has_address(netdev):
            traits = replace(traits, host_use=f"{netdev.name} has an address of this host", addressed=True)
        total = folder.number("sriov_totalvfs") or 0
        number = sum(name.startswith("virtfn") for name in folder.names)
        settings = self._host.settings(address, netdev, number) if netdev and total else {}
        vfs = self._read_vfs(address, folder, settings or {}, ports, traits)
        is_known = bool(vfs) or not self._is_recorded  # a record has settings of VFs that were there
        eswitch = self._host.eswitch(address) if total else None
        return PhysicalFunction(
            address=address,
            netdev=netdev,
            total_vfs=total,
            autoprobe=folder.number("sriov_drivers_autoprobe") != 0,
            vfs=vfs,
            bridges=list_pci_parts(self._devices.target(address) or "")[:-1],
            switchdev=eswitch.mode == "switchdev" if eswitch else place is not None and is_uplink(place),
            eswitch=eswitch,
            sfs=self._read_sfs(address, folder, common["numa_node"]),
            vf_device=_pad_id(folder.text("sriov_vf_device")),
            vf_offset=folder.number("sriov_offset"),
            vf_stride=folder.number("sriov_stride"),
            traits=traits,
            sets_vfs=settings is not None or not is_known,
            **common,
        )

    def _read_vfs(
        self,
        pf: PciAddress,
        folder: Folder,
        settings: Mapping[int, VfSettings],
        ports: Sequence[Port],
        traits: Traits,
    ) -> tuple[VirtualFunction, ...]:
        links = ((match, folder.link(match[0])) for match in map(_VF_LINK.fullmatch, folder.names) if match)
        places = sorted((int(match[1]), address) for match, address in links if address)
        representors = list_representors(ports)
        found = []
        ids = _find_vf_ids(folder)
        for index, address in places:
            vf_folder = self._devices.folder(address)
            common = _read_common(vf_folder, ids)
            if common is None:
                continue
            place = choose_own(self._host.ports(vf_folder))
            own = self._host.find(place) if place else None
            found.append(
                VirtualFunction(
                    address=PciAddress(address),
                    pf_address=pf,
                    index=index,
                    netdev=own,
                    is_elsewhere=place is None and not is_userspace(common["driver"]) and is_elsewhere(vf_folder),
                    settings=settings.get(index),
                    representor=representors.get(index),
                    traits=self._read_traits(address, vf_folder, place, own, common, traits),
                    **common,
                )
            )
        return tuple(found)

    def _read_sfs(self, pf: PciAddress, folder: Folder, numa_node: int | None) -> tuple[Subfunction, ...]:
        found = []
        for match in map(_SUBFUNCTION.fullmatch, sorted(folder.names)):
            part = folder.folder(match[0]) if match else None
            index = part.number("sfnum") if part else None
            if match is None or part is None or index is None:
                continue
            place = choose_own(self._host.ports(part))
            netdev = self._host.find(place) if place else None
            driver = part.link("driver")
            traits = self._read_traits(match[0], part, place, netdev, {"driver": driver})
            found.append(Subfunction(match[0], match[1], index, pf, driver, numa_node, netdev, traits))
        return tuple(sorted(found, key=lambda sf: sf.index))

    def _read_traits(
        self,
        address: str,
        folder: Folder,
        place: Folder | None,
        netdev: NetDevice | None,
        common: Mapping[str, Any],
        pf: Traits = NO_TRAITS,
    ) -> Traits:
        """Traits of a function; what its own netdev or devlink does not have is read from its PF."""
        number = self._host.link_type(place) if place and netdev else None
        link_type = pf.link_type if number is None else _LINK_TYPES.get(number, str(number))
        group = common["iommu_group"] if is_vfio(common["driver"]) else None
        rdma = list_rdma(folder, has_cm=self._has_cm) if "infiniband" in folder.names else ()
        own = {device.name for device in rdma}
        soft = self._soft_rdma.get(netdev.name, ()) if netdev else ()
        return Traits(
            acpi_index=folder.text("acpi_index"),
            link_type=link_type,
            ddp_profile=self._host.ddp.get(address, pf.ddp_profile),
            p_key=read_p_key(folder) if link_type == "infiniband" else None,
            is_rdma=is_rdma(folder),
            rdma=rdma,
            soft_rdma=tuple(name for name in soft if name not in own),
            vdpa=self._vdpa.get(address, ()),
            noiommu=group is not None and self._is_noiommu(group),
            host_use=self._find_host_use(netdev.name) if netdev else "",
        )

    def _is_noiommu(self, group: int) -> bool:
        return read_text(f"{self._root.path}/kernel/iommu_groups/{group}/name") == "vfio-noiommu"

    def _find_host_use(self, name: str) -> str:
        """What the host needs an interface for: its default route, or another interface on top of it."""
        uppers = list(list_stack(self._net, name))[1:] if self._host.has_uppers(name) else []
        through = f", through {uppers[0]}" if uppers else ""
        if name in self._host.routes or not self._host.routes.isdisjoint(uppers):
            return f"{name} carries the default route of this host{through}"
        return f"{uppers[0]} of this host is on top of {name}" if uppers else ""


def _find_vf_ids(pf: Folder) -> tuple[str, str] | None:
    """Vendor and device id of all VFs of a PF: the kernel gives them these (drivers/pci/iov.c, pci_iov_add_virtfn)."""
    vendor, device = pf.text("vendor"), _pad_id(pf.text("sriov_vf_device"))
    return (vendor, device) if vendor and device else None


def _read_common(folder: Folder, ids: tuple[str, str] | None = None) -> dict[str, Any] | None:
    """What every PCI function has; None when it is gone. `ids` are its vendor and device id where they are known."""
    group = folder.link("iommu_group")
    vendor, device = ids or (folder.text("vendor"), folder.text("device"))
    if not vendor or not device or not folder.names:
        return None
    numa_node = folder.number("numa_node")
    return {
        "vendor": vendor.removeprefix("0x").lower(),
        "device": device.removeprefix("0x").lower(),
        "driver": folder.link("driver"),
        "iommu_group": int(group) if group and group.isdecimal() else None,
        "numa_node": numa_node if numa_node is not None and numa_node >= 0 else None,
        "uio": next((part.name for part in folder.folders("uio")), None),
    }


def _pad_id(text: str | None) -> str | None:
    """The kernel writes `sriov_vf_device` without leading zeros and without 0x."""
    return text.lower().zfill(4) if text else None


def _read_guid(netdev: Folder) -> str | None:
    """GUID of the port: the end of IPoIB's address of 20 bytes (RFC 4391, section 9.1.1)."""
    parts = (netdev.text("address") or "").split(":")
    return ":".join(parts[-8:]) if len(parts) == _IPOIB_ADDRESS_LENGTH else None
