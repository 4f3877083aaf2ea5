"""The config file's objects. A field with a `Key` is a key of the file, and says here all that is said of it anywhere.

The values of one key of a `PfSelect` or `Selector` are alternatives, all keys that are given must hold, and a key that
is not given does not filter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, ClassVar, Self

from sriovdp.config import words
from sriovdp.config.keys import Key, demand_one
from sriovdp.config.macs import place_macs
from sriovdp.config.network_policy import CniConfig
from sriovdp.config.ranges import VfIndices
from sriovdp.config.terms import DeviceType, HealthAction, HealthCondition, Placement, VdpaType
from sriovdp.limits import PATTERN_SIGNS
from sriovdp.model import DeviceNode, Mount, PhysicalFunction, is_vfio

MAX_SELECTORS = 1000
"""Each device is compared with each selector, and each selector with all before it."""

NO_NAMES: Mapping[str, str] = MappingProxyType({})
_PLACEMENT = Placement()
_AS_SRIOV_CNI = CniConfig()
_EVENTS = frozenset({"pcieErrors", "pcieCorrectableErrors"})
_EVENT_HOLD = 300  # seconds
_NET = ("netDevice",)
_NET_AND_ACCELERATOR = ("netDevice", "accelerator")
_NET_AND_AUX = ("netDevice", "auxNetDevice")


@dataclass(frozen=True, slots=True)
class NodeSelect:
    """Which nodes an entry is for: one of the names, and all of the labels."""

    names: Annotated[tuple[words.NodeName, ...], Key("Names of Kubernetes nodes.", least=1)] = ()
    labels: Annotated[
        Mapping[words.LabelKey, words.LabelValue], Key("Labels that the node must have, all of them.", least=1)
    ] = field(default_factory=lambda: NO_NAMES)

    def checked(self) -> Self:
        """Raise ValueError when neither is given."""
        demand_one(self)
        return self

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Say whether the node of this name and with these labels is meant."""
        return (not self.names or name in self.names) and all(labels.get(k) == v for k, v in self.labels.items())


@dataclass(frozen=True, slots=True)
class PfSelect:
    """Which PFs: values of one key are alternatives, all keys that are given must hold."""

    pf_names: Annotated[tuple[words.NetdevName, ...], Key("Names of the PFs' netdevs.", least=1)] = ()
    pci_addresses: Annotated[tuple[words.Address, ...], Key("PCI addresses of PFs, like `0000:3b:00.0`.", least=1)] = ()
    vendors: Annotated[tuple[words.PciId, ...], Key("PCI vendor ids, 4 hex digits.", least=1)] = ()
    devices: Annotated[tuple[words.PciId, ...], Key("PCI device ids of PFs, 4 hex digits.", least=1)] = ()
    root_devices: Annotated[
        tuple[words.Address, ...], Key("PCI addresses of PFs, or of bridges above them: all PFs of a card.", least=1)
    ] = ()
    numa_nodes: Annotated[tuple[words.NumaNode, ...], Key("NUMA nodes that the PFs are on.", least=1)] = ()

    def checked(self) -> Self:
        """Raise ValueError when no key is given."""
        demand_one(self)
        return self

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
    """What the VFs of one range get."""

    indices: Annotated[words.Indices, Key("VF indices from 0: `0-3`, `6`, `0-3,6`.", name="range")]
    driver: Annotated[
        words.Driver,
        Key(
            "`kernel` (the VF's own netdev driver), `vfio-pci`, `igb_uio`, `uio_pci_generic`, the name of another "
            "driver, or `none` (left unbound; such a VF is in no pool)."
        ),
    ] = "kernel"
    mac: Annotated[
        words.Macs,
        Key(
            "Admin MAC. `stable`: the same after each boot. `keep`: left as it is. Or a list with a MAC for each VF of "
            "the range, or a map of VF index to MAC."
        ),
    ] = "stable"
    trust: Annotated[bool | None, Key("Trust the VF as long as no pod has it. Left as it is if not given.")] = None
    spoofchk: Annotated[
        bool | None, Key("Check source MACs as long as no pod has the VF. Left as it is if not given.")
    ] = None
    vlan: Annotated[
        words.Vlan | None,
        Key("Port VLAN as long as no pod has the VF, 0 for none. Left as it is if not given."),
    ] = None
    min_tx_rate: Annotated[
        words.Rate | None, Key("Mbit/s that the VF can always send. Left as it is if not given.")
    ] = None
    max_tx_rate: Annotated[
        words.Rate | None, Key("Mbit/s that the VF can send at most, 0 for unlimited. Left as it is if not given.")
    ] = None
    noiommu: Annotated[
        bool, Key("vfio-pci gets the VF even without an IOMMU. A program with it can then write to all memory.")
    ] = False

    def checked(self) -> Self:
        """Put a list of MACs beside the range. Raises ValueError when keys do not fit each other."""
        placed = place_macs(self.mac, self.indices)
        if self.max_tx_rate and (self.min_tx_rate or 0) > self.max_tx_rate:
            raise ValueError(f"minTxRate {self.min_tx_rate} is more than maxTxRate {self.max_tx_rate}")
        if self.noiommu and not is_vfio(self.driver):
            raise ValueError("noiommu is for vfio-pci; remove it, or write driver: vfio-pci")
        return replace(self, mac=placed)


