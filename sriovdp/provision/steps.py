"""What can be done to a node to bring it to its config, as values: one class for each kind of step."""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from sriovdp.model import PciAddress


@dataclass(frozen=True, slots=True)
class SetLinkUp:
    """Set a PF's netdev up."""

    action: ClassVar[str] = "set_link_up"
    pf: PciAddress
    pf_name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.pf_name}: set the link up"


@dataclass(frozen=True, slots=True)
class SetNumVfs:
    """Change a PF's number of VFs. All VFs that are there now go."""

    action: ClassVar[str] = "set_num_vfs"
    pf: PciAddress
    pf_name: str
    current: int
    wanted: int
    reason: str

    def __str__(self) -> str:
        doing = [f"remove its {_count(self.current)}"] if self.current else []
        doing += [f"create {_count(self.wanted)}"] if self.wanted else []
        return f"{self.pf_name}: {' and '.join(doing)}"


@dataclass(frozen=True, slots=True)
class SetAdminMac:
    """Set a VF's admin MAC through its PF. `address` is None for a VF that is still to be created."""

    action: ClassVar[str] = "set_admin_mac"
    pf: PciAddress
    pf_name: str
    index: int
    address: PciAddress | None
    current: str | None
    wanted: str
    reason: str

    def __str__(self) -> str:
        return f"{_name_vf(self.pf_name, self.index, self.address)}: set admin MAC {self.wanted}"


@dataclass(frozen=True, slots=True)
class BindDriver:
    """Bind a VF to a driver; `wanted` is `kernel` or a driver's name.

    With `again` the VF is unbound from its driver and bound to the same one. `address` as in SetAdminMac.
    """

    action: ClassVar[str] = "bind_driver"
    pf: PciAddress
    pf_name: str
    index: int
    address: PciAddress | None
    current: str | None
    wanted: str
    reason: str
    again: bool = False

    def __str__(self) -> str:
        target = "its kernel driver" if self.wanted == "kernel" else self.wanted
        doing = f"bind to {target}{' again' if self.again else ''}"
        return f"{_name_vf(self.pf_name, self.index, self.address)}: {doing}"


VfStep: TypeAlias = SetAdminMac | BindDriver
Step: TypeAlias = SetLinkUp | SetNumVfs | VfStep


def _name_vf(pf_name: str, index: int, address: PciAddress | None) -> str:
    return f"{pf_name} VF {index}" + (f" ({address})" if address else "")


def _count(vfs: int) -> str:
    return f"{vfs} VF{'s' if vfs > 1 else ''}"
