"""How a node differs from its config, in sentences, for status pages and logs; and what of it just came or went."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sriovdp.config.values import Config
from sriovdp.errors import DeviceError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import Node, name_vf
from sriovdp.provision.pending import is_concerned
from sriovdp.state.journal import Journal


@dataclass(frozen=True, slots=True)
class Drift:
    """How a node differs from its config. `waiting` has the PFs where somebody is in the way, by name, with who.

    The RDMA mode is there as `node`. `steps` are what apply would do, each with its reason, or why a PF cannot be as
    the config says. `is_possible`: apply could do some of it now. `unread` has VFs of which it is not known, as they
    cannot be read now.
    """

    steps: tuple[str, ...] = ()
    waiting: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_possible: bool = False
    unread: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """All of it, for a log."""
        return [*self.steps, *(f"kept as it is: {who}" for found in self.waiting.values() for who in found)]


def find_drift(config: Config, sysfs: Sysfs, journal: Journal, allocated: Mapping[str, str] | None = None) -> Drift:
    """Compare a node with its config; `allocated` are owners of VFs by the kubelet. Raises JournalError."""
    if not is_concerned(config, journal):
        return Drift()
    from sriovdp.provision.apply import survey  # noqa: PLC0415 - the agent has its pools with the kubelet before that
    from sriovdp.provision.rdma_mode import describe_wait  # noqa: PLC0415

    try:
        todo, obstacles = survey(config, sysfs, journal, allocated or {})
    except DeviceError as error:
        return Drift((str(error),))
    names = {step.pf: step.pf_name for step in todo.steps}
    waiting = {names.get(pf, pf): tuple(found) for pf, found in obstacles.items()}
    if todo.mode:  # apply has tried it
        waiting["node"] = (describe_wait(todo.mode),)
    return Drift(
        (*todo.faults.values(), *(f"{step}: {step.reason}" for step in todo.steps)),
        waiting,
        is_possible=any(pf not in obstacles and not todo.is_blocked(pf) for pf in todo.pfs),
        unread=tuple(sentence for own in todo.unread.values() for sentence in own),
    )


def describe_change(before: Node, after: Node) -> list[str]:
    """PFs that came, went, or changed their names or VFs between two snapshots, and drivers of VFs, as sentences."""
    was, now = ({pf.address: pf for pf in node.pfs} for node in (before, after))
    seen = [f"{was[pf].name} ({pf}): this PF is gone" for pf in was if pf not in now]
    seen += [f"{now[pf].name} ({pf}): this PF is new" for pf in now if pf not in was]
    for pf in (pf for pf in now if pf in was):
        if was[pf].name != now[pf].name:
            seen.append(f"{now[pf].name} ({pf}): this PF has another name now, it was {was[pf].name}")
        if len(was[pf].vfs) != len(now[pf].vfs):
            seen.append(f"{now[pf].name} ({pf}): VFs went from {len(was[pf].vfs)} to {len(now[pf].vfs)}")
    drivers = {vf.address: vf.driver for _, vf in before.vfs()}
    seen += [
        f"{name_vf(pf.name, vf.index, vf.address)}: its driver went from {drivers[vf.address] or 'no driver'} to "
        f"{vf.driver or 'no driver'}"
        for pf, vf in after.vfs()
        if vf.address in drivers and drivers[vf.address] != vf.driver
    ]
    return seen
