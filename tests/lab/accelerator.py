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
_TRIAL = 20.0  # seconds; a kernel on KVM gets that far in one


@functools.cache
def accelerator_options(kernel: Path, qemu: tuple[str, ...] = QEMU) -> tuple[str, ...]:
    """QEMU's options: KVM only where a trial run of this kernel in this QEMU lives.

    /dev/kvm may be there, and QEMU die on it, or start and then hang in the guest's first instructions: so the trial
    executes the guest.
    """
    return _MACHINE if os.access(_KVM, os.R_OK | os.W_OK) and try_machine(kernel, _MACHINE, qemu=qemu) else _EMULATION


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
