"""A node with every kind of device a pool can offer, as values, and a host that has their files."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sriovdp.config.values import Pool, Selector
from sriovdp.model import (
    NetDevice,
    Node,
    PciAddress,
    PhysicalFunction,
    RdmaDevice,
    Subfunction,
    Traits,
    VdpaDevice,
    VirtualFunction,
)
from sriovdp.pools.assignment import Offer, assign
from sriovdp.pools.pcie_errors import Counts

PF = PciAddress("0000:3b:00.0")
RDMA = RdmaDevice(
    "mlx5_3",
    uverbs="/dev/infiniband/uverbs3",
    umad="/dev/infiniband/umad3",
    issm="/dev/infiniband/issm3",
    cm="/dev/infiniband/rdma_cm",
)


def vf(index: int, driver: str | None, **more: object) -> VirtualFunction:
    """A VF at 0000:3b:02.<index>, in group 100 + index, on NUMA node 0."""
    values = {"iommu_group": 100 + index, "numa_node": 0} | more
    return VirtualFunction(PciAddress(f"0000:3b:02.{index}"), PF, index, "8086", "154c", driver, **values)  # type: ignore[arg-type]


VFS = (
    vf(0, "iavf", representor="enp59s0_0"),
    vf(1, "vfio-pci"),
    vf(2, "vfio-pci", traits=Traits(noiommu=True)),
    vf(3, "igb_uio", uio="uio0"),
    vf(4, "uio_pci_generic", uio="uio1"),
    vf(5, "mlx5_core", traits=Traits(is_rdma=True, rdma=(RDMA,))),
    vf(6, "mlx5_core", traits=Traits(vdpa=(VdpaDevice("vdpa0", "vhost", "/dev/vhost-vdpa-0"),))),
    vf(7, "mlx5_core", traits=Traits(vdpa=(VdpaDevice("vdpa1", "virtio"),))),
)
SF = Subfunction("mlx5_core.sf.4", "sf", 4, PF, "mlx5_core.sf", 0, traits=Traits(is_rdma=True, rdma=(RDMA,)))
ACCELERATOR = PhysicalFunction(PciAddress("0000:5e:00.0"), "8086", "0d5c", "vfio-pci", 1, iommu_group=7)
NODE = Node(
    (
        PhysicalFunction(
            PF,
            "8086",
            "158b",
            "i40e",
            0,
            NetDevice("enp59s0", 2, "52:54:00:aa:00:01", 1500, up=True, carrier=True),
            total_vfs=8,
            vfs=VFS,
            sfs=(SF,),
        ),
    ),
    (ACCELERATOR,),
)


@dataclass
class FakeHost:
    """A host that has all device nodes but those in `missing`, and the files of one UIO device."""

    missing: set[str] = field(default_factory=set)
    intruders: dict[int, str] = field(default_factory=dict)
    pcie_errors: dict[str, Counts] = field(default_factory=dict)

    def find_nodes(self, pattern: str) -> Sequence[str]:
        """What there is; a pattern means two."""
        if pattern.endswith("*"):
            return [path for path in (f"{pattern[:-1]}0", f"{pattern[:-1]}1") if path not in self.missing]
        return [] if pattern in self.missing else [pattern]

    def find_intruder(self, group: int) -> str:
        """What was set."""
        return self.intruders.get(group, "")

    def count_pcie_errors(self, address: str) -> Counts | None:
        """What was set."""
        return self.pcie_errors.get(address)

    def list_uio_files(self, address: str) -> Sequence[str]:
        """Config space and one BAR."""
        return [f"/sys/devices/pci0000:3a/{address}/{name}" for name in ("config", "resource0")]


def offer(pool: Pool, node: Node = NODE) -> dict[str, Offer]:
    """What a pool has when it is the only one."""
    return assign([pool], node)[0]


def make_pool(*ids: str, name: str = "sriov", **more: object) -> Pool:
    """A pool of devices by their PCI addresses; `more` are fields of Pool, and `selector` those of its selector."""
    selector = more.pop("selector", {})
    assert isinstance(selector, dict)
    return Pool(name, (Selector(pci_addresses=tuple(map(PciAddress, ids)), **selector),), **more)  # type: ignore[arg-type]
