"""Who would be disturbed by a plan: pods, other network namespaces, programs that hold a VF open, the host itself."""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sriovdp.errors import InUseError
from sriovdp.journal import Journal
from sriovdp.kernel.sysfs import Sysfs, read_text
from sriovdp.model import USERSPACE_DRIVERS, Node, VirtualFunction
from sriovdp.provision.plan import Plan
from sriovdp.provision.steps import BindDriver, SetAdminMac, SetNumVfs
from sriovdp.provision.uplinks import carries_route, default_route_devices


def list_attached(journal: Journal) -> dict[str, str]:
    """Owner of each VF that a pod has, by the VF's PCI address. Raises JournalError."""
    return {entry.device: entry.owner for entry in journal.attachments() if not entry.released}


def refuse_if_used(plan: Plan, node: Node, sysfs: Sysfs, journal: Journal) -> None:
    """Raise InUseError with all obstacles of a plan, if it has any."""
    obstacles = list_obstacles(plan, node, sysfs, journal)
    if obstacles:
        listed = "\n".join(f"  {obstacle}" for obstacle in obstacles)
        raise InUseError(
            f"refused, nothing was changed:\n{listed}",
            hint="remove the pods and programs named here first, or take the change out of the config",
        )


def list_obstacles(plan: Plan, node: Node, sysfs: Sysfs, journal: Journal) -> list[str]:
    """A sentence for each device in use that a step of the plan would disturb. Raises JournalError."""
    attached = list_attached(journal)
    routes = default_route_devices()
    net = sysfs.root / "class/net"
    found = [
        f"{step.pf_name} carries the host's default route and would lose its link; in the way of: {step}"
        for step in plan.steps
        if isinstance(step, SetNumVfs) and step.current and carries_route(net, step.pf_name, routes)
    ]
    for vf, why in _list_disturbed(plan, node):
        user = attached.get(vf.address) or _find_user(vf)
        if user is None and vf.netdev and carries_route(net, vf.netdev.name, routes):
            user = f"the host: {vf.netdev.name} carries its default route"
        if user:
            found.append(f"VF {vf.index} ({vf.address}) is used by {user}; in the way of: {why}")
    return found


def _list_disturbed(plan: Plan, node: Node) -> Iterator[tuple[VirtualFunction, str]]:
    """Each VF of today that a step changes or removes, with its first such step."""
    all_change = {step.pf: str(step) for step in plan.steps if isinstance(step, SetNumVfs)}
    one_changes: dict[str, str] = {}
    for step in plan.steps:
        if isinstance(step, SetAdminMac | BindDriver) and step.address:
            one_changes.setdefault(step.address, str(step))
    for pf, vf in node.vfs():
        why = all_change.get(pf.address) or one_changes.get(vf.address)
        if why:
            yield vf, why


def _find_user(vf: VirtualFunction, dev: Path = Path("/dev")) -> str | None:
    """Who uses a VF as far as the kernel tells."""
    if vf.driver == "vfio-pci" and vf.iommu_group is not None:
        group = dev / "vfio" / str(vf.iommu_group)
        return _find_holder(group) or "a program through vfio" if _is_busy(group) else None
    if vf.driver in USERSPACE_DRIVERS:
        return _find_holder(dev / vf.uio) if vf.uio else None
    if vf.driver is not None and vf.netdev is None:
        return f"another network namespace: it is bound to {vf.driver}, but its netdev is not here"
    return None


def _is_busy(group: Path) -> bool:
    """A VFIO group is opened by one process at a time (drivers/vfio/group.c, vfio_group_fops_open)."""
    try:
        os.close(os.open(group, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def _find_holder(node: Path) -> str | None:
    """A process that has a device node open, by the device's number: in a container it may have another path."""
    try:
        number = node.stat().st_rdev
    except OSError:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        if number in _list_open_devices(process):
            return f"process {process.name} ({read_text(process / 'comm') or 'ended'})"
    return None


def _list_open_devices(process: Path) -> set[int]:
    return {number for number in map(_read_number, _list_descriptors(process)) if number}


def _list_descriptors(process: Path) -> Iterable[Path]:
    try:
        return list((process / "fd").iterdir())
    except OSError:  # it has ended, or is none of ours to look at
        return []


def _read_number(descriptor: Path) -> int:
    try:
        return descriptor.stat().st_rdev
    except OSError:
        return 0
