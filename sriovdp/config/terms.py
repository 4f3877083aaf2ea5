"""Values of the config file that are one word there and more here."""

from dataclasses import dataclass
from typing import Literal, Self, TypeAlias, get_args

from sriovdp.config.ranges import VfIndices
from sriovdp.model import PciAddress

DeviceType: TypeAlias = Literal["netDevice", "accelerator", "auxNetDevice"]
"""What a pool offers: network functions, accelerators (PCI class 0x12), or subfunctions of network functions."""

VdpaType: TypeAlias = Literal["vhost", "virtio"]

HealthCondition: TypeAlias = Literal[
    "driver",
    "deviceNodes",
    "rdmaDevice",
    "pfPresent",
    "pfUp",
    "pfCarrier",
    "iommuGroup",
    "pcieErrors",
    "pcieCorrectableErrors",
]
"""What a device must have to be healthy.

A driver its pool takes; its device nodes; its RDMA device; a PF whose netdev is here; PF up; PF with link; an IOMMU
group that a program can open; no PCIe errors lately, of its own and of its PF: uncorrectable ones, correctable ones.
"""

HealthAction: TypeAlias = Literal["ignore", "warn", "unhealthy"]
"""What becomes of a device that lacks a condition: nothing, a warning, or no pod gets it."""

Order: TypeAlias = Literal["packed", "spread", "samePF", "distinctPF"]
"""How devices of one container are picked: fill a PF first, take turns among PFs, all of one PF, each of another."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Which devices to prefer for a container: with `numa`, of as few NUMA nodes as can be; among those by `order`."""

    numa: bool = True
    order: Order = "packed"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `numa`, an order like `spread`, or both like `numa+spread`. Raises ValueError with a sentence."""
        numa, rest = ("numa", text.removeprefix("numa").removeprefix("+")) if text.startswith("numa") else ("", text)
        match rest:
            case "packed" | "spread" | "samePF" | "distinctPF":
                return cls(bool(numa), rest)
            case "" if text == "numa":
                return cls(True)
        orders = ", ".join(get_args(Order))
        raise ValueError(f"allowed here: one of {orders}; before it `numa+` to stay on one NUMA node if possible")

    def __str__(self) -> str:
        return f"numa+{self.order}" if self.numa else self.order


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
