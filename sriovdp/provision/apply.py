"""Make the node as the config says: plan, leave alone what is in use, write the intent down, change, read back.

A PF is changed as a whole or not at all. One with a VF in use that would be disturbed keeps what it has; one whose
change fails is brought back to what it was. PFs are changed at the same time, each in a thread of its own.
"""

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from threading import Lock
from types import MappingProxyType

from sriovdp.config.values import Config
from sriovdp.errors import BusyError, DeviceError, SriovdpError, VerifyError
from sriovdp.kernel import drivers
from sriovdp.kernel.sysfs import Sysfs, read_text
from sriovdp.model import KERNEL_DRIVER, NO_DRIVER, Node, PciAddress, PhysicalFunction, is_vfio
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision.change import Change
from sriovdp.provision.eswitch import check_mode, remember_mode
from sriovdp.provision.holding import HeldVfs, list_vfs
from sriovdp.provision.originals import plan_return
from sriovdp.provision.plan import Leftovers, Plan, plan
from sriovdp.provision.rdma_mode import plan_mode, try_mode, warn_of_mode
from sriovdp.provision.settings import is_derived
from sriovdp.provision.steps import BindDriver, SetAdminMac, SetNumVfs, SetRdmaMode, Step, count_steps
from sriovdp.provision.unread import (
    build_error,
    explain_unlisted,
    explain_unread,
    list_unread_before_return,
    look_until_read,
)
from sriovdp.provision.usage import Obstacles, build_refusal, find_obstacles, list_attached, list_unknown
from sriovdp.provision.waiting import Report, run_together
from sriovdp.provision.wishes import count_vfs
from sriovdp.state.journal import Journal, read_boot_id
from sriovdp.state.locks import TIMEOUT, Locks
from sriovdp.state.provisioned import PfRecord, PfState, claim_provisioning, remove_record, survey_records, write_record

logger = logging.getLogger(__name__)

NOBODY: Mapping[str, str] = MappingProxyType({})

PATIENCE = 3.0  # seconds for VFs that the kernel leaves out of its list
VERIFY_PATIENCE = 30.0  # the same after settings that reset the VFs

Owners = Callable[[], Mapping[str, str]]
"""Asks the kubelet for the owners of VFs, by PCI address."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, and what there is to say about the config."""

    steps: tuple[Step | SetRdmaMode, ...] = ()
    warnings: tuple[str, ...] = ()


def apply(
    config: Config,
    sysfs: Sysfs,
    journal: Journal,
    report: Report = logger.info,
    *,
    allocated: Owners = lambda: NOBODY,
    all_or_nothing: bool = False,
    timeout: float = TIMEOUT,
) -> Outcome:
    """Make the node as the config says, except PFs where that would disturb someone who uses a VF.

    `report` gets each step when it begins. `allocated` asks the kubelet; the journal is read in any case. Use is asked
    for again under the locks of all VFs of a PF, which are held until its change is verified: for each, a CNI request
    that is at work is waited for, `timeout` seconds at most. With `all_or_nothing` one PF in use stops all. The RDMA
    mode, which is the node's, comes first; where it cannot be set, PFs are done all the same.

    Raises InUseError (PFs in use are as they were, the others are done), DeviceError, KernelError and VerifyError (what
    failed was undone, as the message says), JournalError (nothing was changed).
    """
    with claim_provisioning(journal):
        report = _serialize(report)
        mode, failure = try_mode(config, sysfs, journal, report)
        if failure and all_or_nothing:
            raise failure
        outcome = _Run(config, sysfs, journal, report, allocated, timeout).apply(all_or_nothing=all_or_nothing)
        if failure:
            raise failure
        return replace(outcome, steps=(mode, *outcome.steps)) if mode else outcome


def survey(
    config: Config, sysfs: Sysfs, journal: Journal, allocated: Mapping[str, str] = NOBODY, *, patience: float = 0.0
) -> tuple[Plan, Obstacles]:
    """What apply would do, and what it would leave alone and who is in the way. Changes nothing.

    VFs that the kernel leaves out of its list are looked for again, `patience` seconds at most. Raises DeviceError when
    VFs of two PFs would have the same MACs, JournalError.
    """
    run = _Run(config, sysfs, journal, logger.debug, lambda: allocated)
    node, todo = run.look(patience)
    return todo, run.find_obstacles(todo, node)


