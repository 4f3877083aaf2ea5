"""Pools: which device belongs to which resource, and what a container gets with it.

The form of the environment is that of sriov-network-device-plugin, less its defects: a device that can not be handed
out is an error, and uio_pci_generic is known. A device goes by its PCI address, whatever its netdev is called. No I/O.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from sriovdp.candidates import Candidate, list_candidates
from sriovdp.config.values import PfConfig, Pool, Selector
from sriovdp.errors import DeviceError
from sriovdp.model import Allocation, DeviceNode, Node, PoolDevice, Subfunction
from sriovdp.selectors import find_owner, judge

_UIO_DRIVERS = frozenset({"igb_uio", "uio_pci_generic", "uio"})
_VHOST_NET = "/dev/vhost-net"
_TUN = "/dev/net/tun"

Info = dict[str, dict[str, str]]
"""What a container is told of one device: provider, as upstream calls its parts, to keys and values."""


def assign(
    pools: Sequence[Pool], node: Node, physical_functions: Sequence[PfConfig] = ()
) -> tuple[tuple[Pool, tuple[PoolDevice, ...]], ...]:
    """Give each device of the node to the first pool, in file order, that takes it.

    Each pool comes with its devices, in file order, also when it has none; devices are in order of PF and VF index.
    Not offered are devices without a driver, PFs that are split or that `physical_functions` wants split, and what this
    host itself needs unless `physical_functions` allows it.
    """
    offered: list[list[PoolDevice]] = [[] for _ in pools]
    for candidate in list_candidates(node, physical_functions):
        owner = None if candidate.obstacle else find_owner(pools, candidate)
        if owner is not None:
            pool = pools[owner[0]]
            numa_node = None if pool.exclude_topology else candidate.function.numa_node
            offered[owner[0]].append(PoolDevice(candidate.id, numa_node))
    return tuple(zip(pools, map(tuple, offered), strict=True))


def allocate(
    pool: Pool, ids: Sequence[str], node: Node, expand: Callable[[str], Sequence[str]] = lambda path: [path]
) -> Allocation:
    """What a container gets for these devices of a pool: environment, device nodes and mounts.

    `expand` gives the paths there are for a path or a pattern like `/dev/cxi*`; none means that it is not there. Raises
    DeviceError when a device can not be handed out: it is not on this node, it lost its driver, it is not of this pool
    (any more), or what the container needs of it is not there.
    """
    nodes: dict[str, DeviceNode] = {}
    info: dict[str, Info] = {}
    for device_id in ids:
        candidate, selector = _find_offered(pool, device_id, node)
        extra = _list_extra(pool, candidate)
        info[device_id] = {"generic": {"deviceID": device_id}, **_describe(candidate, selector)} | extra
        nodes |= {node.host_path: node for node in _list_nodes(candidate, selector, expand)}
    nodes |= {node.host_path: node for node in _expand_nodes(pool.device_nodes, expand)}
    envs = _write_envs(pool, ",".join(ids), json.dumps(info, sort_keys=True, separators=(",", ":")))
    return Allocation(MappingProxyType(dict(pool.env) | envs), tuple(nodes.values()), pool.mounts)


def _find_offered(pool: Pool, device_id: str, node: Node) -> tuple[Candidate, Selector]:
    candidates = (c for c in list_candidates(node) if c.id == device_id)
    candidate = next(candidates, None)
    if candidate is None:
        raise DeviceError(f"{device_id} is no device of this node", hint="`sriovdp discover` lists what there is")
    if not candidate.function.driver:
        raise DeviceError(f"{device_id} of {pool.resource} has lost its driver", hint="`sriovdp apply` binds it again")
    if isinstance(candidate.function, type(candidate.pf)) and candidate.pf.vfs and pool.device_type == "netDevice":
        raise DeviceError(f"{device_id} of {pool.resource} can not be given to a pod: {candidate.obstacle}")
    found = judge(pool, candidate)
    if isinstance(found, int):
        return candidate, pool.selectors[found]
    raise DeviceError(f"{device_id} is no device of {pool.resource}: {'; '.join(map(str, found))}")


def _describe(candidate: Candidate, selector: Selector) -> Info:
    """What a container is told of a device beside its id, with upstream's providers and keys."""
    described: Info = {}
    function = candidate.function
    if not isinstance(function, Subfunction):
        if function.driver == "vfio-pci":
            described["vfio"] = {"mount": "/dev/vfio/vfio", "dev-mount": f"/dev/vfio/{_find_group(candidate)}"}
        elif function.driver in _UIO_DRIVERS:
            described["uio"] = {"mount": f"/dev/{_find_uio(candidate)}"}
    if selector.is_rdma and candidate.traits.rdma:
        device = candidate.traits.rdma[0]
        files = {"uverbs": device.uverbs, "umad": device.umad, "issm": device.issm, "rdma_cm": device.cm}
        described["rdma"] = {"rdma_dev": device.name} | {key: path for key, path in files.items() if path}
    vdpa = [device.node for device in candidate.traits.vdpa if device.kind == selector.vdpa_type and device.node]
    if selector.vdpa_type and vdpa:
        described["vdpa"] = {"mount": vdpa[0]}
    if selector.need_vhost_net:
        described["vhost"] = {"net-mount": _VHOST_NET, "tun-mount": _TUN}
    return described


