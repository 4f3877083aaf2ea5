"""What a container gets with devices of a pool: environment, device nodes and mounts. Pure.

Form of the environment is that of sriov-network-device-plugin, pkg/infoprovider, less its defects: what a device needs
and this host does not have is an error, and the first answer for a device is as complete as every later one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from sriovdp.config.values import Pool, Selector
from sriovdp.errors import DeviceError, naming
from sriovdp.limits import PATTERN_SIGNS
from sriovdp.model import DeviceNode, Mount, PhysicalFunction, RdmaDevice, Subfunction, VirtualFunction, is_vfio
from sriovdp.pools.assignment import Offer

Info = Mapping[str, Mapping[str, str]]
"""What a program learns of a device: by provider (`vfio`, `rdma`, ...), then by key."""

_UIO_DRIVERS = frozenset({"uio", "igb_uio", "uio_pci_generic"})
_VHOST_NODES = {"net-mount": "/dev/vhost-net", "tun-mount": "/dev/net/tun"}

_HINTS = {
    "/dev/vhost-net": "load it: `modprobe vhost_net`",
    "/dev/net/tun": "load it: `modprobe tun`",
    "/dev/vfio": "load it: `modprobe vfio-pci`, and let the agent see the host's /dev",
    "/dev/infiniband": "load it: `modprobe -a ib_uverbs ib_umad rdma_ucm`, and let the agent see the host's /dev",
}

_NO_NAMES: Mapping[str, str] = MappingProxyType({})


class Host(Protocol):
    """What this host has; see `sriovdp.pools.host`."""

    def find_nodes(self, pattern: str) -> Sequence[str]:
        """Paths of the device nodes there are of that name or pattern, as a program on the host would write them."""

    def list_uio_files(self, address: str) -> Sequence[str]:
        """Files of a function in sysfs that a program has to write for driving it through UIO."""


@dataclass(frozen=True, slots=True)
class Access:
    """What one device takes to be used: what a program learns, and what it has to open."""

    info: Info
    nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a container gets for the devices it was given. `cdi_devices` are qualified names, `vendor/class=name`."""

    envs: Mapping[str, str] = field(default_factory=lambda: _NO_NAMES)
    nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mount, ...] = ()
    cdi_devices: tuple[str, ...] = ()


