"""What the config file says, as plain values. Nothing here knows YAML or pydantic; everything is checked already.

In a `PfSelect` and in a `Selector` the values of one field are alternatives, all fields that are given must hold,
and a field that is not given does not filter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from sriovdp.config import defaults
from sriovdp.config.ranges import VfIndices
from sriovdp.model import DeviceNode, Mount, PciAddress, PhysicalFunction

DEFAULT_PREFIX = defaults.PREFIX

MacPolicy: TypeAlias = Literal["stable", "keep"] | Mapping[int, str]
"""Where a VF's admin MAC comes from: derived from the PF's MAC and the VF's index, left as it is, or given by VF index.

A VF for which none is given has a derived one.
"""

DeviceType = Literal["netDevice", "accelerator", "auxNetDevice"]
"""What a pool offers: network functions, accelerators (PCI class 0x12), or subfunctions of network functions."""

VdpaType = Literal["vhost", "virtio"]

Order = Literal["packed", "spread", "samePF", "distinctPF"]
"""How devices of one container are picked: fill a PF first, take turns among PFs, all of one PF, each of another."""

HealthCondition = Literal["driver", "deviceNodes", "pfUp", "pfCarrier"]
"""What a device must have to be healthy: a driver its pool takes, its device nodes, PF up, PF with link."""

NO_NAMES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class NodeSelect:
    """Which nodes an entry is for: one of the names, and all of the labels. At least one field is given."""

    names: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: NO_NAMES)

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Say whether the node of this name and with these labels is meant."""
        return (not self.names or name in self.names) and all(labels.get(k) == v for k, v in self.labels.items())


@dataclass(frozen=True, slots=True)
class PfSelect:
    """Which PFs an entry of `physicalFunctions` is about. At least one field is given.

    `root_devices` are addresses of the PF itself, as in sriov-network-operator, or of a PCI bridge above it.
    """

    pf_names: tuple[str, ...] = ()
    pci_addresses: tuple[PciAddress, ...] = ()
    vendors: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    root_devices: tuple[PciAddress, ...] = ()
    numa_nodes: tuple[int, ...] = ()

    def matches(self, pf: PhysicalFunction) -> bool:
        """Say whether this PF is meant. A PF without a netdev here has no name and matches no `pf_names`."""
        name = pf.netdev.name if pf.netdev else None
        return (
            (not self.pf_names or name in self.pf_names)
            and (not self.pci_addresses or pf.address in self.pci_addresses)
            and (not self.vendors or pf.vendor in self.vendors)
            and (not self.devices or pf.device in self.devices)
            and (not self.root_devices or not {pf.address, *pf.bridges}.isdisjoint(self.root_devices))
            and (not self.numa_nodes or pf.numa_node in self.numa_nodes)
        )


@dataclass(frozen=True, slots=True)
class VfConfig:
    """What the VFs of one range shall be. `driver` is `kernel` or the name of a driver, like `vfio-pci`.

    `trust`, `spoofchk`, `vlan` (0: none) and the rates (Mbit/s, 0: unlimited) are what a VF has while no pod has set it
    otherwise; None leaves it alone. `noiommu`: vfio-pci may have it without an IOMMU.
    """

    indices: VfIndices
    driver: str = defaults.DRIVER
    mac: MacPolicy = defaults.MAC
    trust: bool | None = None
    spoofchk: bool | None = None
    vlan: int | None = None
    min_tx_rate: int | None = None
    max_tx_rate: int | None = None
    noiommu: bool = defaults.NOIOMMU


