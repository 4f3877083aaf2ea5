"""Which VFs an apply is about to change or is changing: no pod should get one meanwhile.

What plans and applies is imported only when it is asked: the agent has its pools with the kubelet before that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sriovdp.config.values import Config
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import Node, PciAddress
from sriovdp.state.journal import Journal


@dataclass(frozen=True, slots=True)
class Pending:
    """VFs by address, each with why no pod should get it; and PFs whose VFs are all made again."""

    vfs: Mapping[str, str] = field(default_factory=dict)
    pfs: frozenset[PciAddress] = frozenset()

    def hide(self, node: Node) -> Node:
        """The node without the VFs that are being made: they are not what they will be."""
        pfs = (replace(pf, vfs=()) if pf.address in self.pfs else pf for pf in node.pfs)
        return replace(node, pfs=tuple(pfs)) if self.pfs else node


def is_concerned(config: Config, journal: Journal) -> bool:
    """Whether an apply could have anything to do or to say: for the config, or a PF that was changed before."""
    return bool(config.physical_functions) or config.rdma_mode is not None or journal.has_pfs()


def find_pending(config: Config, sysfs: Sysfs, journal: Journal, allocated: Mapping[str, str], node: Node) -> Pending:
    """What an apply would change on a node; PFs that it leaves alone have nothing pending.

    What could not be read is not pending. Raises DeviceError and JournalError as `survey`.
    """
    if not is_concerned(config, journal):
        return Pending()
    from sriovdp.provision.apply import survey  # noqa: PLC0415 - as above
    from sriovdp.provision.steps import SetNumVfs  # noqa: PLC0415
    from sriovdp.provision.usage import list_disturbed  # noqa: PLC0415

    todo, obstacles = survey(config, sysfs, journal, allocated)
    vfs = {
        str(vf.address): f"sriovdp is about to change it ({step})"
        for pf in node.pfs
        if pf.address not in obstacles and not todo.is_blocked(pf.address)
        for vf, step in list_disturbed(pf, todo.pfs.get(pf.address, ()))
    }
    made = {step.pf for step in todo.steps if isinstance(step, SetNumVfs) and step.pf not in obstacles}
    return Pending(vfs, frozenset(made))