@dataclass(frozen=True, slots=True)
class PfConfig:
    """PFs to split into VFs. The first entry that selects a PF has it."""

    select: Annotated[PfSelect, Key("Which PFs.")]
    num_vfs: Annotated[words.Count, Key("How many VFs, or `max`. 0 removes the VFs.")]
    vfs: Annotated[
        tuple[VfConfig, ...], Key("Ranges of VFs. A VF in no range gets its kernel driver and a stable MAC.")
    ] = ()
    mtu: Annotated[words.Mtu | None, Key("MTU of the PF and of its VFs. Left as it is if not given.")] = None
    eswitch_mode: Annotated[
        words.EswitchMode | None,
        Key(
            "Mode of the PF's e-switch: `legacy`, or `switchdev`, where each VF has a representor on the host. A "
            "change removes the VFs and makes them again. Left as it is if not given.",
            name="eSwitchMode",
        ),
    ] = None
    externally_managed: Annotated[
        bool, Key("Something else creates the VFs. They only get drivers and settings here.")
    ] = False
    allow_host_uplink: Annotated[
        bool, Key("This host itself needs the PF, and it may be reset, get another driver, or be given to pods.")
    ] = False
    nodes: Annotated[NodeSelect | None, Key("Which nodes the entry is for. All if not given.")] = None

    def vf(self, index: int) -> VfConfig:
        """What the VF with this index gets. A VF in no range gets its kernel driver and a stable MAC."""
        for config in self.vfs:
            if index in config.indices:
                return config
        return VfConfig(VfIndices((range(index, index + 1),)))