def _serialize(report: Report) -> Report:
    """A report that several threads can use."""
    lock = Lock()

    def report_alone(text: str) -> None:
        with lock:
            report(text)

    return report_alone


@dataclass
class _Run:
    config: Config
    sysfs: Sysfs
    journal: Journal
    report: Report
    allocated: Owners
    timeout: float = TIMEOUT
    held: dict[PciAddress, HeldVfs] = field(default_factory=dict)
    refused: dict[PciAddress, dict[str, str]] = field(default_factory=dict)
    made: set[PciAddress] = field(default_factory=set)
    """PFs whose VFs this run made."""
    records: dict[PciAddress, PfRecord] = field(init=False)
    damaged: dict[PciAddress, str] = field(init=False)

    def __post_init__(self) -> None:
        self.records, self.damaged = survey_records(self.journal)
        self.refused = {pf: dict(record.refused) for pf, record in self.records.items()}

    def look(self, patience: float = 0.0, only: Collection[PciAddress] | None = None) -> tuple[Node, Plan]:
        """The node now, and what there is to do. VFs that could not be read are looked for again.

        With `only` those of other PFs are not.
        """

        def list_missing(found: tuple[Node, Plan]) -> list[str]:
            pfs = [pf for pf in found[0].pfs if only is None or pf.address in only]
            unlisted = [explain_unlisted(pf) for pf in pfs if pf.address in found[1].unlisted]
            return [*unlisted, *(sentence for pf in pfs for sentence in found[1].unread.get(pf.address, ()))]

        return look_until_read(self._look, list_missing, patience, self.report)

    def _look(self) -> tuple[Node, Plan]:
        node = take_snapshot(self.sysfs)
        leftovers = _find_leftovers(self.sysfs, node, self.records)
        made = {pf: {int(n): mac for n, mac in record.macs.items()} for pf, record in self.records.items()}
        refused = {pf: {int(n): who for n, who in vfs.items()} for pf, vfs in self.refused.items()}
        todo = plan(self.config, node, self._list_attached(), leftovers, made, refused)
        forgotten = [pf for pf in node.pfs if pf.address in self.records and self.config.find_pf(pf) is None]
        notes = [
            f"{pf.name} is no longer in the config and keeps what an earlier apply made of it; to undo that, run "
            f"`sriovdp reset --pf {pf.name}`"
            for pf in forgotten
        ]
        notes += [*self.damaged.values(), *list_unknown(self.journal), *warn_of_mode(self.config, node.rdma_mode)]
        mode = plan_mode(self.config, node.rdma_mode)
        return node, replace(todo, warnings=(*todo.warnings, *notes), mode=mode)

    def find_obstacles(self, todo: Plan, node: Node) -> Obstacles:
        """Who is in the way of a plan; a PF whose record is damaged keeps what it has, as it could not be restored."""
        entries = ((pf, self.config.find_pf(pf)) for pf in node.pfs)
        allowed = {pf.address for pf, entry in entries if entry and entry.allow_host_uplink}
        found = find_obstacles(todo.steps, node, self.sysfs, self._list_attached(), allowed)
        damaged = {pf.address: pf.name for pf in node.pfs if pf.address in self.damaged and pf.address in todo.pfs}
        for pf, name in damaged.items():
            found.setdefault(pf, []).insert(0, f"{name}: {self.damaged[pf]}")
        return found

    def apply(self, *, all_or_nothing: bool) -> Outcome:
        """See the function."""
        node, todo = self.look(PATIENCE)
        for warning in todo.warnings:
            self.report(f"warning: {warning}")
        self._finish_interrupted(node, todo)
        if todo.is_empty:
            self.report("nothing to do: the node is as the config says")
            return Outcome(warnings=todo.warnings)
        obstacles = self.find_obstacles(todo, node)
        work = {pf: steps for pf, steps in todo.pfs.items() if pf not in obstacles and not todo.is_blocked(pf)}
        if (obstacles or todo.blocked) and (all_or_nothing or not work):
            raise _build_refusal(obstacles, todo.blocked, "nothing was changed")
        with ExitStack() as stack:
            obstacles |= self._hold(work, node, stack)
            node, todo = self.look(PATIENCE, work)
            obstacles |= self.find_obstacles(todo, node)
            free = self.held.keys() - obstacles.keys()
            work = {pf: steps for pf, steps in todo.pfs.items() if pf in free and not todo.is_blocked(pf)}
            if (obstacles or todo.blocked) and (all_or_nothing or not work):
                raise _build_refusal(obstacles, todo.blocked, "nothing was changed")
            self._change(work, node)
        if obstacles or todo.blocked:
            raise _build_refusal(obstacles, todo.blocked, f"these PFs keep what they have; {_count(work)} done")
        self.report(f"done: {_count(work)}, read back and verified")
        return Outcome(tuple(step for steps in work.values() for step in steps), todo.warnings)

    def _hold(self, work: Collection[PciAddress], node: Node, stack: ExitStack) -> Obstacles:
        """Hold the locks of all VFs of these PFs, of now and to come. Gives the PFs where a request does not end."""
        locks, busy = Locks(self.journal.locks), Obstacles()
        for pf in node.pfs:
            entry = self.config.find_pf(pf)
            if pf.address not in work or entry is None:
                continue
            held = stack.enter_context(HeldVfs(locks, self.timeout))
            try:
                held.hold(list_vfs(pf, count_vfs(pf, entry)))
            except BusyError as error:
                held.close()
                busy[pf.address] = [f"{pf.name}: {error.message}"]
            else:
                self.held[pf.address] = held
        return busy

    def _list_attached(self) -> dict[str, str]:
        return {**self.allocated(), **list_attached(self.journal)}

    def _change(self, work: Mapping[PciAddress, list[Step]], node: Node) -> None:
        """Change PFs at the same time. Raises what failed, after undoing that."""
        pfs = {pf.address: pf for pf in node.pfs}
        errors = run_together(lambda pf: self._change_pf(pfs[pf], work[pf]), work)
        after, todo = self.look(VERIFY_PATIENCE, work)
        failed = {pf: error for pf in work if (error := errors[pf] or self._find_rest(pfs[pf], work[pf], after, todo))}
        for now in after.pfs:
            if now.address in work and now.address not in failed:
                done = replace(self._record(pfs[now.address]), phase="done", macs=self._list_macs(now))
                write_record(self.journal, done)
        for pf, error in failed.items():
            error.message = f"{error.message}; {self._undo(pfs[pf])}"
        if len(failed) == 1:
            raise next(iter(failed.values()))
        if failed:
            listed = "\n".join(f"  {error}" for error in failed.values())
            raise DeviceError(f"{len(failed)} of {len(work)} PFs failed:\n{listed}")

    def _change_pf(self, pf: PhysicalFunction, steps: list[Step]) -> SriovdpError | None:
        try:
            check_mode(pf, steps)
            resolved = _find_drivers(self.sysfs, steps)
            write_record(self.journal, replace(self._record(pf), steps=tuple(map(str, steps))))
            old = self.records.get(pf.address)
            interrupted = old is not None and old.is_interrupted
            held = self.held[pf.address]
            change = Change(pf.address, self.sysfs, self.report, resolved, link_lost=interrupted, held=held)
            try:
                change.run(steps)
            finally:
                self._note_refusals(pf, steps, change.refused)
                if change.made_vfs:
                    self.made.add(pf.address)
        except SriovdpError as error:
            return error
        return None

    def _find_rest(self, pf: PhysicalFunction, steps: Sequence[Step], after: Node, todo: Plan) -> SriovdpError | None:
        """Why a PF is not as the config says, or why that is not known, after its steps were done."""
        now = next((now for now in after.pfs if now.address == pf.address), None)
        if now is None:
            return DeviceError(f"{pf.name} ({pf.address}): this PF is gone", hint="see the kernel log (dmesg)")
        taken = [s for s in steps if isinstance(s, SetAdminMac) and str(s.index) not in self.refused[pf.address]]
        if taken and pf.address in todo.unlisted:
            return build_error([explain_unread(now, vf) for vf in now.unread])
        return _find_rest(todo, pf.address)

    def _note_refusals(self, pf: PhysicalFunction, steps: list[Step], refused: Mapping[int, str]) -> None:
        """What drivers took no MAC or GUID of; VFs that were created again are not known any more."""
        is_new = any(isinstance(step, SetNumVfs) for step in steps)
        known = {} if is_new else self.refused.get(pf.address, {})
        self.refused[pf.address] = known | {str(index): who for index, who in refused.items()}

    def _list_macs(self, pf: PhysicalFunction) -> dict[str, str]:
        """The stable MACs of a PF's VFs, by VF index; of those whose PF takes none, their netdevs'."""
        entry, old, refused = self.config.find_pf(pf), self.records.get(pf.address), self.refused.get(pf.address, {})
        found = dict(old.macs) if old else {}
        for vf in pf.vfs:
            number = str(vf.index)
            if not entry or not is_derived(entry.vf(vf.index), vf.index):
                found.pop(number, None)
            elif not pf.sets_vfs or number in refused:
                found |= {number: vf.netdev.mac} if vf.netdev else {}
            elif vf.settings:
                found[number] = vf.settings.mac
        return {number: mac for number, mac in found.items() if int(number) in {vf.index for vf in pf.vfs}}

    def _record(self, pf: PhysicalFunction) -> PfRecord:
        """The record of a change that begins now; one that was interrupted goes on."""
        entry, old, now = self.config.find_pf(pf), self.records.get(pf.address), PfState.of(pf)
        return PfRecord(
            address=pf.address,
            phase="changing",
            boot_id=read_boot_id(),
            original=remember_mode(old.original if old else now, pf, entry),
            before=remember_mode(old.before if old and old.is_interrupted else now, pf, entry),
            allow_host_uplink=bool(entry and entry.allow_host_uplink),
            externally_managed=bool(entry and entry.externally_managed),
            macs=old.macs if old else {},
            refused=self.refused.get(pf.address, {}),
        )

    def _undo(self, pf: PhysicalFunction) -> str:
        """Bring a PF back to what it was before; says how that went."""
        record = self._record(pf)
        name = pf.name
        try:
            node, steps = self._plan_return(record)
            if not steps:
                self._forget(record)
                return f"{name} is as it was before"
            self.report(f"{name}: undoing")
            obstacles = find_obstacles(steps, node, self.sysfs, self._list_attached(), {pf.address}, self.made)
            if obstacles:
                return f"{name} was left as it is now: {'; '.join(obstacles[pf.address])}"
            Change(pf.address, self.sysfs, self.report, held=self.held[pf.address]).run(steps)
            left = self._plan_return(record)[1]
        except SriovdpError as error:
            if not os.path.lexists(self.sysfs.root / "bus/pci/devices" / record.address):
                return f"{name} ({record.address}) is gone, and nothing was undone; its record is kept until it is back"
            return f"undoing that failed too: {error}"
        if left:
            return f"undoing that was not enough; still to do: {', '.join(map(str, left))}"
        self._forget(record)
        return f"{name} was brought back to what it was before"

    def _plan_return(self, record: PfRecord) -> tuple[Node, tuple[Step, ...]]:
        """Raises DeviceError when the PF is gone, VerifyError when it is not known how one of its VFs is."""
        node, pf, unread = look_until_read(
            lambda: self._look_back(record), lambda found: found[2], VERIFY_PATIENCE, self.report
        )
        if unread:
            raise build_error(unread)
        return node, plan_return(record.before, pf, record.refused, keep_number=record.externally_managed)

    def _look_back(self, record: PfRecord) -> tuple[Node, PhysicalFunction, list[str]]:
        node = take_snapshot(self.sysfs)
        pf = next((pf for pf in node.pfs if pf.address == record.address), None)
        if pf is None:
            raise DeviceError(f"{record.address}: this PF is gone", hint="see the kernel log (dmesg)")
        keep = record.externally_managed
        return node, pf, list_unread_before_return(record.before, pf, keep_number=keep)

    def _forget(self, record: PfRecord) -> None:
        """A PF is as it was: nothing is known to have been changed by this apply."""
        if record.address in self.records and record.original != record.before:
            write_record(self.journal, replace(record, phase="done"))
        else:
            remove_record(self.journal, record.address)

    def _finish_interrupted(self, node: Node, todo: Plan) -> None:
        """What an interrupted apply was at is done where nothing is left to do, and nothing is unknown."""
        left = {pf.address for pf in node.pfs} - todo.pfs.keys()
        for pf, record in self.records.items():
            if record.phase == "changing" and pf in left and not todo.is_blocked(pf):
                write_record(self.journal, replace(record, phase="done"))


