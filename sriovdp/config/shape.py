"""The shape of the config file as pydantic models: which keys there are, what each may hold, and what is the default.

The descriptions are for editors, by way of the JSON schema. `words` has what stands for one value.
"""

from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator
from pydantic.alias_generators import to_camel

from sriovdp.config import defaults, macs, values
from sriovdp.config.words import (
    AcpiIndex,
    Address,
    AuxType,
    Count,
    DdpProfile,
    DevicePath,
    DeviceType,
    Driver,
    EnvName,
    Health,
    Indices,
    InfoKey,
    LabelKey,
    LabelValue,
    LinkType,
    Macs,
    Mtu,
    Name,
    NetdevName,
    NodeName,
    NumaNode,
    Path,
    PciId,
    Permissions,
    PfName,
    PKey,
    Placement,
    Prefix,
    Rate,
    RootDevice,
    SelectedDriver,
    Text,
    VdpaType,
    Vlan,
)
from sriovdp.model import DeviceNode, Mount


def _wrap_object(value: Any) -> Any:
    if not isinstance(value, dict | list):
        raise ValueError("must be an object or a list of objects")  # noqa: TRY004 (pydantic collects ValueError)
    return [value] if isinstance(value, dict) else value


def _wrap_path(value: Any) -> Any:
    return {"hostPath": value} if isinstance(value, str) else value


_MAX_SELECTORS = 1000  # each device is held against each, and each against all before it


class Shape(BaseModel):
    """An object of the file: camel-case keys, no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class LenientShape(Shape):
    """An object in which null and empty text are the same as nothing, as in upstream's Go structs."""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: entry for key, entry in value.items() if entry is not None and entry != ""}


def _demand_field(shape: BaseModel) -> None:
    if not shape.model_fields_set:
        raise ValueError(f"needs at least one of {', '.join(map(to_camel, type(shape).model_fields))}")


class NodeSelectShape(Shape):
    """Which nodes an entry is for: one of the names, and all of the labels."""

    names: list[NodeName] = Field(default=[], min_length=1, description="Names of Kubernetes nodes.")
    labels: dict[LabelKey, LabelValue] = Field(
        default={}, min_length=1, description="Labels that the node must have, all of them."
    )

    @model_validator(mode="after")
    def _demand(self) -> Self:
        _demand_field(self)
        return self

    def build(self) -> values.NodeSelect:
        """The same as plain values."""
        return values.NodeSelect(tuple(self.names), MappingProxyType(self.labels))


class PfSelectShape(Shape):
    """Which PFs: values of one key are alternatives, all keys that are given must hold."""

    pf_names: list[NetdevName] = Field(default=[], min_length=1, description="Names of the PFs' netdevs.")
    pci_addresses: list[Address] = Field(default=[], min_length=1, description="PCI addresses of PFs.")
    vendors: list[PciId] = Field(default=[], min_length=1, description="PCI vendor ids, 4 hex digits.")
    devices: list[PciId] = Field(default=[], min_length=1, description="PCI device ids of PFs, 4 hex digits.")
    root_devices: list[Address] = Field(
        default=[], min_length=1, description="PCI addresses of PFs, or of bridges above them."
    )
    numa_nodes: list[NumaNode] = Field(default=[], min_length=1, description="NUMA nodes that the PFs are on.")

    @model_validator(mode="after")
    def _demand(self) -> Self:
        _demand_field(self)
        return self

    def build(self) -> values.PfSelect:
        """The same as plain values."""
        return values.PfSelect(
            pf_names=tuple(self.pf_names),
            pci_addresses=tuple(self.pci_addresses),
            vendors=tuple(self.vendors),
            devices=tuple(self.devices),
            root_devices=tuple(self.root_devices),
            numa_nodes=tuple(self.numa_nodes),
        )


