"""What the config file says, as plain values. Nothing here knows YAML or pydantic; everything is checked already.

In a `PfSelect` and in a `Selector` the values of one field are alternatives, all fields that are given must hold,
and a field that is not given does not filter.
"""

from dataclasses import dataclass
from typing import Literal

from sriovdp.config.ranges import VfIndices
from sriovdp.model import KERNEL_DRIVER, PciAddress, PhysicalFunction

DEFAULT_PREFIX = "intel.com"
"""Domain of a pool's resource when the file names none, as upstream has it."""

MacPolicy = Literal["stable", "keep"]
"""Where a VF's admin MAC comes from: derived from the PF's MAC and the VF's index, or left as it is."""


@dataclass(frozen=True, slots=True)
class PfSelect:
    """Which PFs an entry of `physicalFunctions` is about. At least one field is given."""

    pf_names: tuple[str, ...] = ()
    pci_addresses: tuple[PciAddress, ...] = ()
    vendors: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    def matches(self, pf: PhysicalFunction) -> bool:
        """Say whether this PF is meant. A PF without a netdev here has no name and matches no `pf_names`."""
        name = pf.netdev.name if pf.netdev else None
        return (
            (not self.pf_names or name in self.pf_names)
            and (not self.pci_addresses or pf.address in self.pci_addresses)
            and (not self.vendors or pf.vendor in self.vendors)
            and (not self.devices or pf.device in self.devices)
        )


@dataclass(frozen=True, slots=True)
class VfConfig:
    """What the VFs of one range shall be. `driver` is `kernel` or the name of a driver, like `vfio-pci`."""

    indices: VfIndices
    driver: str = KERNEL_DRIVER
    mac: MacPolicy = "stable"


@dataclass(frozen=True, slots=True)
class PfConfig:
    """One entry of `physicalFunctions`: which PFs to split, into how many VFs, and what these shall be."""

    select: PfSelect
    num_vfs: int | Literal["max"]
    vfs: tuple[VfConfig, ...] = ()

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
class Selector:
    """One object of `selectors`. Without any field it takes every VF of the node."""

    vendors: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    pci_addresses: tuple[PciAddress, ...] = ()
    pf_names: tuple[PfName, ...] = ()


@dataclass(frozen=True, slots=True)
class Pool:
    """One entry of `resourceList`: a resource of the kubelet. `selectors` are alternatives; there is at least one."""

    name: str
    selectors: tuple[Selector, ...]
    prefix: str = DEFAULT_PREFIX
    exclude_topology: bool = False

    @property
    def resource(self) -> str:
        """What a pod asks for, like `intel.com/sriov`."""
        return f"{self.prefix}/{self.name}"


@dataclass(frozen=True, slots=True)
class Config:
    """The whole config file. Entries are in file order: the first that matches a PF or a VF has it."""

    physical_functions: tuple[PfConfig, ...] = ()
    pools: tuple[Pool, ...] = ()

    def find_pf(self, pf: PhysicalFunction) -> PfConfig | None:
        """The entry of `physicalFunctions` for this PF: the first that selects it, None when it is left alone."""
        return next((entry for entry in self.physical_functions if entry.select.matches(pf)), None)
