"""Who holds a VF open from user space: through its VFIO group or device, or its UIO device."""

import errno
import os
from pathlib import Path

from sriovdp.kernel.drivers import current_driver
from sriovdp.kernel.sysfs import Sysfs, check_answer, list_names, read_link, read_text
from sriovdp.model import is_userspace

_REFUSED = {errno.EPERM, errno.EACCES}  # to a container that was not given the device


def find_holder(sysfs: Sysfs, address: str, dev: Path = Path("/dev")) -> str | None:
    """The program that has the VF open, in words; None when there is none. Raises KernelError when it cannot look.

    Unbinding a VF from vfio-pci waits in the kernel for its user to let go (drivers/vfio/vfio_main.c,
    vfio_unregister_group_dev), so this has to be asked first.
    """
    if not is_userspace(current_driver(sysfs, address)):
        return None
    path = sysfs.pci(address)
    group = read_link(path / "iommu_group")
    nodes = [dev / "vfio/devices" / name for name in list_names(path / "vfio-dev")]
    nodes += [dev / name for name in list_names(path / "uio")]
    refused = _try_opening(dev / "vfio" / group, address) if group else 0
    if refused in _REFUSED | {errno.EBUSY}:
        nodes.append(dev / "vfio" / str(group))
    return _find_process(nodes, address) or ("a program through vfio" if refused == errno.EBUSY else None)


def _try_opening(group: Path, address: str) -> int:
    """The errno of opening a VFIO group, 0 for none. EBUSY means that it has its one user (drivers/vfio/group.c)."""
    try:
        os.close(os.open(group, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        check_answer(error, f"opening {group} to see who uses {address}")
        return error.errno or 0
    return 0


def _find_process(nodes: list[Path], address: str) -> str | None:
    """A process that has one of the nodes open, by the device's number: in a container it may have another path."""
    numbers = {number for node in nodes if (number := _read_number(node))}
    for process in filter(str.isdecimal, list_names("/proc") if numbers else ()):
        try:
            opened = {_read_number(descriptor) for descriptor in Path("/proc", process, "fd").iterdir()}
        except OSError as error:  # it has ended, or is none of ours to look at
            check_answer(error, f"looking for processes that use {address}")
            continue
        if numbers & opened:
            return f"process {process} ({read_text(f'/proc/{process}/comm') or 'ended'})"
    return None


def _read_number(node: Path) -> int:
    try:
        return node.stat().st_rdev
    except OSError:
        return 0
