"""What the agent knows of a node: PCI functions, VFs with their settings, and the devices of a pool.

Values only, no I/O. A `Node` is one immutable snapshot; code that is about to change something takes a fresh one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

from sriovdp.errors import DeviceError

ZERO_MAC = "00:00:00:00:00:00"

KERNEL_DRIVER = "kernel"
"""The config's word for a VF's own netdev driver, whatever its name is on this NIC."""

NO_DRIVER = "none"
"""The config's word for no driver at all."""

USERSPACE_DRIVERS = frozenset({"vfio-pci", "igb_uio", "uio_pci_generic"})
"""Drivers that hand a VF to a program in user space: the VF then has no netdev. See `is_userspace`."""

_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")


def is_vfio(driver: str | None) -> bool:
    """Whether a driver is vfio-pci, or a variant of it for one family of devices, like `mlx5_vfio_pci`.

    Variants are built on the same core (drivers/vfio/pci/*/: mlx5, hisilicon, pds, qat, virtio, nvgrace-gpu), so a
    program reaches the device in the same way; their names end in the same words.
    """
    return driver is not None and driver.replace("-", "_").endswith("vfio_pci")


def is_userspace(driver: str | None) -> bool:
    """Whether a driver hands a function to a program in user space or to a virtual machine."""
    return driver in USERSPACE_DRIVERS or is_vfio(driver)


class PciAddress(str):
    """A PCI address as sysfs writes it: domain:bus:device.function in lower-case hex, `0000:3b:02.6`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address in any case, with or without the domain (then `0000`).

        Raises DeviceError when the text is no PCI address.
        """
        full = text.strip().lower()
        if full.count(":") == 1:
            full = f"0000:{full}"
        if not _PCI_ADDRESS.fullmatch(full):
            raise DeviceError(f"{text!r} is no PCI address", hint="write it like 0000:3b:02.6")
        return cls(full)


def is_pci_address(text: str) -> bool:
    """Say whether a text is a PCI address in the form of sysfs."""
    return _PCI_ADDRESS.fullmatch(text) is not None


def name_vf(pf: str, index: int, address: str) -> str:
    """A VF in messages: `eth0 VF 3 (0000:3b:02.3)`."""
    return escape_unprintable(f"{pf} VF {index} ({address})")


def name_container(args: str, container_id: str, ifname: str) -> str:
    """A container's interface in messages, by its CNI_ARGS: `pod default/web (container 0123456789ab) net1`.

    Without a pod it is `container 0123456789ab net1`. Twelve characters of an ID are what `crictl ps` finds it by.
    """
    container = f"container {container_id[:12]}" if container_id else ""
    pod = find_pod(args)
    parts = (f"pod {pod}" if pod else "", f"({container})" if pod and container else container, ifname)
    return escape_unprintable(" ".join(part for part in parts if part))


def find_pod(args: str) -> str:
    """Namespace and name of the pod in CNI_ARGS, like `default/web`; empty for a runtime that names none."""
    values = split_args(args)
    name = values.get("K8S_POD_NAME", "")
    return f"{values.get('K8S_POD_NAMESPACE') or 'default'}/{name}" if name else ""


def split_args(args: str) -> dict[str, str]:
    """Names and values of CNI_ARGS, `K8S_POD_NAMESPACE=default;K8S_POD_NAME=web`; what is no pair is left out."""
    return dict(pair.split("=", 1) for pair in args.split(";") if "=" in pair)


