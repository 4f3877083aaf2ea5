"""Which VF a network of 2017 means: the one of the index, or the first free one of the PF."""

from cni.protocol.keys_2017 import Keys2017
from cni.protocol.spec import INVALID_CONFIG
from cni.vf.settings import find_netdev
from sriovdp.errors import CniError, DeviceError
from sriovdp.kernel.host_use import find_host_use
from sriovdp.kernel.netdevs import find_function, find_pf_netdev
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs, list_names, read_link
from sriovdp.model import PciAddress


def list_candidates(sysfs: Sysfs, netlink: Netlink, wanted: Keys2017) -> list[PciAddress]:
    """The VFs that may be taken, in order of their indices: with an index that one, else those on the host.

    A VF is on the host when its netdev is, and nothing of the host's own network is on it. Whether it belongs to
    another attachment is for the journal to say. Raises DeviceError when the PF has no VFs, or not that one.
    """
    vfs = list_vfs(sysfs, wanted.pf or "")
    if wanted.vf is not None:
        if wanted.vf not in vfs:
            raise DeviceError(
                f"{wanted.pf} has no VF {wanted.vf}: it has {len(vfs)}", hint="correct `vf`, or create more VFs"
            )
        return [vfs[wanted.vf]]
    return [address for _, address in sorted(vfs.items()) if _is_unused(sysfs, netlink, address)]


def list_vfs(sysfs: Sysfs, pf: str) -> dict[int, PciAddress]:
    """The VFs of a PF by their indices. Raises DeviceError when there is no such PF, or it has none."""
    function = find_function(sysfs, pf)
    if function is None:
        raise DeviceError(f"there is no PF {pf} (if0)", hint="`sriovdp discover` lists the PFs there are")
    folder = sysfs.pci(function)
    links = [name for name in list_names(folder) if name.startswith("virtfn")]
    vfs = {int(name.removeprefix("virtfn")): PciAddress(read_link(folder / name) or "") for name in links}
    if not vfs:
        raise DeviceError(f"{pf} (if0) has no VFs", hint="give it some in the config's physicalFunctions")
    return vfs


def check_pf(sysfs: Sysfs, device: PciAddress, wanted: Keys2017) -> None:
    """Raise CniError when the VF that the device plugin gave is of another PF than the configuration says."""
    name = find_pf_netdev(sysfs, device)
    if name and wanted.pf not in {None, name}:
        raise CniError(
            INVALID_CONFIG,
            f"deviceID {device} is a VF of {name}, but if0 is {wanted.pf}",
            hint="leave if0 out, or let resourceName be a pool of that PF",
        )


def _is_unused(sysfs: Sysfs, netlink: Netlink, address: PciAddress) -> bool:
    device = find_netdev(sysfs, netlink, address)
    return device is not None and not find_host_use(sysfs, device)