class VfShape(Shape):
    """What the VFs of one range shall be."""

    range: Indices = Field(description="VF indices from 0, like 0-3,6.")
    driver: Driver = Field(default=defaults.DRIVER, description="kernel is the VF's own netdev driver.")
    mac: Macs = Field(
        default=defaults.MAC,
        description="stable: the same after each boot. keep: left as it is. Or MACs, as a list or by VF index.",
    )
    trust: StrictBool | None = Field(default=None, description="Trust the VF; left as it is if not given.")
    spoofchk: StrictBool | None = Field(default=None, description="Check source MACs; left as it is if not given.")
    vlan: Vlan | None = Field(default=None, description="Port VLAN, 0 for none; left as it is if not given.")
    min_tx_rate: Rate | None = Field(
        default=None, description="Mbit/s that the VF is sure of; left as it is if not given."
    )
    max_tx_rate: Rate | None = Field(
        default=None, description="Mbit/s that the VF can send at most, 0 for unlimited; left as it is if not given."
    )
    noiommu: StrictBool = Field(
        default=defaults.NOIOMMU, description="vfio-pci may have the VF without an IOMMU: it can write to all memory."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        macs.place_macs(self.mac, self.range)
        if self.max_tx_rate and (self.min_tx_rate or 0) > self.max_tx_rate:
            raise ValueError(f"minTxRate {self.min_tx_rate} is more than maxTxRate {self.max_tx_rate}")
        if self.noiommu and self.driver != "vfio-pci":
            raise ValueError("noiommu is about vfio-pci; remove it, or write driver: vfio-pci")
        return self

    def build(self) -> values.VfConfig:
        """The same as plain values."""
        return values.VfConfig(
            indices=self.range,
            driver=self.driver,
            mac=macs.place_macs(self.mac, self.range),
            trust=self.trust,
            spoofchk=self.spoofchk,
            vlan=self.vlan,
            min_tx_rate=self.min_tx_rate,
            max_tx_rate=self.max_tx_rate,
            noiommu=self.noiommu,
        )


class PfShape(Shape):
    """PFs to split into VFs. The first entry that selects a PF has it."""

    select: PfSelectShape
    num_vfs: Count = Field(description="How many VFs, or max.")
    vfs: list[VfShape] = Field(default=[], description="Ranges of VFs; a VF in none gets its kernel driver.")
    mtu: Mtu | None = Field(default=None, description="MTU of the PF and of its VFs; left alone if not given.")
    externally_managed: StrictBool = Field(
        default=defaults.EXTERNALLY_MANAGED, description="Something else creates the VFs; only use them."
    )
    allow_host_uplink: StrictBool = Field(
        default=defaults.ALLOW_HOST_UPLINK, description="The PF may be disturbed though this host itself needs it."
    )
    nodes: NodeSelectShape | None = None

    def build(self) -> values.PfConfig:
        """The same as plain values."""
        return values.PfConfig(
            select=self.select.build(),
            num_vfs=self.num_vfs,
            vfs=tuple(vf.build() for vf in self.vfs),
            mtu=self.mtu,
            externally_managed=self.externally_managed,
            allow_host_uplink=self.allow_host_uplink,
            nodes=self.nodes.build() if self.nodes else None,
        )


class SelectorShape(LenientShape):
    """Which devices: values of one key are alternatives, all keys that are given must hold."""

    vendors: list[PciId] = Field(default=[], description="PCI vendor ids, 4 hex digits.")
    devices: list[PciId] = Field(default=[], description="PCI device ids, those of the VFs, 4 hex digits.")
    drivers: list[SelectedDriver] = Field(default=[], description="The driver a device has now, like iavf, vfio-pci.")
    pci_addresses: list[Address] = Field(default=[], description="PCI addresses of devices.")
    acpi_indexes: list[AcpiIndex] = Field(default=[], description="Indices that the firmware gave devices.")
    pf_names: list[PfName] = Field(default=[], description="The PF's netdev, all its VFs or some: ens1f0#0-3,5.")
    root_devices: list[RootDevice] = Field(default=[], description="The PF's PCI address: 0000:3b:00.0#0-3,5.")
    link_types: list[LinkType] = Field(default=[], description="ether or infiniband.")
    ddp_profiles: list[DdpProfile] = Field(default=[], description="Names of loaded DDP packages (Intel 700, 800).")
    p_keys: list[PKey] = Field(default=[], description="Default InfiniBand partition keys, like 0xffff.")
    is_rdma: StrictBool = Field(default=False, description="Only RDMA devices; the container gets their nodes.")
    vdpa_type: VdpaType | None = Field(default=None, description="Only devices with a vDPA device of this type.")
    aux_types: list[AuxType] = Field(default=[], description="For auxNetDevice: sf, subfunctions.")
    need_vhost_net: StrictBool = Field(default=False, description="The container gets /dev/vhost-net and /dev/net/tun.")

    def build(self) -> values.Selector:
        """The same as plain values."""
        return values.Selector(
            vendors=tuple(self.vendors),
            devices=tuple(self.devices),
            drivers=tuple(self.drivers),
            pci_addresses=tuple(self.pci_addresses),
            pf_names=tuple(self.pf_names),
            acpi_indexes=tuple(self.acpi_indexes),
            root_devices=tuple(self.root_devices),
            link_types=tuple(self.link_types),
            ddp_profiles=tuple(self.ddp_profiles),
            p_keys=tuple(self.p_keys),
            is_rdma=self.is_rdma,
            vdpa_type=self.vdpa_type,
            aux_types=tuple(self.aux_types),
            need_vhost_net=self.need_vhost_net,
        )


class DeviceNodeShape(Shape):
    """A device node for the container. A path alone stands for all of it."""

    host_path: DevicePath = Field(description="Path on the host, or a pattern like /dev/cxi*.")
    container_path: DevicePath | None = Field(default=None, description="Path in the container; the same if not given.")
    permissions: Permissions = Field(default=defaults.NODE_PERMISSIONS, description="Some of r, w, m.")

    @model_validator(mode="after")
    def _refuse_pattern(self) -> Self:
        if self.container_path not in (None, self.host_path) and set(self.host_path) & set("*?["):
            raise ValueError("a pattern stands for many nodes: they keep their paths; remove containerPath")
        return self

    def build(self) -> DeviceNode:
        """The same as plain values."""
        return DeviceNode(self.host_path, self.container_path or self.host_path, self.permissions)


class MountShape(Shape):
    """A file or folder of the host for the container. A path alone stands for all of it."""

    host_path: Path = Field(description="Path on the host.")
    container_path: Path | None = Field(default=None, description="Path in the container; the same if not given.")
    read_only: StrictBool = Field(default=defaults.MOUNT_READ_ONLY, description="Whether it can not be written.")

    def build(self) -> Mount:
        """The same as plain values."""
        return Mount(self.host_path, self.container_path or self.host_path, self.read_only)


class PoolShape(LenientShape):
    """A pool, which is a resource of the kubelet. The first pool that takes a device has it."""

    resource_name: Name = Field(description="The resource is resourcePrefix/resourceName.")
    resource_prefix: Prefix = Field(default=defaults.PREFIX, description="Your domain.")
    device_type: DeviceType = Field(default=defaults.DEVICE_TYPE, description="What kind of device is offered.")
    exclude_topology: StrictBool = Field(
        default=defaults.EXCLUDE_TOPOLOGY, description="Do not tell the kubelet the NUMA node."
    )
    selectors: Annotated[
        list[SelectorShape],
        Field(min_length=1, description="One object or a list of objects, which are alternatives."),
        BeforeValidator(_wrap_object, json_schema_input_type=SelectorShape | list[SelectorShape]),
    ]
    additional_info: dict[InfoKey, dict[str, Text]] = Field(
        default={}, description="For the container's ..._INFO variable, by PCI address or * for every device."
    )
    allocation: Placement = Field(
        default=values.Placement(),
        description="Which devices a container gets: packed, spread, samePF, distinctPF, numa+...",
    )
    health: list[Health] = Field(default=list(defaults.HEALTH), description="What a device must have to be healthy.")
    device_nodes: list[
        Annotated[DeviceNodeShape, BeforeValidator(_wrap_path, json_schema_input_type=DeviceNodeShape | str)]
    ] = Field(default=[], description="More device nodes for the container.")
    mounts: list[Annotated[MountShape, BeforeValidator(_wrap_path, json_schema_input_type=MountShape | str)]] = Field(
        default=[], description="Files and folders of the host for the container."
    )
    env: dict[EnvName, Text] = Field(default={}, description="Environment variables for the container.")
    nodes: NodeSelectShape | None = None

    def build(self) -> values.Pool:
        """The same as plain values."""
        info = {key: MappingProxyType(said) for key, said in self.additional_info.items()}
        return values.Pool(
            name=self.resource_name,
            selectors=tuple(selector.build() for selector in self.selectors),
            prefix=self.resource_prefix,
            exclude_topology=self.exclude_topology,
            device_type=self.device_type,
            additional_info=MappingProxyType(info),
            allocation=self.allocation,
            health=tuple(dict.fromkeys(self.health)),
            device_nodes=tuple(node.build() for node in self.device_nodes),
            mounts=tuple(mount.build() for mount in self.mounts),
            env=MappingProxyType(self.env),
            nodes=self.nodes.build() if self.nodes else None,
        )


class FileShape(LenientShape):
    """Config file of sriovdp."""

    physical_functions: list[PfShape] = Field(default=[], description="PFs to split into VFs.")
    resource_list: list[PoolShape] = Field(default=[], description="Pools: what pods can ask for.")
    cdi: StrictBool = Field(
        default=defaults.CDI, description="Containers get their devices through CDI; the runtime has to know it."
    )

    @model_validator(mode="after")
    def _demand_entry(self) -> Self:
        if not self.physical_functions and not self.resource_list:
            raise ValueError("asks for nothing: give it physicalFunctions (PFs to split), resourceList (pools) or both")
        selectors = sum(len(pool.selectors) for pool in self.resource_list)
        if selectors > _MAX_SELECTORS:
            raise ValueError(f"has {selectors} selectors in all its pools; it may have {_MAX_SELECTORS}")
        return self

    def build(self) -> values.Config:
        """The same as plain values."""
        return values.Config(
            physical_functions=tuple(pf.build() for pf in self.physical_functions),
            pools=tuple(pool.build() for pool in self.resource_list),
            cdi=self.cdi,
        )