@dataclass(frozen=True, slots=True)
class PfConfig:
    """One entry of `physicalFunctions`: which PFs to split, into how many VFs, and what these shall be.

    `mtu` None leaves the PF's MTU alone. `externally_managed`: something else creates the VFs, here they are only given
    drivers and settings. `allow_host_uplink`: a PF that this host itself needs may be reset, re-driven or handed out.
    `nodes` None: on every node.
    """

    select: PfSelect
    num_vfs: int | Literal["max"]
    vfs: tuple[VfConfig, ...] = ()
    mtu: int | None = None
    externally_managed: bool = defaults.EXTERNALLY_MANAGED
    allow_host_uplink: bool = defaults.ALLOW_HOST_UPLINK
    nodes: NodeSelect | None = None

    def vf(self, index: int) -> VfConfig:
        """What the VF with this index shall be. A VF in no range gets its kernel driver and a stable MAC."""
        for config in self.vfs:
            if index in config.indices:
                return config
        return VfConfig(VfIndices((range(index, index + 1),)))


@dataclass(frozen=True, slots=True)
class PfName:
    """An entry of `pfNames`: the VFs of the PF whose netdev has exactly this name; `indices` None means all."""

    name: str
    indices: VfIndices | None = None

    def __str__(self) -> str:
        return self.name if self.indices is None else f"{self.name}#{self.indices}"


@dataclass(frozen=True, slots=True)
class RootDevice:
    """An entry of `rootDevices`: the VFs of the PF with this PCI address; `indices` None means all."""

    address: PciAddress
    indices: VfIndices | None = None

    def __str__(self) -> str:
        return str(self.address) if self.indices is None else f"{self.address}#{self.indices}"


@dataclass(frozen=True, slots=True)
class Selector:
    """One object of `selectors`. Without any field it takes every device of the pool's type.

    `is_rdma` False and `vdpa_type` None do not filter. `need_vhost_net` never does: it adds device nodes.
    """

    vendors: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    pci_addresses: tuple[PciAddress, ...] = ()
    pf_names: tuple[PfName, ...] = ()
    acpi_indexes: tuple[str, ...] = ()
    root_devices: tuple[RootDevice, ...] = ()
    link_types: tuple[str, ...] = ()
    ddp_profiles: tuple[str, ...] = ()
    p_keys: tuple[str, ...] = ()
    is_rdma: bool = False
    vdpa_type: VdpaType | None = None
    aux_types: tuple[str, ...] = ()
    need_vhost_net: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Which devices to prefer for a container: with `numa`, of as few NUMA nodes as can be; among those by `order`."""

    numa: bool = defaults.NUMA
    order: Order = defaults.ORDER

    def __str__(self) -> str:
        return f"numa+{self.order}" if self.numa else self.order


@dataclass(frozen=True, slots=True)
class Pool:
    """One entry of `resourceList`: a resource of the kubelet. `selectors` are alternatives; there is at least one.

    `additional_info` goes into the container's `..._INFO` variable, by PCI address or `*` for every device.
    `device_nodes` (a host path may be a pattern, like `/dev/cxi*`), `mounts` and `env` come on top of what the devices
    themselves need. `nodes` None: on every node.
    """

    name: str
    selectors: tuple[Selector, ...]
    prefix: str = defaults.PREFIX
    exclude_topology: bool = defaults.EXCLUDE_TOPOLOGY
    device_type: DeviceType = defaults.DEVICE_TYPE
    additional_info: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    allocation: Placement = Placement()
    health: tuple[HealthCondition, ...] = defaults.HEALTH
    device_nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: NO_NAMES)
    nodes: NodeSelect | None = None

    @property
    def resource(self) -> str:
        """What a pod asks for, like `intel.com/sriov`."""
        return f"{self.prefix}/{self.name}"


@dataclass(frozen=True, slots=True)
class Config:
    """The whole config file. Entries are in file order: the first that matches a PF or a VF has it.

    `cdi`: containers get device nodes and mounts through CDI specs, by the names of the devices. `warnings` are
    sentences about what is allowed but hardly meant; two configs that differ in them only are equal.
    """

    physical_functions: tuple[PfConfig, ...] = ()
    pools: tuple[Pool, ...] = ()
    cdi: bool = defaults.CDI
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def find_pf(self, pf: PhysicalFunction) -> PfConfig | None:
        """The entry of `physicalFunctions` for this PF: the first that selects it, None when it is left alone."""
        return next((entry for entry in self.physical_functions if entry.select.matches(pf)), None)
