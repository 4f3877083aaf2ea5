"""The kernel's log: messages of drivers that explain a fault."""

import os
import re
from collections.abc import Iterator

from sriovdp.doctor.check import Finding, SkipError, Status, check, fail, ok, warn
from sriovdp.doctor.examined import Examined

_MOST = 16 << 20  # bytes
_MOST_LINES = 200
_UPDATE = "update the NIC's driver and firmware"

_KNOWN: tuple[tuple[str, Status, str], ...] = (
    (
        r"not enough MMIO resources for SR-IOV|can't enable \d+ VFs",
        "fail",
        "add `pci=realloc` to the kernel's command line, reboot",
    ),
    (r"device is in Safe Mode|Entering Safe Mode", "fail", "install linux-firmware (intel/ice/ddp/ice.pkg), reboot"),
    (r"Reject SRIOV config request", "fail", "`ip link set PF up`, then `sriovdp apply`"),
    (r"is not viable", "warn", "see the check iommu-groups"),
    (r"Lockdown: .*(unsigned module|igb_uio|direct PCI access)", "fail", "use vfio-pci, or sign the module"),
    (r"Loading of (unsigned )?module .*rejected", "warn", "sign the module, or use vfio-pci"),
    (r"Malicious Driver Detection|MDD event", "warn", "find the pod of that VF: `sriovdp attachments`"),
    (r"(Tx|tx) (Unit )?[Hh]ang|NETDEV WATCHDOG|transmit queue \d+ timed out", "warn", _UPDATE),
    (
        r"can't change power state|Unable to change power state",
        "warn",
        "`options vfio-pci disable_idle_d3=1` in /etc/modprobe.d, reboot",
    ),
    (r"Only able to reserve resources for|VFs requested; only", "warn", "write fewer VFs into the config"),
    (r"VF \d+ (still )?in reset|failed to respond to reset", "warn", f"`sriovdp apply`; {_UPDATE}"),
    (
        r"[Uu]nprivileged VF \d+ is attempting|not trusted|VF is not allowed to (add|override|change)",
        "warn",
        "write trust into its network, or into its range of the config",
    ),
    (
        r"DMAR: \[(DMA|INTR)|AMD-Vi: Event logged",
        "warn",
        "find the device in that line: its driver or program uses memory that is not its own",
    ),
)
_ANY = re.compile("|".join(f"(?:{pattern})" for pattern, *_ in _KNOWN))


@check("kernel-log", "kernel", "the messages of drivers/pci/iov.c and of the NICs' drivers in Linux 6.12")
def check_log(examined: Examined) -> Iterator[Finding]:
    """The kernel's log has no message that explains why VFs fail."""
    seen: set[str] = set()
    lines = examined.view.ask("kernel-log", _list_lines)
    for pattern, status, fix in _KNOWN:
        found = [line for line in lines if re.search(pattern, line)]
        if found and pattern not in seen:
            seen.add(pattern)
            times = f" ({len(found)} times)" if len(found) > 1 else ""
            report = fail if status == "fail" and not any(examined.vfs()) else warn
            yield report(f"kernel log: {_cut(found[-1])}{times}", fix)
    if not seen:
        yield ok("no message that explains a fault")


def _cut(line: str) -> str:
    return line if len(line) <= 160 else f"{line[:159]}…"  # noqa: PLR2004


def _list_lines() -> Iterator[str]:
    """Lines of /dev/kmsg that a pattern knows, without their time (Documentation/ABI/testing/dev-kmsg)."""
    try:
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise SkipError("/dev/kmsg is not there") from error
    try:
        total, found = 0, list[str]()
        while total < _MOST and (record := _read_record(descriptor)) is not None:
            total += len(record)
            text = record.partition(b";")[2].partition(b"\n")[0].decode(errors="replace")
            if _ANY.search(text):
                found.append(text)
    finally:
        os.close(descriptor)
    yield from found[-_MOST_LINES:]


def _read_record(descriptor: int) -> bytes | None:
    """One record, None at the end. EPIPE: it was overwritten meanwhile, and the next read gets a later one."""
    try:
        return os.read(descriptor, 8192) or None
    except BlockingIOError:
        return None
    except BrokenPipeError:
        return b";"


CHECKS = (check_log,)