def _find_leftovers(sysfs: Sysfs, node: Node, records: Mapping[PciAddress, PfRecord]) -> dict[PciAddress, Leftovers]:
    found = {}
    for pf in node.pfs:
        record = records.get(pf.address)
        if record and record.is_interrupted:
            overrides = frozenset(vf.address for vf in pf.vfs if _has_override(sysfs, vf.address))
            found[pf.address] = Leftovers(record.before.autoprobe, overrides, record.before.eswitch)
    return found


def _has_override(sysfs: Sysfs, address: PciAddress) -> bool:
    return read_text(sysfs.root / "bus/pci/devices" / address / "driver_override") not in {None, "", "(null)"}


def _find_drivers(sysfs: Sysfs, steps: list[Step]) -> dict[str, str]:
    """Load what is needed before anything is changed. Raises DeviceError when the node has not what it takes.

    The kernel driver of VFs that do not exist yet is found once they do.
    """
    found: dict[str, str] = {}
    binds = [step for step in steps if isinstance(step, BindDriver) and step.wanted != NO_DRIVER]
    companions = {step.address for step in binds if step.address}
    for step in binds:
        if step.wanted not in found and (step.address or step.wanted != KERNEL_DRIVER):
            found[step.wanted] = drivers.resolve_driver(sysfs, step.address or step.pf, step.wanted)
        if is_vfio(step.wanted) and step.address:
            drivers.check_iommu_group(sysfs, step.address, companions, noiommu=step.noiommu)
        elif is_vfio(step.wanted) and drivers.has_no_iommu(sysfs):
            drivers.check_iommu(sysfs, step.pf, noiommu=step.noiommu)
    return found