@dataclass(frozen=True, slots=True)
class Selector:
    """Which devices: values of one key are alternatives, all keys that are given must hold."""

    LENIENT: ClassVar = True

    vendors: Annotated[tuple[words.PciId, ...], Key("PCI vendor ids, 4 hex digits.")] = ()
    devices: Annotated[
        tuple[words.PciId, ...], Key("PCI device ids, 4 hex digits: of a VF its own, of a subfunction its PF's.")
    ] = ()
    drivers: Annotated[
        tuple[words.SelectedDriver, ...],
        Key("Drivers that the device is bound to now, like `iavf`, `vfio-pci`. Of a subfunction: its PF's."),
    ] = ()
    pci_addresses: Annotated[
        tuple[words.Address, ...], Key("PCI addresses of devices.", kinds=_NET_AND_ACCELERATOR)
    ] = ()
    pf_names: Annotated[
        tuple[words.PfName, ...],
        Key("Names of PFs' netdevs, for all VFs or some: `ens1f0`, `ens1f0#0-3,5`.", kinds=_NET_AND_AUX),
    ] = ()
    acpi_indexes: Annotated[
        tuple[words.AcpiIndex, ...], Key("Indices that the firmware gave the devices.", kinds=_NET_AND_ACCELERATOR)
    ] = ()
    root_devices: Annotated[
        tuple[words.RootDevice, ...],
        Key("PCI addresses of PFs, for all VFs or some: `0000:3b:00.0#0-3,5`.", kinds=_NET_AND_AUX),
    ] = ()
    link_types: Annotated[
        tuple[words.LinkType, ...],
        Key("`ether` or `infiniband`. Where a VF has no netdev on this host, its PF's.", kinds=_NET_AND_AUX),
    ] = ()
    ddp_profiles: Annotated[
        tuple[words.DdpProfile, ...],
        Key("DDP packages that the NIC has loaded, as devlink reports them (driver ice only).", kinds=_NET),
    ] = ()
    p_keys: Annotated[tuple[words.PKey, ...], Key("Default InfiniBand partition keys, like `0xffff`.", kinds=_NET)] = ()
    is_rdma: Annotated[
        bool,
        Key(
            "`true`: only RDMA devices, and the container gets their device nodes. Soft RoCE is none: it cannot go "
            "into a pod.",
            kinds=_NET_AND_AUX,
        ),
    ] = False
    vdpa_type: Annotated[
        VdpaType | None,
        Key("Only devices with a vDPA device on this driver: `vhost` or `virtio`. Not beside `isRdma`.", kinds=_NET),
    ] = None
    aux_types: Annotated[
        tuple[words.AuxType, ...], Key("`[sf]`: subfunctions. Must be given.", kinds=("auxNetDevice",))
    ] = ()
    need_vhost_net: Annotated[
        bool,
        Key(
            "Does not filter: the container gets `/dev/vhost-net` and `/dev/net/tun`.",
            kinds=_NET_AND_AUX,
            filters=False,
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class ExtraNode:
    """A device node for the container. A path alone stands for all of it."""

    SHORT: ClassVar = "hostPath"

    host_path: Annotated[words.DevicePath, Key("Path on the host, or a pattern like `/dev/cxi*`.")]
    container_path: Annotated[words.DevicePath | None, Key("Path in the container. The same if not given.")] = None
    permissions: Annotated[words.Permissions, Key("Some of `r`, `w`, `m`.")] = "rw"

    def checked(self) -> Self:
        """Raise ValueError when the nodes of a pattern would all get one path."""
        if self.container_path not in (None, self.host_path) and set(self.host_path) & PATTERN_SIGNS:
            raise ValueError("a pattern stands for many nodes, which keep their paths; remove containerPath")
        return self

    @property
    def node(self) -> DeviceNode:
        """What the container gets; its path may be a pattern."""
        return DeviceNode(self.host_path, self.container_path or self.host_path, self.permissions)


@dataclass(frozen=True, slots=True)
class ExtraMount:
    """A file or folder of the host for the container. A path alone stands for all of it."""

    SHORT: ClassVar = "hostPath"

    host_path: Annotated[words.FilePath, Key("Path on the host.")]
    container_path: Annotated[words.FilePath | None, Key("Path in the container. The same if not given.")] = None
    read_only: Annotated[bool, Key("The container cannot write to it.")] = True

    @property
    def mount(self) -> Mount:
        """What the container gets."""
        return Mount(self.host_path, self.container_path or self.host_path, self.read_only)


@dataclass(frozen=True, slots=True)
class HealthRule:
    """What a device must have, and what becomes of it without. The condition alone stands for all of it."""

    SHORT: ClassVar = "condition"

    condition: Annotated[
        HealthCondition,
        Key(
            "`driver`, `deviceNodes`, `rdmaDevice`, `pfPresent`, `pfUp`, `pfCarrier`, `iommuGroup`, `pcieErrors`, "
            "`pcieCorrectableErrors`."
        ),
    ]
    action: Annotated[
        HealthAction,
        Key("`unhealthy`: no pod gets a device without it; `warn`: only log, status and metrics say so; `ignore`."),
    ] = "unhealthy"
    hold: Annotated[
        words.Hold | None,
        Key(
            "Seconds for which it must be lacking before this counts, and be there again before it counts no more; of "
            "PCIe errors: after the last one. 0 if not given, of PCIe errors 300."
        ),
    ] = None

    @property
    def is_event(self) -> bool:
        """Whether lacking it is no state, but something that happens."""
        return self.condition in _EVENTS

    @property
    def seconds(self) -> int:
        """How long it must be lacking, or there again."""
        return self.hold if self.hold is not None else _EVENT_HOLD if self.is_event else 0

    def checked(self) -> Self:
        """Raise ValueError when an error would be forgotten at once."""
        if self.is_event and self.hold == 0:
            raise ValueError(
                f"hold: 0 forgets {self.condition} at once; give seconds, or leave it out for {_EVENT_HOLD}"
            )
        return self


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool, which is a resource of the kubelet. The first pool that takes a device has it."""

    LENIENT: ClassVar = True

    name: Annotated[
        words.Name,
        Key(
            "The resource is `resourcePrefix/resourceName`. 1 to 63 letters, digits, `_`, `-`, `.`; the first and the "
            "last are a letter or digit.",
            name="resourceName",
        ),
    ]
    selectors: Annotated[
        tuple[Selector, ...],
        Key(
            "One object or a list of objects, which are alternatives.",
            least=1,
            single=True,
            missing="to take every VF of the node write `selectors: {}`",
        ),
    ]
    prefix: Annotated[words.Prefix, Key("Your domain.", name="resourcePrefix")] = "intel.com"
    exclude_topology: Annotated[bool, Key("The kubelet does not get the NUMA node.")] = False
    device_type: Annotated[
        DeviceType,
        Key(
            "`netDevice` (network functions), `accelerator` (PCI class 0x12), or `auxNetDevice` (subfunctions).",
        ),
    ] = "netDevice"
    additional_info: Annotated[
        Mapping[words.InfoKey, Mapping[str, words.Text]],
        Key("For the container's `…_INFO` variable, by PCI address or `*` for every device."),
    ] = field(default_factory=lambda: MappingProxyType({}))
    allocation: Annotated[
        words.Placement,
        Key(
            "Which devices a container gets: `packed` (fill a PF first), `spread`, `samePF`, `distinctPF`; with "
            "`numa+` before it on one NUMA node if possible."
        ),
    ] = _PLACEMENT
    health: Annotated[
        tuple[HealthRule, ...],
        Key(
            "What a device must have to be healthy: conditions, or `{condition, action, hold}`. "
            "`[driver, deviceNodes]` if not given."
        ),
    ] = (HealthRule("driver"), HealthRule("deviceNodes"))
    device_nodes: Annotated[
        tuple[ExtraNode, ...],
        Key("More device nodes: paths, patterns like `/dev/cxi*`, or `{hostPath, containerPath, permissions}`."),
    ] = ()
    mounts: Annotated[
        tuple[ExtraMount, ...], Key("Files and folders of the host: paths, or `{hostPath, containerPath, readOnly}`.")
    ] = ()
    env: Annotated[Mapping[words.EnvName, words.Text], Key("Environment variables for the container.")] = field(
        default_factory=lambda: NO_NAMES
    )
    nodes: Annotated[NodeSelect | None, Key("Which nodes the pool is for. All if not given.")] = None

    def checked(self) -> Self:
        """Raise ValueError when there are two rules for one condition."""
        rules: dict[str, HealthRule] = {}
        for rule in self.health:
            if rules.setdefault(rule.condition, rule) != rule:
                raise ValueError(f"health has two rules for {rule.condition}; leave one of them")
        return self

    def find_rule(self, condition: HealthCondition) -> HealthRule:
        """What becomes of a device that lacks a condition. Without an RDMA device where it is one, none is given."""
        default: HealthAction = "unhealthy" if condition == "rdmaDevice" else "ignore"
        return next((rule for rule in self.health if rule.condition == condition), HealthRule(condition, default))

    @property
    def resource(self) -> str:
        """What a pod asks for, like `intel.com/sriov`."""
        return f"{self.prefix}/{self.name}"


@dataclass(frozen=True, slots=True)
class Config:
    """Config file of sriovdp. Entries are in file order: the first that matches a PF or a VF has it.

    `warnings` are sentences about what is allowed but hardly meant; two configs that differ in them only are equal.
    """

    LENIENT: ClassVar = True

    physical_functions: Annotated[tuple[PfConfig, ...], Key("PFs to split into VFs.")] = ()
    pools: Annotated[tuple[Pool, ...], Key("Pools: what pods can ask for.", name="resourceList")] = ()
    cdi: Annotated[bool, Key("Containers get their devices through CDI. The runtime must support it.")] = False
    rdma_mode: Annotated[
        words.RdmaMode | None,
        Key(
            "`exclusive`: each RDMA device is in one network namespace, as `rdmaIsolation` of networks needs it; "
            "`shared`: all can use it. Not changed if not given."
        ),
    ] = None
    cni: Annotated[CniConfig, Key("What networks of `type: sriov` may ask of this node.")] = _AS_SRIOV_CNI
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def checked(self) -> Self:
        """Raise ValueError when there are more selectors than can be held against each other in a short time."""
        selectors = sum(len(pool.selectors) for pool in self.pools)
        if selectors > MAX_SELECTORS:
            raise ValueError(f"has {selectors} selectors in all its pools; at most {MAX_SELECTORS} are allowed")
        return self

    def find_pf(self, pf: PhysicalFunction) -> PfConfig | None:
        """The entry of `physicalFunctions` for this PF: the first that selects it, None when it is left alone."""
        return next((entry for entry in self.physical_functions if entry.select.matches(pf)), None)
