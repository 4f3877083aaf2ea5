"""Who would be disturbed by a plan: pods, other network namespaces, programs that hold a VF open, the host itself."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from sriovdp.errors import InUseError
from sriovdp.kernel.holders import find_holder
from sriovdp.kernel.host_use import find_host_use
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import NetDevice, Node, PciAddress, PhysicalFunction, VirtualFunction, is_userspace, name_vf
from sriovdp.provision.eswitch import list_mode_obstacles
from sriovdp.provision.steps import (
    BindDriver,
    SetAdminMac,
    SetEswitchMode,
    SetGuid,
    SetLink,
    SetMtu,
    SetNumVfs,
    SetVf,
    SetVfMac,
    SetVfMtu,
    Step,
)
from sriovdp.state.journal import Journal, read_boot_id

_LIVE_ROOT = Path("/sys")

Obstacles = dict[PciAddress, list[str]]
"""A sentence for each device in use that a step would disturb, by the PF; PFs without any are left out."""


def list_attached(journal: Journal) -> dict[str, str]:
    """Owner of each VF that a pod has, by the VF's PCI address. Pods of an earlier boot have nothing any more.

    A VF whose entry in the journal is damaged counts as in use. Raises JournalError when the journal cannot be read.
    """
    boot_id = read_boot_id()
    attachments, damages = journal.survey()
    attached = {entry.device: entry.owner for entry in attachments if not entry.released and entry.boot_id == boot_id}
    damaged = {
        damage.device: f"the attachment in {damage.path}, which cannot be understood"
        for damage in damages
        if damage.device is not None
    }
    return attached | damaged


def list_unknown(journal: Journal) -> list[str]:
    """A sentence for each damaged entry that names no VF. Raises JournalError when the journal cannot be read.

    Such an entry stops nothing: the kernel and the kubelet still say which VFs are in use.
    """
    _, damages = journal.survey()
    return [
        f"{damage.reason}; it names no VF, so that only the kernel and the kubelet say whether its VF is in use"
        for damage in damages
        if damage.device is None
    ]


def find_obstacles(
    steps: Iterable[Step],
    node: Node,
    sysfs: Sysfs,
    attached: Mapping[str, str],
    allowed: Collection[PciAddress] = (),
    made: Collection[PciAddress] = (),
) -> Obstacles:
    """Find the users that the steps would disturb.

    `attached` has the owners of VFs by address; `allowed` are PFs that may be reset although this host needs them.
    `made` are PFs whose VFs this run made: what the host does with such a VF, as a network manager that finds a new
    interface does, is no use of it.
    """
    steps = list(steps)
    found: Obstacles = {}
    for pf in node.pfs:
        own = [step for step in steps if step.pf == pf.address]
        obstacles = [] if pf.address in allowed else list(_list_host_obstacles(pf, own))
        obstacles += list_mode_obstacles(pf, own)
        for vf, step in list_disturbed(pf, own):
            user = attached.get(vf.address) or _find_user(sysfs, vf, is_new=pf.address in made)
            if user:
                obstacles.append(f"{name_vf(pf.name, vf.index, vf.address)} is used by {user}; in the way of: {step}")
        if obstacles:
            found[pf.address] = obstacles
    return found


def build_refusal(obstacles: Obstacles, outcome: str) -> InUseError:
    """The error that names all obstacles; `outcome` says what was done and what was not."""
    listed = "\n".join(f"  {obstacle}" for found in obstacles.values() for obstacle in found)
    return InUseError(
        f"refused, {outcome}:\n{listed}",
        hint="remove the pods and programs named here first, or take the change out of the config",
    )


def _list_host_obstacles(pf: PhysicalFunction, steps: Iterable[Step]) -> Iterator[str]:
    """Creating VFs where there are none is normal on a PF of the host; to take it down or to reset it is not."""
    if not pf.traits.host_use:
        return
    for step in steps:
        takes_down = isinstance(step, SetLink) and not step.up
        if takes_down or isinstance(step, SetMtu | SetEswitchMode) or (isinstance(step, SetNumVfs) and step.current):
            yield (
                f"the host needs {pf.name} ({pf.traits.host_use}), and its link would be lost for a while; in the way "
                f"of: {step}; allowHostUplink: true in its entry of the config allows it"
            )


def list_disturbed(pf: PhysicalFunction, steps: Iterable[Step]) -> Iterator[tuple[VirtualFunction, Step]]:
    """Each VF of today that a step changes or removes, with its first such step."""
    all_change: Step | None = None
    one_changes: dict[str, Step] = {}
    for step in steps:
        if isinstance(step, SetNumVfs):
            all_change = step
        elif isinstance(step, SetAdminMac | SetGuid | SetVf | BindDriver | SetVfMtu | SetVfMac) and step.address:
            one_changes.setdefault(step.address, step)
    for vf in pf.vfs:
        if why := all_change or one_changes.get(vf.address):
            yield vf, why


def _find_user(sysfs: Sysfs, vf: VirtualFunction, *, is_new: bool) -> str | None:
    """Who uses a VF as far as the kernel reports."""
    if is_userspace(vf.driver):
        return find_holder(sysfs, vf.address)
    if vf.is_elsewhere:
        return "another network namespace: its netdev is there"
    if is_new:
        return None
    if vf.traits.host_use:
        return f"the host: {vf.traits.host_use}"
    use = _find_host_use(sysfs, vf.netdev) if vf.netdev and sysfs.root == _LIVE_ROOT else ""
    return f"the host: {use}" if use else None


def _find_host_use(sysfs: Sysfs, netdev: NetDevice) -> str:
    with Netlink() as netlink:
        link = netlink.find(netdev.ifindex)
    return find_host_use(sysfs, link) if link else ""
