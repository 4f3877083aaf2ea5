"""The RDMA subsystem's mode, which is the node's own setting: whether a network namespace has an RDMA device to itself.

The kernel changes the mode only as long as there is no network namespace but the host's, and forgets it with the next
boot (drivers/infiniband/core/device.c, rdma_compatdev_set and netns_mode). So at boot it is set before there are pods,
and on a node with pods this program can only say so.
"""

import errno
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sriovdp.config.values import Config
from sriovdp.errors import InUseError, JournalError, KernelError, SriovdpError, VerifyError
from sriovdp.kernel import rdma_netlink
from sriovdp.kernel.rdma import read_mode
from sriovdp.kernel.sysfs import Folder, Sysfs
from sriovdp.model import RdmaMode
from sriovdp.provision.steps import SetRdmaMode
from sriovdp.provision.waiting import Report
from sriovdp.reading import UnreadableError, build, parse_object, read_file
from sriovdp.state.files import write_whole
from sriovdp.state.journal import Journal, read_boot_id

_MODULE_OPTIONS = {"shared": "options ib_core netns_mode=1", "exclusive": "options ib_core netns_mode=0"}
_WHY = "the kernel changes it only as long as there is no network namespace but the host's, so not with pods"


@dataclass(frozen=True, slots=True)
class _Record:
    """The file of the journal that says how the mode was before its first change after a boot."""

    boot_id: str
    original: RdmaMode


def plan_mode(config: Config, mode: RdmaMode | None) -> SetRdmaMode | None:
    """What there is to do on a node in that mode; nothing where no driver has loaded the RDMA subsystem."""
    if config.rdma_mode is None or mode is None or config.rdma_mode == mode:
        return None
    return SetRdmaMode(f"rdmaMode is {config.rdma_mode}, it is {mode}", mode, config.rdma_mode)


def warn_of_mode(config: Config, mode: RdmaMode | None) -> Iterator[str]:
    """Sentences about a mode that cannot be."""
    if config.rdma_mode == "exclusive" and mode is None:
        yield (
            "rdmaMode is exclusive, but the kernel of this node has no RDMA (module ib_core), or has no modes (before "
            "Linux 5.3); load the RDMA module of the NIC's driver, like mlx5_ib"
        )


def try_mode(
    config: Config, sysfs: Sysfs, journal: Journal, report: Report
) -> tuple[SetRdmaMode | None, SriovdpError | None]:
    """Set the mode as the config says. Gives what was done, or why it was not, which is reported as a warning.

    That is an InUseError when there are other network namespaces, else a KernelError, VerifyError or JournalError.
    """
    step = plan_mode(config, _read(sysfs))
    if step is None:
        return None, None
    try:
        if _read_original(journal) is None:
            _write_original(journal, step.current)
        _set(sysfs, step.wanted, report)
    except SriovdpError as error:
        report(f"warning: {error}")
        return None, error
    return step, None


def reset_mode(sysfs: Sysfs, journal: Journal, report: Report) -> SetRdmaMode | None:
    """Set the mode back to what it was before it was first changed after this boot. Gives what was done.

    A warning says that it stays, as it is gone with the next boot. Raises KernelError, VerifyError.
    """
    original, mode = _read_original(journal), _read(sysfs)
    step = None
    if original is not None and mode is not None and original != mode:
        try:
            _set(sysfs, original, report)
        except InUseError as error:
            report(f"warning: {error}")
            return None
        step = SetRdmaMode("it was so before", mode, original)
    with suppress(OSError):  # one that stays is the mode of now
        _find_record(journal).unlink()
    return step


def _set(sysfs: Sysfs, mode: RdmaMode, report: Report) -> None:
    report(f"node: set RDMA mode {mode}")
    try:
        rdma_netlink.set_exclusive(enabled=mode == "exclusive")
    except KernelError as error:
        if error.errno != errno.EBUSY:
            raise
        raise InUseError(f"node: {error.message}: {_WHY}", hint=_advise(mode)) from error
    if (now := _read(sysfs)) != mode:
        hint = "something else may change it at the same time; the kernel log (dmesg) may have the reason"
        raise VerifyError(f"node: RDMA mode is {now} although {mode} was set", hint=hint)


def describe_wait(step: SetRdmaMode) -> str:
    """Why the mode is not as the config says."""
    return f"{step}: {step.reason}; {_WHY}; {_advise(step.wanted)}"


def _advise(mode: RdmaMode) -> str:
    return f"write `{_MODULE_OPTIONS[mode]}` into a file of /etc/modprobe.d and boot this node again"


def _read(sysfs: Sysfs) -> RdmaMode | None:
    return read_mode(Folder(str(sysfs.root)))


def _find_record(journal: Journal) -> Path:
    return journal.directory / "rdma-mode.json"


def _write_original(journal: Journal, mode: RdmaMode) -> None:
    """Not flushed to the disk: after a loss of power the mode is the kernel's own again. Raises JournalError."""
    path = _find_record(journal)
    try:
        write_whole(path, json.dumps(asdict(_Record(read_boot_id(), mode))), mode=0o600)
    except OSError as error:
        hint = "nothing was changed; make that disk writable"
        raise JournalError(f"writing {path} failed: {error.strerror}", hint=hint) from error


def _read_original(journal: Journal) -> RdmaMode | None:
    """The mode before the first change after this boot; None when nothing that can be read says it."""
    try:
        found = build(_Record, parse_object(read_file(_find_record(journal))))
    except (OSError, UnreadableError):
        return None
    return found.original if found.boot_id == read_boot_id() else None
