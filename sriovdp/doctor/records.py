"""Checks of sriovdp itself: config, journal, clock, disk, agent, versions."""

import os
import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from sriovdp.config.document import write_path
from sriovdp.doctor.check import Finding, SkipError, check, fail, ok, warn
from sriovdp.doctor.examined import Examined
from sriovdp.errors import DeviceError, JournalError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.node.sources import list_known_drivers
from sriovdp.pools.fit import Fit
from sriovdp.provision.plan import plan
from sriovdp.state.provisioned import survey_records

_EPOCH = datetime(2024, 1, 1, tzinfo=UTC).timestamp()  # older than this program: the clock was never set
_AHEAD = 3600.0  # seconds
_ROOM = 16 << 20  # bytes
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_REPAIR = "`sriovdp attachments --verify`, then `sriovdp attachments --repair`"


@check("config", "sriovdp", "docs/config.md")
def check_config(examined: Examined) -> Iterator[Finding]:
    """The config file is valid."""
    if examined.fault:
        for sentence in examined.fault.faults:
            yield fail(f"{examined.config_path}: {sentence}", f"`sriovdp validate {examined.config_path}`")
        return
    for sentence in examined.settle().warnings:
        yield warn(f"{examined.config_path}: {sentence}", f"`sriovdp validate {examined.config_path}`")
    yield ok(f"{examined.config_path} is valid")


@check("config-fit", "sriovdp", "docs/config.md; `sriovdp validate`")
def check_fit(examined: Examined) -> Iterator[Finding]:
    """The config file fits the devices of this node."""
    examined.settle()
    loaded = examined.config
    if loaded is None:
        return
    fit = Fit(loaded.config, examined.node, loaded.pf_places, loaded.pool_places)
    known = list_known_drivers(Sysfs(examined.view.sysfs))
    for found, sentences in ((fail, fit.find_faults(known)), (warn, fit.find_warnings())):
        for place, sentence in sentences:
            line = loaded.document.line(place)
            yield found(
                f"{examined.config_path}: line {line}: {write_path(place)}: {sentence}",
                f"`sriovdp validate {examined.config_path}`, `sriovdp explain {examined.config_path}`",
            )


@check("drift", "sriovdp", "`sriovdp plan`")
def check_drift(examined: Examined) -> Iterator[Finding]:
    """The PFs and VFs are as the config says."""
    config = examined.settle()
    attached = {entry.device for entry in examined.surveyed[0]} if examined.has_journal else set()
    try:
        found = plan(config, examined.node, attached)
    except DeviceError as error:
        yield fail(error.message, error.hint or "`sriovdp plan`")
        return
    for address, steps in found.pfs.items():
        first, more = steps[0], f", and {len(steps) - 1} more changes" if len(steps) > 1 else ""
        yield warn(
            f"{first.pf_name} ({address}): it is not as the config says: {first}{more}",
            "`sriovdp plan`, then `sriovdp apply`",
        )


@check("journal", "sriovdp", "docs/architecture.md, what always holds")
def check_journal(examined: Examined) -> Iterator[Finding]:
    """Each file of the journal can be read and understood."""
    if not examined.view.has(f"{examined.folders.state}/journal"):
        raise SkipError(f"{examined.folders.state}/journal is not there: no pod had a VF, no PF was set up")
    try:
        attachments, damages = examined.surveyed
        records, damaged = survey_records(examined.journal)
    except JournalError as error:
        yield fail(error.message, error.hint or "check that disk")
        return
    for damage in damages:
        yield fail(f"{damage.reason}", "`sriovdp attachments`; move that file away when its pod is gone")
    for reason in damaged.values():
        yield fail(reason.partition("; ")[0], "move the file away; `sriovdp apply`")
    for address, record in records.items():
        if record.phase == "changing":
            yield warn(f"{address}: an apply did not come to its end", "`sriovdp apply`")
    yield ok(f"{len(attachments)} attachments, {len(records)} PFs in the journal")


