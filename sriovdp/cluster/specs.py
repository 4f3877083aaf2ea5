"""What users write in the objects of sriov-network-operator (sriovnetwork.openshift.io/v1), with the operator's rules.

A field with a `Key` is a key of `spec`, as in the config file; `objects.find_object` reads it and lists all faults.
The rules are those of the operator's webhook; a rule there that depends on nodes is in `merge`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from sriovdp.cluster.labels import check as check_selector
from sriovdp.config import words
from sriovdp.config.forms import Choice, Number, Special, Word
from sriovdp.config.keys import Key
from sriovdp.config.ranges import VfIndices
from sriovdp.limits import MAX_VFS

GROUP = "sriovnetwork.openshift.io"
LOWEST_PRIORITY = 99
NO_LABELS: Mapping[str, str] = MappingProxyType({})
_MAX_OVS_VLAN = 4095  # the operator's limit; 4095 is reserved
_RESOURCE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_RANGE = re.compile(r"[0-9]{1,9}-[0-9]{1,9}")
_LABEL = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(r"(?:[a-z0-9.-]{1,253}/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class PfName:
    """An entry of `pfNames`: the name of a netdev, and the VFs that are meant, None for all."""

    name: str
    indices: VfIndices | None = None

    def __str__(self) -> str:
        return self.name if self.indices is None else f"{self.name}#{self.indices}"


def _check_pf_name(text: str) -> PfName:
    name, sign, span = text.partition("#")
    if not re.fullmatch(r"[!-~]{1,128}", name) or set(name) & set("/:"):  # an altname has up to 127 characters
        raise ValueError("write the name of a PF's netdev, or with some of its VFs: ens1f0#0-3")
    if sign and not _RANGE.fullmatch(span):
        raise ValueError("write one range of VFs after #, like ens1f0#0-3")
    return PfName(name, VfIndices.parse(span) if sign else None)


def _check_resource(text: str) -> str:
    if not _RESOURCE.fullmatch(text):
        raise ValueError("1-63 letters, digits, _ and -; the first and the last are a letter or digit")
    return text


def _check_labels(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError("must be an object of labels")  # noqa: TRY004 (a fault of the file)
    for key, label in value.items():
        if not isinstance(label, str):
            raise ValueError(f"{key}: the value of a label is a text; put it in quotes")  # noqa: TRY004
        if not _LABEL_KEY.fullmatch(key) or not _LABEL.fullmatch(label):
            raise ValueError(f"{key[:80]!r}: {label[:80]!r} is no label")
    return MappingProxyType(dict(value))


def _check_object(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("must be an object")  # noqa: TRY004 (a fault of the file)
    return value


def _check_selector(value: Any) -> Any:
    check_selector(_check_object(value))
    return value


def _check_unavailable(value: Any) -> int | str:
    if (type(value) is int and value >= 0) or (isinstance(value, str) and re.fullmatch(r"(?:100|[0-9]{1,2})%", value)):
        return value
    raise ValueError("a whole number from 0, or a percentage like 10%")


Labels: TypeAlias = Annotated[Mapping[str, str], Special(_check_labels, {"type": "object"})]
Anything: TypeAlias = Annotated[Mapping[str, Any], Special(_check_object, {"type": "object"})]
Resource: TypeAlias = Annotated[str, Word(_check_resource)]
PfNames: TypeAlias = tuple[Annotated[PfName, Word(_check_pf_name)], ...]
Priority: TypeAlias = Annotated[int, Number(0, LOWEST_PRIORITY, "a priority")]
NumVfs: TypeAlias = Annotated[int, Number(0, MAX_VFS, "a number of VFs")]
LinkType: TypeAlias = Annotated[str, Choice(("eth", "ETH", "ib", "IB"))]
NodeSelector: TypeAlias = Annotated[Mapping[str, Any], Special(_check_selector, {"type": "object"})]
Unavailable: TypeAlias = Annotated[int | str, Special(_check_unavailable, {})]


@dataclass(frozen=True, slots=True)
class NicSelector:
    """Which PFs: all keys that are given must hold."""

    LENIENT: ClassVar = True

    vendor: Annotated[words.PciId | None, Key("PCI vendor id.")] = None
    device_id: Annotated[words.PciId | None, Key("PCI device id of the PF.", name="deviceID")] = None
    root_devices: Annotated[tuple[words.Address, ...], Key("PCI addresses of PFs.")] = ()
    pf_names: Annotated[PfNames, Key("Names of PFs, with `#0-3` for some of the VFs.")] = ()
    net_filter: Annotated[str | None, Key("Network of a cloud, like `openstack/NetworkID:UUID`.")] = None

    def checked(self) -> Self:
        """Raise ValueError for a selector that the operator refuses."""
        others = self.vendor or self.device_id or self.root_devices or self.pf_names
        if not others and not self.net_filter:
            raise ValueError("selects no PF; give vendor, deviceID, rootDevices, pfNames or netFilter")
        if others and self.net_filter:
            raise ValueError("netFilter stands alone; remove the other keys")
        return self


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """`spec` of a SriovNetworkNodePolicy."""

    LENIENT: ClassVar = True

    resource_name: Annotated[Resource, Key("Name of the resource.")]
    num_vfs: Annotated[NumVfs, Key("VFs of each PF.")]
    nic_selector: Annotated[NicSelector, Key("Which PFs.")]
    node_selector: Annotated[Labels, Key("Labels of the nodes, all of them.")] = field(
        default_factory=lambda: NO_LABELS
    )
    priority: Annotated[Priority, Key("0 is the highest.")] = LOWEST_PRIORITY
    mtu: Annotated[words.Mtu | None, Key("MTU of the VFs.")] = None
    device_type: Annotated[Literal["netdevice", "vfio-pci"], Key("Driver of the VFs.")] = "netdevice"
    is_rdma: Annotated[bool, Key("RDMA devices.")] = False
    need_vhost_net: Annotated[bool, Key("Containers get `/dev/vhost-net`.")] = False
    exclude_topology: Annotated[bool, Key("No NUMA node for the kubelet.")] = False
    link_type: Annotated[LinkType | None, Key("`eth` or `ib`.")] = None
    eswitch_mode: Annotated[words.EswitchMode | None, Key("Mode of the e-switch.", name="eSwitchMode")] = None
    vdpa_type: Annotated[Literal["virtio", "vhost"] | None, Key("Kind of vDPA device.")] = None
    externally_managed: Annotated[bool, Key("Something else makes the VFs.")] = False
    bridge: Annotated[Anything | None, Key("Open vSwitch bridge for the PF.")] = None

    def checked(self) -> Self:
        """Raise ValueError with all rules that are broken. An InfiniBand policy for the kernel's driver is for RDMA."""
        if broken := [*self._list_broken()]:
            raise ValueError("; ".join(broken))
        is_ib = (self.link_type or "").lower() == "ib" and self.device_type != "vfio-pci"
        return replace(self, is_rdma=True) if is_ib else self

    def _list_broken(self) -> list[str]:
        is_ib, switchdev = (self.link_type or "").lower() == "ib", self.eswitch_mode == "switchdev"
        cloud = self.nic_selector.net_filter
        rules = (
            (self.device_type == "vfio-pci" and self.is_rdma, "isRdma is not for deviceType vfio-pci; remove one"),
            (switchdev and is_ib, "eSwitchMode switchdev is for linkType eth only"),
            (self.vdpa_type and self.device_type != "netdevice", "vdpaType is for deviceType netdevice only"),
            (self.vdpa_type and not switchdev, "vdpaType needs eSwitchMode: switchdev"),
            (self.vdpa_type and self.is_rdma, "isRdma and vdpaType exclude each other; remove one"),
            (self.bridge and not switchdev, "bridge needs eSwitchMode: switchdev"),
            (self.bridge and self.externally_managed, "bridge is not for a PF that is externallyManaged"),
            (cloud and (self.eswitch_mode or self.bridge or is_ib), "netFilter goes with no eSwitchMode, bridge, ib"),
        )
        beyond = [
            f"nicSelector.pfNames: VF {entry.indices.last} of {entry} will not exist: numVfs is {self.num_vfs}"
            for entry in self.nic_selector.pf_names
            if self.num_vfs and entry.indices is not None and entry.indices.last >= self.num_vfs
        ]
        return [sentence for broken, sentence in rules if broken] + beyond


