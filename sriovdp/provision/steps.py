"""What can be done to a node to bring it to its config, as values: one class for each kind of step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from sriovdp.model import KERNEL_DRIVER, NO_DRIVER, PciAddress, RdmaMode, name_vf

_SETTING_NAMES = {"vlan": "VLAN", "min_tx_rate": "min rate", "max_tx_rate": "max rate", "mac": "admin MAC"}


@dataclass(frozen=True, slots=True)
class PfStep:
    """A step at a PF. `disturbs` says what goes or stops for a while when it is done; empty when nothing does."""

    action: ClassVar[str]
    pf: PciAddress
    pf_name: str
    reason: str

    @property
    def disturbs(self) -> str:
        """Whom or what this disturbs."""
        return ""


@dataclass(frozen=True, slots=True)
class SetLink(PfStep):
    """Set a PF's netdev up or down."""

    action: ClassVar[str] = "set_link"
    up: bool = True

    def __str__(self) -> str:
        return f"{self.pf_name}: set the link {'up' if self.up else 'down'}"


@dataclass(frozen=True, slots=True)
class SetMtu(PfStep):
    """Set the MTU of a PF's netdev, in bytes."""

    action: ClassVar[str] = "set_mtu"
    current: int
    wanted: int

    def __str__(self) -> str:
        return f"{self.pf_name}: set MTU {self.wanted}"

    @property
    def disturbs(self) -> str:
        """Many NICs reset for a new MTU."""
        return "its link for some seconds with most NICs"


@dataclass(frozen=True, slots=True)
class SetNumVfs(PfStep):
    """Change a PF's number of VFs. All VFs that are there now go."""

    action: ClassVar[str] = "set_num_vfs"
    current: int
    wanted: int

    def __str__(self) -> str:
        doing = [f"remove its {_count(self.current)}"] if self.current else []
        doing += [f"create {_count(self.wanted)}"] if self.wanted else []
        return f"{self.pf_name}: {' and '.join(doing)}"

    @property
    def disturbs(self) -> str:
        """The NIC resets its PF."""
        link = "its link for some seconds with most NICs"
        return f"its {_count(self.current)}, and {link}" if self.current else link


@dataclass(frozen=True, slots=True)
class SetEswitchMode(PfStep):
    """Set the mode of a PF's e-switch, and after it its inline and encap mode, where these are not None.

    `vfs` are made by steps that follow. With `current` and `wanted` the same it is about inline and encap mode only.
    """

    action: ClassVar[str] = "set_eswitch_mode"
    current: str
    wanted: str
    inline: int | None
    encap: int | None
    vfs: int

    def __str__(self) -> str:
        what = "mode" if self.current != self.wanted else "inline and encap mode back in mode"
        return f"{self.pf_name}: set e-switch {what} {self.wanted}"

    @property
    def disturbs(self) -> str:
        """The driver sets its PF up again."""
        return "its link for some seconds with some NICs"


@dataclass(frozen=True, slots=True)
class SetAutoprobe(PfStep):
    """Say whether the kernel gives new VFs of a PF to their drivers by itself (`sriov_drivers_autoprobe`)."""

    action: ClassVar[str] = "set_autoprobe"
    wanted: bool

    def __str__(self) -> str:
        return f"{self.pf_name}: switch drivers' autoprobe {'on' if self.wanted else 'off'}"


@dataclass(frozen=True, slots=True)
class VfStep(PfStep):
    """A step at a VF. `address` is None for a VF that is still to be created."""

    index: int
    address: PciAddress | None

    @property
    def vf_name(self) -> str:
        """The VF's name in messages."""
        return name_vf(self.pf_name, self.index, self.address) if self.address else f"{self.pf_name} VF {self.index}"


@dataclass(frozen=True, slots=True)
class SetAdminMac(VfStep):
    """Set a VF's admin MAC through its PF. `derived`: this program made it; that a driver takes none is no error."""

    action: ClassVar[str] = "set_admin_mac"
    current: str | None
    wanted: str
    derived: bool = False

    def __str__(self) -> str:
        return f"{self.vf_name}: set admin MAC {self.wanted}"


