"""The node as it is now: its network PCI functions and their VFs, from sysfs and rtnetlink. Needs no root."""

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs, list_names, read_int, read_link, read_text
from sriovdp.model import NetDevice, Node, PciAddress, PhysicalFunction, VfSettings, VirtualFunction

_LIVE_ROOT = Path("/sys")
_NETWORK_CLASS = "0x02"  # base class of network controllers (PCI Code and ID Assignment Specification, section 1.3)
_IFF_UP = 0x1
_VF_LINK = re.compile(r"virtfn(\d+)")
_REPRESENTOR = re.compile(r"(c\d+)?pf\d+(vf|sf)\d+")  # net/core/devlink.c, __devlink_port_phys_port_name_get


@dataclass(frozen=True, slots=True)
class _Interfaces:
    """Where netdevs and VF settings come from: `find` gets the folder below `net/`, `settings` a PF's ifindex."""

    find: Callable[[Path], NetDevice | None]
    settings: Callable[[int], Mapping[int, VfSettings]]


def take_snapshot(sysfs: Sysfs) -> Node:
    """Look at all network PCI functions of the node. A function that vanishes meanwhile is left out.

    VF settings come from rtnetlink. A tree that is not `/sys` (a recorded one) is read without it: netdevs come from
    the tree, VF settings are unknown. Raises KernelError when rtnetlink does not answer.
    """
    with ExitStack() as stack:
        interfaces = _open_live(stack) if sysfs.root == _LIVE_ROOT else _Interfaces(_read_recorded, lambda _: {})
        functions = (_read_pf(sysfs, address, interfaces) for address in sysfs.addresses())
        return Node(tuple(pf for pf in functions if pf is not None))


def find_netdev_name(sysfs: Sysfs, address: str) -> str | None:
    """Name of a function's netdev now, if it has one in this network namespace."""
    folder = _find_netdev_folder(_folder(sysfs, address))
    return folder.name if folder else None


def _open_live(stack: ExitStack) -> _Interfaces:
    netlink = stack.enter_context(Netlink())
    devices = {device.name: device for device in netlink.devices()}
    return _Interfaces(lambda folder: devices.get(folder.name), netlink.vf_settings)


def _read_pf(sysfs: Sysfs, address: str, interfaces: _Interfaces) -> PhysicalFunction | None:
    """A network function that is no VF; None for everything else."""
    path = _folder(sysfs, address)
    if not (read_text(path / "class") or "").startswith(_NETWORK_CLASS) or (path / "physfn").is_symlink():
        return None
    ids = _read_ids(path)
    if ids is None:
        return None
    netdev = _read_netdev(path, interfaces)
    places = _list_vfs(path)
    settings = interfaces.settings(netdev.ifindex) if netdev and places else {}
    vfs = (_read_vf(sysfs, address, index, vf, interfaces, settings.get(index)) for index, vf in places)
    return PhysicalFunction(
        address=PciAddress(address),
        vendor=ids[0],
        device=ids[1],
        driver=read_link(path / "driver"),
        numa_node=_read_numa_node(path),
        netdev=netdev,
        total_vfs=read_int(path / "sriov_totalvfs") or 0,
        autoprobe=read_int(path / "sriov_drivers_autoprobe") != 0,
        vfs=tuple(vf for vf in vfs if vf is not None),
    )


def _list_vfs(path: Path) -> list[tuple[int, str]]:
    """Index and address of each VF, by the PF's `virtfnN` links."""
    links = ((match, read_link(path / match[0])) for match in map(_VF_LINK.fullmatch, list_names(path)) if match)
    return sorted((int(match[1]), address) for match, address in links if address)


def _read_vf(
    sysfs: Sysfs, pf: str, index: int, address: str, interfaces: _Interfaces, settings: VfSettings | None
) -> VirtualFunction | None:
    path = _folder(sysfs, address)
    ids = _read_ids(path)
    if ids is None:
        return None
    group = read_link(path / "iommu_group")
    return VirtualFunction(
        address=PciAddress(address),
        pf_address=PciAddress(pf),
        index=index,
        vendor=ids[0],
        device=ids[1],
        driver=read_link(path / "driver"),
        iommu_group=int(group) if group and group.isdecimal() else None,
        numa_node=_read_numa_node(path),
        netdev=_read_netdev(path, interfaces),
        settings=settings,
        uio=next(iter(list_names(path / "uio")), None),
    )


def _folder(sysfs: Sysfs, address: str) -> Path:
    """Folder of a function, whether it is still there or not."""
    return sysfs.root / "bus/pci/devices" / address


def _read_ids(path: Path) -> tuple[str, str] | None:
    """Vendor and device as 4 hex digits; None when the function is gone."""
    vendor, device = (read_text(path / name) for name in ("vendor", "device"))
    return (vendor.removeprefix("0x").lower(), device.removeprefix("0x").lower()) if vendor and device else None


def _read_numa_node(path: Path) -> int | None:
    node = read_int(path / "numa_node")
    return node if node is not None and node >= 0 else None


def _read_netdev(path: Path, interfaces: _Interfaces) -> NetDevice | None:
    folder = _find_netdev_folder(path)
    return interfaces.find(folder) if folder else None


def _find_netdev_folder(path: Path) -> Path | None:
    """The function's own netdev; in switchdev mode the representors of its VFs are in the same folder."""
    for folder in (path / "net", *sorted(path.glob("virtio*/net"))):
        for name in list_names(folder):
            if not _REPRESENTOR.fullmatch(read_text(folder / name / "phys_port_name") or ""):
                return folder / name
    return None


def _read_recorded(folder: Path) -> NetDevice | None:
    """A netdev as its sysfs attributes tell; `carrier` can not be read while the interface is down."""
    ifindex = read_int(folder / "ifindex")
    if ifindex is None:
        return None
    running = read_text(folder / "operstate") == "up"
    flags = read_int(folder / "flags")
    up = running if flags is None else bool(flags & _IFF_UP)
    carrier = read_int(folder / "carrier")
    return NetDevice(
        name=folder.name,
        ifindex=ifindex,
        mac=read_text(folder / "address") or "",
        mtu=read_int(folder / "mtu") or 0,
        up=up,
        carrier=(running if carrier is None else bool(carrier)) if up else None,
    )