@dataclass(frozen=True, slots=True)
class PoolConfigSpec:
    """`spec` of a SriovNetworkPoolConfig."""

    LENIENT: ClassVar = True

    ovs_hardware_offload_config: Annotated[Anything | None, Key("OpenShift's machine config pool.")] = None
    node_selector: Annotated[NodeSelector | None, Key("LabelSelector of the nodes.")] = None
    max_unavailable: Annotated[Unavailable | None, Key("Nodes that are drained at a time.")] = None
    rdma_mode: Annotated[Literal["shared", "exclusive"] | None, Key("RDMA subsystem's mode.")] = None


@dataclass(frozen=True, slots=True)
class OperatorConfigSpec:
    """`spec` of the SriovOperatorConfig `default`."""

    LENIENT: ClassVar = True

    config_daemon_node_selector: Annotated[Labels, Key("Nodes of the operator's daemon.")] = field(
        default_factory=lambda: NO_LABELS
    )
    enable_injector: Annotated[bool, Key("Network resources injector.")] = False
    enable_operator_webhook: Annotated[bool, Key("Webhook of the operator.")] = False
    log_level: Annotated[Annotated[int, Number(0, 2, "a log level")] | None, Key("Log level.")] = None
    disable_drain: Annotated[bool, Key("Changes without a drain.")] = False
    enable_ovs_offload: Annotated[bool, Key("OVS hardware offload.")] = False
    configuration_mode: Annotated[Literal["daemon", "systemd"] | None, Key("Who sets up the node.")] = None
    use_cdi: Annotated[bool, Key("Devices through CDI.", name="useCDI")] = False
    disable_plugins: Annotated[tuple[str, ...], Key("Plugins that are off.")] = ()
    feature_gates: Annotated[Anything | None, Key("Feature gates.")] = None
    config_daemon_env_vars: Annotated[Anything | None, Key("Variables of the daemon.")] = None


