"""Give PFs back as they were before the first apply, as their records have it."""

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from sriovdp.errors import BusyError, DamageError, DeviceError, JournalError, SriovdpError
from sriovdp.kernel.holders import find_holder
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import Node, PciAddress, PhysicalFunction, name_vf
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision.apply import NOBODY, PATIENCE, VERIFY_PATIENCE, Outcome, Owners
from sriovdp.provision.change import Change
from sriovdp.provision.holding import HeldVfs, list_vfs
from sriovdp.provision.originals import plan_return
from sriovdp.provision.rdma_mode import reset_mode
from sriovdp.provision.steps import SetRdmaMode, Step, count_steps
from sriovdp.provision.unread import build_error, list_unread_before_return, look_until_read
from sriovdp.provision.usage import (
    Obstacles,
    build_refusal,
    find_obstacles,
    list_attached,
    list_disturbed,
    list_unknown,
)
from sriovdp.provision.waiting import Report
from sriovdp.state.journal import Journal, read_boot_id
from sriovdp.state.locks import TIMEOUT, Locks
from sriovdp.state.provisioned import PfRecord, PfState, claim_provisioning, remove_record, survey_records, write_record

logger = logging.getLogger(__name__)


def reset(
    sysfs: Sysfs,
    journal: Journal,
    report: Report = logger.info,
    *,
    force: bool = False,
    only: Collection[str] = (),
    allocated: Owners = lambda: NOBODY,
    timeout: float = TIMEOUT,
) -> Outcome:
    """Bring every PF with a record to its original, and forget the record; or those named in `only`, or by address.

    Without `only` the RDMA mode of the node follows, if it still can be changed.

    The locks of all VFs of these PFs are held from the look at their use to the end; a CNI request that is at work is
    waited for, `timeout` seconds at most. With `force` VFs in use go too, and each owner that loses one is reported.
    Not even then is a VF taken away that a program has open through VFIO: the kernel would wait for it without end.
    A PF of which a VF cannot be read keeps what it has, and its record; so does one that fails, and the others are
    reset. The record of a PF that is gone is kept, as the PF may come back; with `force`, and named in `only`, it is
    removed. Raises InUseError and BusyError (nothing was changed), DeviceError, KernelError and VerifyError (what has a
    record still can be reset again), JournalError, and DamageError when all others are reset, and the record of one
    cannot be understood.
    """
    with claim_provisioning(journal), ExitStack() as stack:
        pfs = _index(take_snapshot(sysfs))
        known, damaged = survey_records(journal)
        chosen = _choose(known.keys() | damaged.keys(), pfs, only)
        records = {pf: known[pf] for pf in sorted(chosen & known.keys())}
        held = _hold(records, pfs, Locks(journal.locks), timeout, stack)
        node = _look(records, sysfs, PATIENCE, report)
        unread = _list_unread(records, node)
        pfs = _index(node)
        steps = {pf: _plan(record, pfs[pf]) for pf, record in records.items() if pf in pfs and pf not in unread}
        gone = [pf for pf in records if pf not in pfs]
        dropped = [pf for pf in gone if force and pf in only]
        for pf in dropped:
            remove_record(journal, pf)
            report(f"{pf}: this PF is gone; its record is removed")
        kept = (
            f"{pf}: this PF is gone; its record is kept, as the PF may come back; `sriovdp reset --force --pf {pf}` "
            "removes the record"
            for pf in gone
            if pf not in dropped
        )
        warnings = (*kept, *list_unknown(journal))
        for warning in warnings:
            report(f"warning: {warning}")
        _judge(
            _find_obstacles(steps, node, records, sysfs, {**allocated(), **list_attached(journal)}), report, force=force
        )
        if force:
            _refuse_if_open(steps, node, sysfs)
        done, failed = _reset_all(steps, pfs, records, held, journal, report, sysfs)
        mode = None if only else _reset_mode(sysfs, journal, report, failed)
        if lost := [damaged[pf] for pf in sorted(chosen & damaged.keys())]:
            failed.append(DamageError(f"{'; '.join(lost)} ({count_steps(len(done))} done on other PFs)"))
        if unread:
            failed.append(build_error([sentence for own in unread.values() for sentence in own]))
        _raise_all(failed)
        report(
            f"done: {count_steps(len(done) + bool(mode))}"
            if done or mode
            else "nothing to do: all PFs are as they were before the first apply"
        )
        return Outcome((*done, mode) if mode else tuple(done), warnings)


def _reset_mode(sysfs: Sysfs, journal: Journal, report: Report, failed: list[SriovdpError]) -> SetRdmaMode | None:
    try:
        return reset_mode(sysfs, journal, report)
    except SriovdpError as error:
        failed.append(error)
        return None


def _index(node: Node) -> dict[PciAddress, PhysicalFunction]:
    return {pf.address: pf for pf in node.pfs}


def _hold(
    records: Mapping[PciAddress, PfRecord],
    pfs: Mapping[PciAddress, PhysicalFunction],
    locks: Locks,
    timeout: float,
    stack: ExitStack,
) -> dict[PciAddress, HeldVfs]:
    """Hold the locks of all VFs of these PFs, of now and to come. Raises BusyError, which names the PF."""
    found = {}
    for address in records.keys() & pfs.keys():
        found[address] = stack.enter_context(HeldVfs(locks, timeout))
        try:
            found[address].hold(list_vfs(pfs[address], len(records[address].original.vfs)))
        except BusyError as error:
            error.message = f"{pfs[address].name}: resetting failed, nothing was changed: {error.message}"
            raise
    return found