@dataclass(frozen=True, slots=True)
class SetVfMac(VfStep):
    """Give a VF's own netdev its MAC, where the PF takes no admin MAC. It is done after the VF is bound."""

    action: ClassVar[str] = "set_vf_mac"
    current: str | None
    wanted: str

    def __str__(self) -> str:
        return f"{self.vf_name}: set MAC {self.wanted} of its netdev"


@dataclass(frozen=True, slots=True)
class SetGuid(VfStep):
    """Give an InfiniBand VF that has none its node GUID and its port GUID, which are the same."""

    action: ClassVar[str] = "set_guid"
    wanted: str

    def __str__(self) -> str:
        return f"{self.vf_name}: set GUID {self.wanted}"


@dataclass(frozen=True, slots=True)
class SetVf(VfStep):
    """Set something else of a VF through its PF. `changes` has names and values of VfSettings."""

    action: ClassVar[str] = "set_vf"
    changes: Mapping[str, int | bool | str]

    def __str__(self) -> str:
        said = ", ".join(f"{_SETTING_NAMES.get(name, name)} {_write(value)}" for name, value in self.changes.items())
        return f"{self.vf_name}: set {said}"


@dataclass(frozen=True, slots=True)
class BindDriver(VfStep):
    """Bind a VF to a driver; `wanted` is `kernel`, `none` or a driver's name.

    With `again` the VF is unbound from its driver and bound to the same one. `noiommu`: vfio-pci may have it without an
    IOMMU.
    """

    action: ClassVar[str] = "bind_driver"
    current: str | None
    wanted: str
    again: bool = False
    noiommu: bool = False

    def __str__(self) -> str:
        if self.wanted == NO_DRIVER:
            return f"{self.vf_name}: unbind from {self.current}"
        target = "its kernel driver" if self.wanted == KERNEL_DRIVER else self.wanted
        return f"{self.vf_name}: bind to {target}{' again' if self.again else ''}"

    @property
    def disturbs(self) -> str:
        """What the driver of now made is gone then."""
        return f"what {self.current} made of it" if self.current else ""


@dataclass(frozen=True, slots=True)
class SetVfMtu(VfStep):
    """Set the MTU of a VF's netdev, in bytes. It is done after the VF is bound; `current` is None before."""

    action: ClassVar[str] = "set_vf_mtu"
    current: int | None
    wanted: int

    def __str__(self) -> str:
        return f"{self.vf_name}: set MTU {self.wanted}"


@dataclass(frozen=True, slots=True)
class ClearOverride(VfStep):
    """Clear the `driver_override` that an interrupted apply left on a VF."""

    action: ClassVar[str] = "clear_override"

    def __str__(self) -> str:
        return f"{self.vf_name}: clear driver_override"


@dataclass(frozen=True, slots=True)
class SetRdmaMode:
    """Set the RDMA mode, which is the node's and no PF's."""

    action: ClassVar[str] = "set_rdma_mode"
    disturbs: ClassVar[str] = ""
    reason: str
    current: RdmaMode
    wanted: RdmaMode

    def __str__(self) -> str:
        return f"node: set RDMA mode {self.wanted}"


Step: TypeAlias = (
    SetLink
    | SetMtu
    | SetNumVfs
    | SetEswitchMode
    | SetAutoprobe
    | SetAdminMac
    | SetGuid
    | SetVf
    | BindDriver
    | SetVfMtu
    | SetVfMac
    | ClearOverride
)


def count_steps(number: int) -> str:
    """A number of steps in words."""
    return f"{number} step{'' if number == 1 else 's'}"


def _count(vfs: int) -> str:
    return f"{vfs} VF{'s' if vfs > 1 else ''}"


def _write(value: int | bool | str) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