def allocate(pool: Pool, accesses: Mapping[str, Access]) -> Allocation:
    """What a container gets for devices of a pool, given what each takes, by their IDs in the order of the request."""
    info = {id_: access.info for id_, access in accesses.items()}
    nodes = {node.host_path: node for access in accesses.values() for node in access.nodes}
    mounts = {mount.container_path: mount for access in accesses.values() for mount in access.mounts}
    text = json.dumps(info, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    envs = {**pool.env, **_write_envs(pool, ",".join(accesses), text)}
    return Allocation(MappingProxyType(envs), tuple(nodes.values()), tuple(mounts.values()))


def find_access(pool: Pool, offer: Offer, host: Host) -> Access:
    """What a device takes to be used, with what the pool adds.

    Raises DeviceError when something of it is not there.
    """
    with naming(offer):
        return _find_access(pool, offer, host)


def _find_access(pool: Pool, offer: Offer, host: Host) -> Access:
    parts = (
        _drive(offer.candidate.function, host),
        _reach_rdma(offer),
        _reach_vdpa(offer),
        _reach_vhost(offer.selector),
    )
    info: dict[str, Mapping[str, str]] = {"generic": {"deviceID": offer.id}}
    for part in parts:
        info |= part.info
    extra = _find_extra(pool, offer)
    if extra:
        info["extra"] = extra
    own = dict.fromkeys(node for part in parts for node in part.nodes)
    for node in own:
        _check_presence(node.host_path, host)
    added = [found for extra in pool.device_nodes for found in _expand(extra.node, host)]
    mounts = tuple(mount for part in parts for mount in part.mounts)
    return Access(info, (*own, *added), (*mounts, *(extra.mount for extra in pool.mounts)))


def _drive(function: PhysicalFunction | VirtualFunction | Subfunction, host: Host) -> Access:
    """What a program needs for driving a function from user space."""
    if isinstance(function, Subfunction):
        return Access({})
    if is_vfio(function.driver):
        return _drive_by_vfio(function)
    if function.driver in _UIO_DRIVERS:
        if function.uio is None:
            raise DeviceError(f"it is on {function.driver} but has no UIO device", hint="see the kernel log (dmesg)")
        path = f"/dev/{function.uio}"
        mounts = (Mount(file, file, read_only=False) for file in host.list_uio_files(function.address))
        return Access({"uio": {"mount": path}}, (DeviceNode(path, path),), tuple(mounts))
    return Access({})


def _drive_by_vfio(function: PhysicalFunction | VirtualFunction) -> Access:
    """The container of all groups, and the function's group; one without an IOMMU goes by another name on the host."""
    if function.iommu_group is None:
        raise DeviceError(
            f"it is on {function.driver} but in no IOMMU group",
            hint="enable the IOMMU in the firmware and on the kernel's command line (intel_iommu=on)",
        )
    container, group = "/dev/vfio/vfio", f"/dev/vfio/{function.iommu_group}"
    source = f"/dev/vfio/noiommu-{function.iommu_group}" if function.traits.noiommu else group
    return Access(
        {"vfio": {"mount": container, "dev-mount": group}},
        (DeviceNode(container, container), DeviceNode(source, group)),
    )


def _reach_rdma(offer: Offer) -> Access:
    """Character devices of the function's RDMA devices, in a pool that asks for them by `isRdma`."""
    if not offer.selector.is_rdma:
        return Access({})
    devices = offer.candidate.traits.rdma
    if not devices:
        raise DeviceError(
            "it has no RDMA device that can be seen here",
            hint="if `rdma system show` prints exclusive, it is in another network namespace: delete the pod or the "
            "namespace that has it; otherwise load the module of its driver",
        )
    info: dict[str, str] = {"rdma_dev": ",".join(device.name for device in devices)}
    for device in devices:
        named = {"uverbs": device.uverbs, "umad": device.umad, "issm": device.issm, "rdma_cm": device.cm}
        info |= {key: path for key, path in named.items() if path}
    paths = dict.fromkeys(path for device in devices for path in _list_rdma_nodes(device))
    return Access({"rdma": info}, tuple(DeviceNode(path, path) for path in paths))


def _list_rdma_nodes(device: RdmaDevice) -> list[str]:
    return [path for path in (device.ucm, device.issm, device.umad, device.uverbs, device.cm) if path]


def _reach_vdpa(offer: Offer) -> Access:
    """The vhost device of a function's vDPA device; a virtio one is a netdev and needs none."""
    wanted = offer.selector.vdpa_type
    if wanted is None:
        return Access({})
    device = next((device for device in offer.candidate.traits.vdpa if device.kind == wanted), None)
    if device is None or (wanted == "vhost" and device.node is None):
        raise DeviceError(f"it has no vDPA device of type {wanted}", hint=f"bind it to {wanted}_vdpa (`vdpa dev show`)")
    if device.node is None:
        return Access({})
    return Access({"vdpa": {"mount": device.node}}, (DeviceNode(device.node, device.node),))


def _reach_vhost(selector: Selector) -> Access:
    if not selector.need_vhost_net:
        return Access({})
    return Access({"vhost": _VHOST_NODES}, tuple(DeviceNode(path, path) for path in _VHOST_NODES.values()))


def _find_extra(pool: Pool, offer: Offer) -> Mapping[str, str]:
    """`additionalInfo` for a device: what holds for all, then for its PCI address; a subfunction goes by its PF's."""
    address = offer.candidate.address or offer.candidate.pf.address
    return {**pool.additional_info.get("*", {}), **pool.additional_info.get(address, {})}


def _expand(node: DeviceNode, host: Host) -> list[DeviceNode]:
    """A node that the pool adds, or those that its pattern means."""
    if PATTERN_SIGNS.isdisjoint(node.host_path):
        _check_presence(node.host_path, host)
        return [node]
    found = host.find_nodes(node.host_path)
    if not found:
        raise DeviceError(f"it cannot be used: no file of this host matches {node.host_path}")
    return [DeviceNode(path, path, node.permissions) for path in found]


def _check_presence(path: str, host: Host) -> None:
    if not host.find_nodes(path):
        hint = next((hint for start, hint in _HINTS.items() if path.startswith(start)), "")
        raise DeviceError(f"it cannot be used: {path} is not there on this host", hint=hint)


def _write_envs(pool: Pool, ids: str, info: str) -> dict[str, str]:
    """Upstream's variables; it leaves hyphens in, which no shell can read, so such names come in a second spelling."""
    name = f"PCIDEVICE_{pool.prefix}_{pool.name}".upper().replace(".", "_")
    return {
        spelling + suffix: value
        for spelling in (name, name.replace("-", "_"))
        for suffix, value in (("", ids), ("_INFO", info))
    }