def escape_unprintable(text: str) -> str:
    r"""The text as it may go to a terminal: an interface's name may hold an escape character, which becomes `\x1b`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


_SETTING_GROUPS = (
    ("vlan", "qos", "vlan_proto"),
    ("mac",),
    ("min_tx_rate", "max_tx_rate"),
    ("spoofchk",),
    ("trust",),
    ("link_state",),
)


@dataclass(frozen=True, slots=True)
class VfSettings:
    """A VF's settings as the PF holds them (`ip link show PF`, IFLA_VFINFO_LIST of linux/if_link.h).

    Rates are Mbit/s, 0 is unlimited; `vlan` 0 is no port VLAN; `vlan_proto` is `802.1Q` or `802.1ad`;
    `link_state` is `auto`, `enable` or `disable`. The GUIDs are those of an InfiniBand VF, 8 bytes written as a MAC is;
    they are never changed back. None: this NIC does not report it.
    """

    mac: str
    vlan: int = 0
    qos: int = 0
    vlan_proto: str = "802.1Q"
    spoofchk: bool | None = None
    trust: bool | None = None
    link_state: str | None = None
    min_tx_rate: int = 0
    max_tx_rate: int = 0
    node_guid: str | None = None
    port_guid: str | None = None

    def changes_to(self, wanted: "VfSettings") -> dict[str, Any]:
        """What has to be set to get from these settings to the wanted ones; None in `wanted` is left alone.

        VLAN, QoS and protocol come together, as do the two rates: the kernel sets each group as a whole.
        """
        changes: dict[str, Any] = {}
        for group in _SETTING_GROUPS:
            values = {name: getattr(wanted, name) for name in group}
            if any(value not in (None, getattr(self, name)) for name, value in values.items()):
                changes |= values
        return changes


@dataclass(frozen=True, slots=True)
class NetDevice:
    """A network interface of the host's network namespace. `carrier` is None while the interface is down.

    `permanent_mac` is the one that the NIC came with, whatever a bond made of `mac`; empty where that is not known.
    `altnames` are its other names; a recorded node has none.
    """

    name: str
    ifindex: int
    mac: str
    mtu: int
    up: bool
    carrier: bool | None
    permanent_mac: str = ""
    altnames: tuple[str, ...] = ()

    @property
    def own_mac(self) -> str:
        """The MAC by which this NIC is known."""
        return self.permanent_mac or self.mac


@dataclass(frozen=True, slots=True)
class RdmaDevice:
    """An RDMA device with the paths of its character devices; None where it has none. `cm` serves all of a node."""

    name: str
    uverbs: str | None = None
    umad: str | None = None
    issm: str | None = None
    ucm: str | None = None
    cm: str | None = None


@dataclass(frozen=True, slots=True)
class VdpaDevice:
    """A vDPA device: `kind` is `vhost` or `virtio` after its bus driver, `node` like `/dev/vhost-vdpa-0` for vhost."""

    name: str
    kind: str | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Traits:
    """What selectors ask of a function beside its ids, and what a container may need of it.

    `link_type` is `ether` or `infiniband`, None where no netdev is here to ask. `guid` is that of an InfiniBand PF's
    port, like `02:00:00:00:00:00:00:01`, `p_key` the default partition key. `is_rdma` holds too while the RDMA device
    is in a pod's namespace; `soft_rdma` are names of soft RoCE devices on its netdev. `noiommu`: its VFIO group is one
    without an IOMMU. `host_use` says what this host itself needs the function for, empty when for nothing; `addressed`
    says that this is no more than an address.
    """

    acpi_index: str | None = None
    link_type: str | None = None
    ddp_profile: str | None = None
    guid: str | None = None
    p_key: str | None = None
    is_rdma: bool = False
    rdma: tuple[RdmaDevice, ...] = ()
    soft_rdma: tuple[str, ...] = ()
    vdpa: tuple[VdpaDevice, ...] = ()
    noiommu: bool = False
    host_use: str = ""
    addressed: bool = False


NO_TRAITS = Traits()


@dataclass(frozen=True, slots=True)
class Subfunction:
    """A scalable function: an auxiliary device that a PF's driver made, like `mlx5_core.sf.4`.

    `kind` is the middle part of its name, `index` the number it was created with (`sfnum`).
    """

    name: str
    kind: str
    index: int
    pf_address: PciAddress
    driver: str | None = None
    numa_node: int | None = None
    netdev: NetDevice | None = None
    traits: Traits = NO_TRAITS


@dataclass(frozen=True, slots=True)
class VirtualFunction:
    """One VF of a PF. `netdev` is None when no driver made one, and when it is in another network namespace.

    `is_elsewhere`: it is in another network namespace.

    `settings` is None when the PF has no netdev here to ask, when the PF's driver has no settings of VFs, and when the
    kernel could not read those of this VF: see `PhysicalFunction.unread`. `iommu_group` and `numa_node` are None when
    there is none. `uio` is the name of its UIO device, like `uio0`; `representor` that of the netdev that stands for
    it on the host in switchdev mode.
    """

    address: PciAddress
    pf_address: PciAddress
    index: int
    vendor: str
    device: str
    driver: str | None = None
    iommu_group: int | None = None
    numa_node: int | None = None
    netdev: NetDevice | None = None
    is_elsewhere: bool = False
    settings: VfSettings | None = None
    uio: str | None = None
    representor: str | None = None
    traits: Traits = NO_TRAITS


@dataclass(frozen=True, slots=True)
class Eswitch:
    """How a PF's e-switch is set. `mode` is `legacy`, `switchdev`, or `mode N` for one that is not known here.

    `inline` and `encap` are the numbers of DEVLINK_ESWITCH_INLINE_MODE_* and _ENCAP_MODE_*, None where the driver does
    not have them.
    """

    mode: str
    inline: int | None = None
    encap: int | None = None


@dataclass(frozen=True, slots=True)
class PhysicalFunction:
    """A network PCI function, or an accelerator, that is no VF here; in a virtual machine it may be one of the host's.

    `total_vfs` is 0 when its driver cannot split it. `bridges` are the PCI bridges above it, the root port first.
    `eswitch` is None where devlink reports none, or none is known: of a recorded node, and without root.
    `vf_device`, `vf_offset` and `vf_stride` are what its SR-IOV capability says of VFs to come; None when not known.
    `sets_vfs` is False when its driver has no settings of VFs at all, as with virtio; True too when that is not known.
    """

    address: PciAddress
    vendor: str
    device: str
    driver: str | None = None
    numa_node: int | None = None
    netdev: NetDevice | None = None
    total_vfs: int = 0
    autoprobe: bool = True
    vfs: tuple[VirtualFunction, ...] = ()
    iommu_group: int | None = None
    uio: str | None = None
    bridges: tuple[PciAddress, ...] = ()
    switchdev: bool = False
    eswitch: Eswitch | None = None
    sfs: tuple[Subfunction, ...] = ()
    vf_device: str | None = None
    vf_offset: int | None = None
    vf_stride: int | None = None
    traits: Traits = NO_TRAITS
    sets_vfs: bool = True

    @property
    def unread(self) -> "tuple[VirtualFunction, ...]":
        """VFs that have settings, which could not be read at this instant, as drivers do not for a VF in reset."""
        is_asked = self.netdev is not None and self.sets_vfs
        return tuple(vf for vf in self.vfs if is_asked and vf.settings is None)

    def vf_address(self, index: int) -> PciAddress | None:
        """Address of a VF, also before it is created; None when the SR-IOV capability is not known.

        Its routing id is the PF's + offset + stride x index (PCI Express Base Specification, SR-IOV capability).
        """
        if self.vf_offset is None or self.vf_stride is None:
            return None
        domain, bus, place = self.address.split(":")
        device, function = place.split(".")
        number = (int(bus, 16) << 8 | int(device, 16) << 3 | int(function)) + self.vf_offset + self.vf_stride * index
        return PciAddress(f"{domain}:{number >> 8:02x}:{number >> 3 & 31:02x}.{number & 7}")

    @property
    def name(self) -> str:
        """The netdev's name, or the PCI address when there is none: its name in messages."""
        return self.netdev.name if self.netdev else str(self.address)


