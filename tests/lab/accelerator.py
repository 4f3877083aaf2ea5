"""How QEMU executes the guest: by KVM where that works here, else by emulation."""

import functools
import os
import subprocess
from pathlib import Path

QEMU = ("qemu-system-x86_64",)
_KVM = Path("/dev/kvm")
_MACHINE = ("-machine", "q35,kernel-irqchip=split", "-accel", "kvm", "-cpu", "host")
# one thread for both processors: with two, QEMU 10.0.2 now and then dies in iotlb_to_section while memory is mapped
_EMULATION = ("-machine", "q35", "-accel", "tcg,thread=single", "-cpu", "max")
# the guest's clock runs while it computes, 2 ns for an instruction, and while it sleeps; not while others compute
_OWN_CLOCK = ("-icount", "shift=1,sleep=on", "-rtc", "clock=vm")
_TRIAL = 20.0  # seconds; a kernel on KVM gets that far in one


def accelerator_options(kernel: Path, qemu: tuple[str, ...] = QEMU, *, own_clock: bool = False) -> tuple[str, ...]:
    """QEMU's options: KVM only where a trial run of this kernel in this QEMU lives.

    `own_clock`: an emulated guest's clock stands still while other programs have the processors. So the time limits in
    its programs, which nobody can lengthen, are as long on a busy machine as on a quiet one. KVM has no such clock, and
    is fast enough.
    """
    if _has_kvm(kernel, qemu):
        return _MACHINE
    return (*_EMULATION, *(_OWN_CLOCK if own_clock else ()))


@functools.cache
def _has_kvm(kernel: Path, qemu: tuple[str, ...]) -> bool:
    """Whether KVM executes this kernel.

    /dev/kvm may be there, and QEMU die on it, or start and then hang in the guest's first instructions.
    """
    return os.access(_KVM, os.R_OK | os.W_OK) and try_machine(kernel, _MACHINE, qemu=qemu)


def try_machine(kernel: Path, machine: tuple[str, ...], timeout: float = _TRIAL, qemu: tuple[str, ...] = QEMU) -> bool:
    """Whether a kernel without a root says that it has none: it was executed until then."""
    command = [
        *("setpriv", "--pdeathsig", "KILL", *qemu, "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"),
        *machine,
        *("-m", "256M", "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1", "-serial", "stdio"),
    ]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        return False
    return b"Unable to mount root fs" in done.stdout
