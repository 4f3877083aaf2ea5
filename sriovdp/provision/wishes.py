"""What the config wants of one PF and of each of its VFs, as far as that PF can have it. No I/O."""

from dataclasses import replace

from sriovdp.config.values import PfConfig, VfConfig
from sriovdp.errors import DeviceError
from sriovdp.kernel.abilities import BIFURCATED
from sriovdp.model import KERNEL_DRIVER, USERSPACE_DRIVERS, PhysicalFunction


def find_fault(pf: PhysicalFunction, entry: PfConfig) -> DeviceError | None:
    """Why a PF cannot be as the config says, whatever is done."""
    try:
        count_vfs(pf, entry)
    except DeviceError as error:
        return error
    return None


def count_vfs(pf: PhysicalFunction, entry: PfConfig) -> int:
    """How many VFs a PF has to have. Raises DeviceError when it cannot have as many."""
    if entry.externally_managed:
        return len(pf.vfs)
    wanted = pf.total_vfs if entry.num_vfs == "max" else entry.num_vfs
    if entry.num_vfs != 0 and pf.total_vfs == 0:
        raise DeviceError(
            f"{pf.name} ({pf.address}): splitting into VFs failed: its driver {pf.driver or '(none)'} offers no SR-IOV",
            hint="switch SR-IOV on in the machine's and the NIC's firmware, or take this PF out of physicalFunctions",
        )
    if wanted > pf.total_vfs:
        raise DeviceError(
            f"{pf.name} ({pf.address}): splitting into {wanted} VFs failed: it can have at most {pf.total_vfs}",
            hint=f"write numVfs: {pf.total_vfs} or max, or raise the limit in the NIC's firmware settings",
        )
    return wanted


def find_wish(pf: PhysicalFunction, entry: PfConfig, index: int) -> VfConfig:
    """What a VF should be: with a PF whose driver serves user space too it stays on its kernel driver."""
    wish = entry.vf(index)
    return replace(wish, driver=KERNEL_DRIVER) if must_stay(pf, wish) else wish


def must_stay(pf: PhysicalFunction, wish: VfConfig) -> bool:
    """A bifurcated driver serves DPDK and the kernel at once; taken away, DPDK finds nothing to work with.

    A variant of vfio-pci, like mlx5_vfio_pci, is there for virtual machines, and gets what the config gives it.
    """
    return pf.driver in BIFURCATED and wish.driver in USERSPACE_DRIVERS


def is_infiniband(pf: PhysicalFunction) -> bool:
    """Whether a PF's VFs get GUIDs in place of MACs."""
    return pf.traits.link_type == "infiniband"