RdmaMode: TypeAlias = Literal["shared", "exclusive"]
"""Whether each network namespace can use the RDMA devices of a node, or each device is in one of them."""


@dataclass(frozen=True, slots=True)
class Node:
    """The network PCI functions of this node at one instant, and its accelerators, in order of their addresses.

    `rdma_mode` is None where the kernel has no RDMA, or knows no modes.
    """

    pfs: tuple[PhysicalFunction, ...] = ()
    accelerators: tuple[PhysicalFunction, ...] = ()
    rdma_mode: RdmaMode | None = None

    def vfs(self) -> Iterator[tuple[PhysicalFunction, VirtualFunction]]:
        """Each network VF of the node with its PF, in order of PF address and VF index."""
        for pf in self.pfs:
            for vf in pf.vfs:
                yield pf, vf

    def find_vf(self, address: str) -> tuple[PhysicalFunction, VirtualFunction]:
        """Look a VF up by its PCI address. Raises DeviceError when the node has no such VF."""
        for pf, vf in self.vfs():
            if vf.address == address:
                return pf, vf
        raise DeviceError(f"{address} is no VF of this node", hint="`sriovdp discover` lists the VFs there are")


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A character device a container gets. `permissions` is a subset of `rwm` (cgroup device access)."""

    host_path: str
    container_path: str
    permissions: str = "rw"


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the host that a container gets."""

    host_path: str
    container_path: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a device that is offered: the condition that it does not meet, and the reason.

    Without `is_fatal` it is a warning, and pods get the device all the same.
    """

    condition: str
    reason: str
    is_fatal: bool = True


@dataclass(frozen=True, slots=True)
class PoolDevice:
    """A device as it is offered to the kubelet; `reason` says why it is not healthy.

    `faults` are all that is wrong with it. `id` is the PCI address, for a subfunction the name of the auxiliary device.
    `label` is `name`, empty where the PF is not known.
    """

    id: str
    numa_node: int | None = None
    healthy: bool = True
    reason: str = ""
    label: str = field(default="", compare=False)
    faults: tuple[Fault, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """Its name in messages, with that of its PF where it is known."""
        return self.label or self.id
