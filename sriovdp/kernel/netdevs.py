"""Which netdev is a function's own. The one answer for all that looks below a PCI function or a subfunction.

A folder `net` may hold the representors of a PF's VFs and subfunctions beside its own netdev (switchdev mode), and the
netdev of a virtio function lies one device deeper, in `virtioN/net`. A function may have a netdev for each port of its
NIC (drivers/net/ethernet/mellanox/mlx4/en_netdev.c, mlx4_en_init_netdev); the one of the first port is its own, and
`dev_port` tells them apart. Only netdevs of this network namespace are seen.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sriovdp.kernel.sysfs import Folder, Sysfs, list_names, read_int, read_text
from sriovdp.model import PciAddress, is_pci_address

_UPLINK = re.compile(r"p\d+(s\d+)?")  # names by net/devlink/port.c, __devlink_port_phys_port_name_get
_REPRESENTOR = re.compile(r"(c\d+)?pf\d+(?:(vf|sf)(\d+))?")
_VIRTIO = "virtio"  # drivers/virtio/virtio.c names its devices virtio0, virtio1, …


@dataclass(frozen=True, slots=True)
class Port:
    """A netdev below a function. `port` is its NIC's name for it (`phys_port_name`), empty for most."""

    folder: Folder
    port: str

    @property
    def name(self) -> str:
        """The netdev's name."""
        return self.folder.name

    @property
    def number(self) -> int:
        """Which one it is of a function that has several: its `dev_port`, counted from 0."""
        return read_int(f"{self.folder.path}/dev_port") or 0


def list_ports(function: Folder) -> list[Port]:
    """The netdevs below a function, representors too."""
    found = [f"net/{name}" for name in list_names(f"{function.path}/net")]
    if not found:  # only then, as this lists all that the function has
        for part in list_virtio(function):
            found += [f"{part}/net/{name}" for name in list_names(f"{function.path}/{part}/net")]
    return [Port(function.folder(path), _read_port(f"{function.path}/{path}")) for path in found]


def is_elsewhere(function: Folder) -> bool:
    """Whether a function has a netdev, and none of its netdevs is in this network namespace.

    The kernel makes the folder `net` with the function's first netdev and removes it with the last one, in whatever
    namespace they are (drivers/base/core.c, get_device_parent, cleanup_glue_dir); it lists those of this one only. So a
    driver that has not made its netdev yet has no such folder.
    """
    holders = [function, *map(function.folder, list_virtio(function))]
    return any("net" in holder.names for holder in holders) and not list_ports(function)


def _read_port(netdev: str) -> str:
    return read_text(f"{netdev}/phys_port_name") or ""


def choose_own(ports: Sequence[Port]) -> Folder | None:
    """The function's own netdev: in switchdev mode the uplink."""
    found = _list_own(ports)
    own = found[0] if len(found) == 1 else min(found, key=lambda port: port.number, default=None)
    return own.folder if own else None


def _list_own(ports: Sequence[Port]) -> list[Port]:
    """All netdevs of a function itself: several where it has several ports."""
    own = [port for port in ports if not _REPRESENTOR.fullmatch(port.port)]
    return [port for port in own if _UPLINK.fullmatch(port.port)] or own


def is_uplink(netdev: Folder) -> bool:
    """Whether this is the uplink of an e-switch: in legacy mode the kernel refuses to report a switch id."""
    return bool(netdev.text("phys_switch_id")) and bool(_UPLINK.fullmatch(netdev.text("phys_port_name") or ""))


def list_representors(ports: Sequence[Port]) -> dict[int, str]:
    """Names of representors by VF index; those of another host's VFs, whose controller is not 0, are not ours."""
    found = ((_REPRESENTOR.fullmatch(port.port), port.name) for port in ports)
    return {int(m[3]): name for m, name in found if m and m[2] == "vf" and m[1] in {None, "c0"}}


def find_netdev(sysfs: Sysfs, function: str, number: int | None = None) -> str | None:
    """Name of a function's own netdev, if it is in this network namespace. `function` is a PCI address.

    With a number the netdev of that `dev_port`: the own one may be away, and that of the next port still here.
    Raises DeviceError when there is no such function, KernelError.
    """
    ports = list_ports(Folder(str(sysfs.pci(function))))
    own = choose_own(ports if number is None else [port for port in ports if port.number == number])
    return own.name if own else None


def list_netdevs(sysfs: Sysfs, function: str) -> dict[int, str]:
    """Names of all netdevs of a function itself in this network namespace, by their `dev_port`. Raises as above."""
    return {port.number: port.name for port in _list_own(list_ports(Folder(str(sysfs.pci(function)))))}


def find_pf_netdev(sysfs: Sysfs, vf: str) -> str | None:
    """Name of the own netdev of a VF's PF. Raises as `find_netdev`; None too when this function is no VF."""
    own = choose_own(list_ports(Folder(f"{sysfs.pci(vf)}/physfn")))
    return own.name if own else None


def list_parents(sysfs: Sysfs, function: str) -> frozenset[str]:
    """What IFLA_PARENT_DEV_NAME of a function's netdev may be, wherever it is: its address, or its virtio device."""
    folder = Folder(str(sysfs.pci(function)))
    return frozenset({function, *list_virtio(folder)})


def find_function(sysfs: Sysfs, netdev: str) -> PciAddress | None:
    """PCI address of the function whose own netdev this is; None for a representor, a subfunction and all others."""
    device = sysfs.root / "class/net" / netdev / "device"
    if not device.exists():
        return None
    path = device.resolve()
    function = path.parent if path.name.startswith(_VIRTIO) else path
    if not is_pci_address(function.name):
        return None
    own = choose_own(list_ports(Folder(str(function))))
    return PciAddress(function.name) if own and own.name == netdev else None


def list_virtio(function: Folder) -> list[str]:
    """Names of the virtio devices below a function, in order."""
    return sorted(name for name in function.names if name.startswith(_VIRTIO))