def _list_nodes(
    candidate: Candidate, selector: Selector, expand: Callable[[str], Sequence[str]]
) -> Iterator[DeviceNode]:
    """Device nodes for one device. Raises DeviceError when one is not there that the device can not do without."""
    described = _describe(candidate, selector)
    if "vfio" in described:
        group = described["vfio"]["dev-mount"]
        host = group.replace("/dev/vfio/", "/dev/vfio/noiommu-") if candidate.traits.noiommu else group
        yield from (DeviceNode("/dev/vfio/vfio", "/dev/vfio/vfio"), DeviceNode(host, group))
    for provider in ("uio", "vdpa"):
        if provider in described:
            yield DeviceNode(described[provider]["mount"], described[provider]["mount"])
    if selector.is_rdma:
        for device in candidate.traits.rdma:
            files = (device.ucm, device.issm, device.umad, device.uverbs, device.cm)
            yield from (DeviceNode(path, path) for path in files if path)
    if selector.need_vhost_net:
        for path in (_VHOST_NET, _TUN):
            if not expand(path):
                raise DeviceError(f"{path} is not there, but the pool needs it", hint="`modprobe vhost_net tun`")
            yield DeviceNode(path, path)


def _find_group(candidate: Candidate) -> int:
    group = None if isinstance(candidate.function, Subfunction) else candidate.function.iommu_group
    if group is None:
        raise DeviceError(
            f"{candidate.id} is on vfio-pci but in no IOMMU group",
            hint="enable the IOMMU in the firmware and on the kernel's command line (intel_iommu=on)",
        )
    return group


def _find_uio(candidate: Candidate) -> str:
    uio = None if isinstance(candidate.function, Subfunction) else candidate.function.uio
    if uio is None:
        raise DeviceError(
            f"{candidate.id} is on {candidate.function.driver} but has no UIO device",
            hint="see the kernel's log for why",
        )
    return uio


def _list_extra(pool: Pool, candidate: Candidate) -> Info:
    """What `additionalInfo` says of every device, and over it of this one; a subfunction goes by its PF's address."""
    key = candidate.address or candidate.pf.address
    said: Mapping[str, str] = {**pool.additional_info.get("*", {}), **pool.additional_info.get(key, {})}
    return {"extra": dict(said)} if said else {}


def _expand_nodes(nodes: Sequence[DeviceNode], expand: Callable[[str], Sequence[str]]) -> Iterator[DeviceNode]:
    for node in nodes:
        found = expand(node.host_path)
        if not found:
            raise DeviceError(f"{node.host_path} is not there, but the pool's deviceNodes name it")
        for path in found:
            yield node if path == node.host_path else DeviceNode(path, path, node.permissions)


def _write_envs(pool: Pool, ids: str, info: str) -> dict[str, str]:
    """Upstream's variables; it leaves hyphens in, which no shell can read, so such names come in a second spelling."""
    name = f"PCIDEVICE_{pool.prefix}_{pool.name}".upper().replace(".", "_")
    return {
        spelling + suffix: value
        for spelling in (name, name.replace("-", "_"))
        for suffix, value in (("", ids), ("_INFO", info))
    }
