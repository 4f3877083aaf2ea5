"""Who holds a VF open from user space: through its VFIO group or device, or its UIO device."""

import errno
import os
from pathlib import Path

from sriovdp.kernel.drivers import current_driver
from sriovdp.kernel.sysfs import Sysfs, list_names, read_link, read_text
from sriovdp.model import USERSPACE_DRIVERS


def find_holder(sysfs: Sysfs, address: str, dev: Path = Path("/dev")) -> str | None:
    """The program that has the VF open, in words; None when there is none.

    Unbinding a VF from vfio-pci waits in the kernel for its user to let go (drivers/vfio/vfio_main.c,
    vfio_unregister_group_dev), so this has to be asked first.
    """
    if current_driver(sysfs, address) not in USERSPACE_DRIVERS:
        return None
    path = sysfs.pci(address)
    group = read_link(path / "iommu_group")
    nodes = [dev / "vfio/devices" / name for name in list_names(path / "vfio-dev")]
    nodes += [dev / name for name in list_names(path / "uio")]
    if group and _is_busy(dev / "vfio" / group):
        nodes.append(dev / "vfio" / group)
        return _find_process(nodes) or "a program through vfio"
    return _find_process(nodes)


def _is_busy(group: Path) -> bool:
    """A VFIO group is opened by one process at a time (drivers/vfio/group.c, vfio_group_fops_open)."""
    try:
        os.close(os.open(group, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def _find_process(nodes: list[Path]) -> str | None:
    """A process that has one of the nodes open, by the device's number: in a container it may have another path."""
    numbers = {number for node in nodes if (number := _read_number(node))}
    for process in Path("/proc").glob("[0-9]*") if numbers else ():
        try:
            opened = {_read_number(descriptor) for descriptor in (process / "fd").iterdir()}
        except OSError:  # it has ended, or is none of ours to look at
            continue
        if numbers & opened:
            return f"process {process.name} ({read_text(process / 'comm') or 'ended'})"
    return None


def _read_number(node: Path) -> int:
    try:
        return node.stat().st_rdev
    except OSError:
        return 0