def _plan(record: PfRecord, pf: PhysicalFunction) -> tuple[Step, ...]:
    return plan_return(record.original, pf, record.refused, keep_number=record.externally_managed)


def _look(records: Mapping[PciAddress, PfRecord], sysfs: Sysfs, patience: float, report: Report) -> Node:
    def list_missing(node: Node) -> list[str]:
        return [sentence for own in _list_unread(records, node).values() for sentence in own]

    return look_until_read(lambda: take_snapshot(sysfs), list_missing, patience, report)


def _list_unread(records: Mapping[PciAddress, PfRecord], node: Node) -> dict[PciAddress, list[str]]:
    """VFs of these PFs that have to be as they were, and cannot be read: a sentence for each, by PF."""
    found = (
        (pf.address, list_unread_before_return(record.original, pf, keep_number=record.externally_managed))
        for pf in node.pfs
        if (record := records.get(pf.address))
    )
    return {pf: sentences for pf, sentences in found if sentences}


def _choose(
    recorded: Collection[PciAddress], pfs: Mapping[PciAddress, PhysicalFunction], only: Collection[str]
) -> set[PciAddress]:
    names = {pf: {str(pf), pfs[pf].name if pf in pfs else str(pf)} for pf in recorded}
    unknown = set(only) - {name for both in names.values() for name in both}
    if unknown:
        raise DeviceError(
            f"resetting {', '.join(sorted(unknown))} failed: no apply has changed a PF of this name or address",
            hint=f"there is a record of {', '.join(sorted(min(both, key=len) for both in names.values())) or 'none'}",
        )
    return {pf for pf in recorded if not only or names[pf] & set(only)}


def _find_obstacles(
    steps: Mapping[PciAddress, tuple[Step, ...]],
    node: Node,
    records: Mapping[PciAddress, PfRecord],
    sysfs: Sysfs,
    attached: Mapping[str, str],
) -> Obstacles:
    allowed = {pf for pf, record in records.items() if record.allow_host_uplink}
    return find_obstacles((step for own in steps.values() for step in own), node, sysfs, attached, allowed)


def _judge(obstacles: Obstacles, report: Report, *, force: bool) -> None:
    if obstacles and not force:
        error = build_refusal(obstacles, "nothing was changed")
        error.hint = "remove the pods and programs named here first; --force takes their VFs away from them"
        raise error
    for found in obstacles.values():
        for obstacle in found:
            report(f"forced: {obstacle}")


def _refuse_if_open(steps: Mapping[PciAddress, tuple[Step, ...]], node: Node, sysfs: Sysfs) -> None:
    """The kernel lets a driver go of a VF only when its user has closed it (vfio_unregister_group_dev)."""
    held = {
        pf.address: [f"{name_vf(pf.name, vf.index, vf.address)} is held open by {holder}"]
        for pf in node.pfs
        for vf, _ in list_disturbed(pf, steps.get(pf.address, ()))
        if (holder := find_holder(sysfs, vf.address))
    }
    if held:
        error = build_refusal(held, "nothing was changed: the kernel would wait until the program closes it")
        error.hint = "end the program first"
        raise error


def _reset_all(
    steps: Mapping[PciAddress, tuple[Step, ...]],
    pfs: Mapping[PciAddress, PhysicalFunction],
    records: Mapping[PciAddress, PfRecord],
    held: Mapping[PciAddress, HeldVfs],
    journal: Journal,
    report: Report,
    sysfs: Sysfs,
) -> tuple[list[Step], list[SriovdpError]]:
    """Reset one PF after the other; gives what was done, and the errors of those that failed."""
    done, failed = list[Step](), list[SriovdpError]()
    for pf, own in steps.items():
        change = Change(pf, sysfs, report, held=held.get(pf))
        try:
            done += _reset_pf(pfs[pf], records[pf], own, change, journal)
        except JournalError:
            raise
        except SriovdpError as error:
            failed.append(error)
    return done, failed


def _raise_all(failed: Sequence[SriovdpError]) -> None:
    if len(failed) == 1:
        raise failed[0]
    if failed:
        listed = "\n".join(f"  {error}" for error in failed)
        raise DeviceError(f"resetting {len(failed)} PFs failed:\n{listed}")


def _reset_pf(
    pf: PhysicalFunction,
    record: PfRecord,
    steps: tuple[Step, ...],
    change: Change,
    journal: Journal,
) -> tuple[Step, ...]:
    if steps:
        before = record.before if record.is_interrupted else PfState.of(pf)
        changing = replace(
            record, phase="changing", before=before, boot_id=read_boot_id(), steps=tuple(map(str, steps))
        )
        write_record(journal, changing)
        try:
            change.run(steps)
            _verify(pf, record, change)
        except SriovdpError as error:
            error.message = f"{error.message}; the record of {pf.name} is kept, reset can be tried again"
            raise
    remove_record(journal, pf.address)
    return steps


def _verify(pf: PhysicalFunction, record: PfRecord, change: Change) -> None:
    records = {pf.address: record}
    node = _look(records, change.sysfs, VERIFY_PATIENCE, change.report)
    if unread := _list_unread(records, node):
        raise build_error(unread[pf.address])
    now = _index(node).get(pf.address)
    if now is None:
        raise DeviceError(f"{pf.name} ({pf.address}): this PF is gone", hint="see the kernel log (dmesg)")
    if left := _plan(record, now):
        listed = ", ".join(map(str, left))
        raise DeviceError(f"{pf.name} is not as it was; still to do: {listed}", hint="see the kernel log (dmesg)")
