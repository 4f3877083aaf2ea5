"""Which netdev of the host stands for a VF: known by its PF and the VF's index, never by its name."""

from sriovdp.kernel.device_name import find_vf_index
from sriovdp.kernel.netdevs import list_ports, list_representors
from sriovdp.kernel.sysfs import Folder, Sysfs


def find_representor(sysfs: Sysfs, vf: str) -> str | None:
    """Its name; None in legacy mode, and when there is no such VF (any more). Raises KernelError."""
    pf = f"{sysfs.root}/bus/pci/devices/{vf}/physfn"
    index = find_vf_index(pf, vf)
    return None if index is None else list_representors(list_ports(Folder(pf))).get(index)