Vlan: TypeAlias = words.Vlan
Rate: TypeAlias = words.Rate
Qos: TypeAlias = Annotated[int, Number(0, 7, "a VLAN priority")]
OvsVlan: TypeAlias = Annotated[int, Number(0, _MAX_OVS_VLAN, "a VLAN")]
Switch: TypeAlias = Literal["on", "off"]
LinkState: TypeAlias = Literal["auto", "enable", "disable"]
LogLevel: TypeAlias = Literal["panic", "error", "warning", "info", "debug"]


@dataclass(frozen=True, slots=True)
class SriovNetworkSpec:
    """`spec` of a SriovNetwork."""

    LENIENT: ClassVar = True

    resource_name: Annotated[Resource, Key("Name of the resource.")]
    network_namespace: Annotated[words.NodeName | None, Key("Where the network is made.")] = None
    capabilities: Annotated[str | None, Key("JSON text.")] = None
    ipam: Annotated[str | None, Key("JSON text.", name="ipam")] = None
    vlan: Annotated[Vlan, Key("Port VLAN.")] = 0
    vlan_qos: Annotated[Qos, Key("VLAN priority.", name="vlanQoS")] = 0
    vlan_proto: Annotated[Literal["802.1q", "802.1Q", "802.1ad", "802.1AD"] | None, Key("VLAN protocol.")] = None
    spoof_chk: Annotated[Switch | None, Key("Check of source MACs.")] = None
    trust: Annotated[Switch | None, Key("Trust of the VF.")] = None
    link_state: Annotated[LinkState | None, Key("Link state of the VF.")] = None
    min_tx_rate: Annotated[Rate | None, Key("Mbit/s.")] = None
    max_tx_rate: Annotated[Rate | None, Key("Mbit/s.")] = None
    meta_plugins: Annotated[str | None, Key("JSON objects with commas between.", name="metaPlugins")] = None
    log_level: Annotated[LogLevel | None, Key("Log level of the plugin.")] = None
    log_file: Annotated[str | None, Key("Log file of the plugin.")] = None


@dataclass(frozen=True, slots=True)
class SriovIBNetworkSpec:
    """`spec` of a SriovIBNetwork."""

    LENIENT: ClassVar = True

    resource_name: Annotated[Resource, Key("Name of the resource.")]
    network_namespace: Annotated[words.NodeName | None, Key("Where the network is made.")] = None
    capabilities: Annotated[str | None, Key("JSON text.")] = None
    ipam: Annotated[str | None, Key("JSON text.")] = None
    link_state: Annotated[LinkState | None, Key("Link state of the VF.")] = None
    meta_plugins: Annotated[str | None, Key("JSON objects with commas between.")] = None


@dataclass(frozen=True, slots=True)
class Trunk:
    """One entry of `trunk`: a VLAN, or a range of VLANs."""

    min_id: Annotated[OvsVlan | None, Key("First VLAN.", name="minID")] = None
    max_id: Annotated[OvsVlan | None, Key("Last VLAN.", name="maxID")] = None
    id: Annotated[OvsVlan | None, Key("VLAN.")] = None


@dataclass(frozen=True, slots=True)
class OVSNetworkSpec:
    """`spec` of an OVSNetwork."""

    LENIENT: ClassVar = True

    resource_name: Annotated[Resource, Key("Name of the resource.")]
    network_namespace: Annotated[words.NodeName | None, Key("Where the network is made.")] = None
    capabilities: Annotated[str | None, Key("JSON text.")] = None
    ipam: Annotated[str | None, Key("JSON text.")] = None
    meta_plugins: Annotated[str | None, Key("JSON objects with commas between.")] = None
    bridge: Annotated[str | None, Key("Name of the bridge.")] = None
    vlan: Annotated[OvsVlan, Key("VLAN of the port.")] = 0
    mtu: Annotated[Annotated[int, Number(0, 65535, "an MTU")], Key("MTU of the port.")] = 0
    trunk: Annotated[tuple[Trunk, ...], Key("VLANs of a trunk.")] = ()
    interface_type: Annotated[str | None, Key("Type of the OVS interface.")] = None


SPECS: Mapping[str, type] = MappingProxyType(
    {
        "SriovNetworkNodePolicy": PolicySpec,
        "SriovNetworkPoolConfig": PoolConfigSpec,
        "SriovOperatorConfig": OperatorConfigSpec,
        "SriovNetwork": SriovNetworkSpec,
        "SriovIBNetwork": SriovIBNetworkSpec,
        "OVSNetwork": OVSNetworkSpec,
    }
)
"""The kinds of the operator that people write, with their `spec`."""