@check("boot", "sriovdp", "random(4), boot_id")
def check_boot(examined: Examined) -> Iterator[Finding]:
    """No VF is attached by the journal since another boot, or waits to be released."""
    boot = examined.view.text(_BOOT_ID)
    if not boot:
        raise SkipError("the id of this boot is not known")
    for entry in examined.surveyed[0]:
        if entry.boot_id != boot:
            yield warn(f"{entry.device}: {entry.owner} has it by the journal since an earlier boot", _REPAIR)
        elif entry.phase != "attached":
            yield warn(
                f"{entry.device}: {entry.owner}: it is {entry.phase} since the agent was stopped or killed", _REPAIR
            )


@check("clock", "sriovdp", "the times of the journal's files")
def check_clock(examined: Examined) -> Iterator[Finding]:
    """The clock is set, and has not jumped back behind the journal."""
    folder = f"{examined.folders.state}/journal"

    def look() -> Iterator[str]:
        yield str(int(time.time()))
        place = examined.view.place(folder)
        times = (
            [entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(place)] if Path(place).is_dir() else []
        )
        yield str(int(max(times, default=0)))

    now, newest = map(float, examined.view.ask("clock", look))
    if now < _EPOCH:
        yield fail(
            f"the clock says {datetime.fromtimestamp(now, UTC):%Y-%m-%d}: it was never set",
            "`timedatectl set-ntp true`",
        )
    elif newest > now + _AHEAD:
        yield warn(
            f"the clock is {int(newest - now) // 60} minutes behind the newest file of the journal: it jumped back",
            "`timedatectl`; look for a wrong time server",
        )


@check("disk", "sriovdp", "statvfs(3)")
def check_disk(examined: Examined) -> Iterator[Finding]:
    """The disk of the journal has room and can be written."""
    folder = examined.folders.state

    def look() -> Iterator[str]:
        there = next(path for path in _list_parents(examined.view.place(folder)) if Path(path).exists())
        found = os.statvfs(there)
        files = found.f_favail if found.f_files else 1  # a file system without inodes counts none
        yield f"{found.f_bavail * found.f_frsize} {files} {found.f_flag & os.ST_RDONLY}"

    room, files, read_only = map(int, examined.view.ask("disk", look)[0].split())
    if read_only:
        yield fail(
            f"{folder}: its disk is read-only: no pod gets a VF", "`dmesg`, then `mount -o remount,rw` that disk"
        )
    elif room < _ROOM or not files:
        yield fail(
            f"{folder}: its disk has {room >> 10} KiB and {files} files left: no pod gets a VF",
            "`du -xh --max-depth=2 /var`",
        )
    else:
        yield ok(f"{folder}: {room >> 20} MiB free")


def _list_parents(path: str) -> Iterator[str]:
    while path not in {"", "/"}:
        yield path
        path = os.path.dirname(path)  # noqa: PTH120
    yield "/"


@check("agent", "sriovdp", "`sriovdp status`")
def check_agent(examined: Examined) -> Iterator[Finding]:
    """The agent runs and can attach a VF."""
    path = f"{examined.folders.run}/agent.sock"
    if not examined.view.has(path):
        start = "`kubectl get pods -A -l app.kubernetes.io/name=sriovdp -o wide`, or `sriovdp agent`"
        yield warn(f"{path} is not there: the agent does not run", start)
        return
    answer = examined.view.ask("agent", examined.peers.agent)
    for line in answer[:1] if answer[:1] != ["ok"] else []:
        yield fail(f"the agent cannot attach a VF: {line}", "`sriovdp status`, and the agent's log")
    for line in answer[1:]:
        yield warn(line, "`sriovdp status`")


@check("versions", "sriovdp", "os-release(5); devlink info")
def check_versions(examined: Examined) -> Iterator[Finding]:
    """What runs here: sriovdp, the system, the firmware of the NICs."""
    yield ok(f"sriovdp {version('sriovdp')}, Python {platform.python_version()}")
    for line in examined.view.lines("/etc/os-release", "^PRETTY_NAME="):
        yield ok(line.partition("=")[2].strip('"'))


CHECKS = (
    check_clock,
    check_disk,
    check_config,
    check_journal,
    check_boot,
    check_agent,
    check_fit,
    check_drift,
    check_versions,
)