def _find_rest(todo: Plan, pf: PciAddress) -> SriovdpError | None:
    """Why a PF is not as the config says, or why that is not known, after its steps were done."""
    if pf in todo.unread:
        return build_error(todo.unread[pf])
    if pf in todo.faults:
        return DeviceError(todo.faults[pf])
    left = todo.pfs.get(pf)
    if not left:
        return None
    listed = "\n".join(f"  {step}: {step.reason}" for step in left)
    return VerifyError(
        f"all steps were done, but the node is not as the config says; still to do:\n{listed}\n",
        hint="something else may change the node at the same time; the kernel log (dmesg) has the drivers' reasons",
    )


def _build_refusal(obstacles: Obstacles, blocked: Sequence[str], outcome: str) -> DeviceError:
    """The error that names all that kept PFs from being as the config says. Not only use: then it is no InUseError."""
    if not blocked:
        return build_refusal(obstacles, outcome)
    sentences = [*blocked, *(obstacle for found in obstacles.values() for obstacle in found)]
    listed = "\n".join(f"  {sentence}" for sentence in sentences)
    return DeviceError(f"{outcome}:\n{listed}", hint="see the kernel log (dmesg) for VFs in reset; then apply again")


def _count(work: Mapping[PciAddress, list[Step]]) -> str:
    return count_steps(sum(map(len, work.values())))
