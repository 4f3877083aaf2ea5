"""Pools: which VF belongs to which resource, and what a container gets with it.

Meaning of the selectors and form of the environment are those of sriov-network-device-plugin, less its defects: every
entry of `pfNames` counts, PF names are matched exactly, a device that can not be handed out is an error, and
uio_pci_generic is known. A device goes by its PCI address, whatever its netdev is called. No I/O.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from sriovdp.config.values import PfName, Pool, Selector
from sriovdp.errors import DeviceError
from sriovdp.model import Allocation, DeviceNode, Node, PhysicalFunction, PoolDevice, VirtualFunction

_UIO_DRIVERS = frozenset({"igb_uio", "uio_pci_generic"})


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a selector does not take a device: the field, what it wants, and what the device has (None: nothing)."""

    field: str
    wanted: tuple[str, ...]
    actual: str | None

    def __str__(self) -> str:
        return f"{self.field} wants {' or '.join(self.wanted)}, the device has {self.actual or 'none'}"


def assign(pools: Sequence[Pool], node: Node) -> tuple[tuple[Pool, tuple[PoolDevice, ...]], ...]:
    """Give each VF of the node to the first pool, in file order, that takes it.

    Each pool comes with its devices, in file order, also when it has none; devices are in order of PF and VF index.
    Offered are VFs that have a driver; PFs never are.
    """
    offered: list[list[PoolDevice]] = [[] for _ in pools]
    for pf, vf in node.vfs():
        owner = next((n for n, pool in enumerate(pools) if vf.driver and takes(pool, pf, vf)), None)
        if owner is not None:
            numa_node = None if pools[owner].exclude_topology else vf.numa_node
            offered[owner].append(PoolDevice(vf.address, numa_node))
    return tuple(zip(pools, map(tuple, offered), strict=True))


def takes(pool: Pool, pf: PhysicalFunction, vf: VirtualFunction) -> bool:
    """Say whether a selector of this pool matches the VF, whatever other pools say."""
    return any(reject(selector, pf, vf) is None for selector in pool.selectors)


def reject(selector: Selector, pf: PhysicalFunction, vf: VirtualFunction) -> Rejection | None:
    """The first field of a selector that does not hold for a VF, in upstream's order of fields; None when all hold."""
    for field, wanted, actual in (
        ("vendors", selector.vendors, vf.vendor),
        ("devices", selector.devices, vf.device),
        ("drivers", selector.drivers, vf.driver),
        ("pciAddresses", selector.pci_addresses, vf.address),
    ):
        if wanted and actual not in wanted:
            return Rejection(field, wanted, actual)
    if selector.pf_names and not any(_names(entry, pf, vf) for entry in selector.pf_names):
        actual = f"{pf.netdev.name}#{vf.index}" if pf.netdev else None
        return Rejection("pfNames", tuple(map(str, selector.pf_names)), actual)
    return None


def _names(entry: PfName, pf: PhysicalFunction, vf: VirtualFunction) -> bool:
    named = pf.netdev is not None and pf.netdev.name == entry.name
    return named and (entry.indices is None or vf.index in entry.indices)


def allocate(pool: Pool, ids: Sequence[str], node: Node) -> Allocation:
    """What a container gets for these devices of a pool: environment and device nodes.

    Raises DeviceError when one of them can not be handed out: it is not on this node, it lost its driver, it is not of
    this pool (any more), or what the container needs of it is not there.
    """
    nodes: dict[str, DeviceNode] = {}
    info: dict[str, dict[str, dict[str, str]]] = {}
    for device_id in ids:
        files = _list_files(_find_offered(pool, device_id, node))
        nodes |= {path: DeviceNode(path, path) for paths in files.values() for path in paths.values()}
        info[device_id] = {"generic": {"deviceID": device_id}, **files}
    envs = _write_envs(pool, ",".join(ids), json.dumps(info, sort_keys=True, separators=(",", ":")))
    return Allocation(MappingProxyType(envs), tuple(nodes.values()))


def _find_offered(pool: Pool, device_id: str, node: Node) -> VirtualFunction:
    pf, vf = node.find_vf(device_id)
    if not vf.driver:
        raise DeviceError(f"{device_id} of {pool.resource} has lost its driver", hint="`sriovdp apply` binds it again")
    rejections = [reject(selector, pf, vf) for selector in pool.selectors]
    if None not in rejections:
        reasons = "; ".join(str(rejection) for rejection in rejections)
        raise DeviceError(f"{device_id} is no device of {pool.resource}: {reasons}")
    return vf


def _list_files(vf: VirtualFunction) -> dict[str, dict[str, str]]:
    """Device files a program needs to drive a VF, as upstream's info providers name them."""
    if vf.driver == "vfio-pci":
        if vf.iommu_group is None:
            raise DeviceError(
                f"{vf.address} is on vfio-pci but in no IOMMU group",
                hint="enable the IOMMU in the firmware and on the kernel's command line (intel_iommu=on)",
            )
        return {"vfio": {"mount": "/dev/vfio/vfio", "dev-mount": f"/dev/vfio/{vf.iommu_group}"}}
    if vf.driver in _UIO_DRIVERS:
        if vf.uio is None:
            raise DeviceError(
                f"{vf.address} is on {vf.driver} but has no UIO device", hint="see the kernel's log for why"
            )
        return {"uio": {"mount": f"/dev/{vf.uio}"}}
    return {}


def _write_envs(pool: Pool, ids: str, info: str) -> dict[str, str]:
    """Upstream's variables; it leaves hyphens in, which no shell can read, so such names come in a second spelling."""
    name = f"PCIDEVICE_{pool.prefix}_{pool.name}".upper().replace(".", "_")
    return {
        spelling + suffix: value
        for spelling in (name, name.replace("-", "_"))
        for suffix, value in (("", ids), ("_INFO", info))
    }
