"""Which drivers there are for PCI functions: those the kernel has, and modules that it can load. And loading them."""

import os
import subprocess
from pathlib import Path

from sriovdp.errors import DeviceError, KernelError
from sriovdp.kernel.sysfs import Folder, check_answer
from sriovdp.model import USERSPACE_DRIVERS, is_vfio

_LISTS = ("modules.dep", "modules.builtin")
_MODPROBE = "modprobe"
_MODPROBE_TIMEOUT = 60.0


def list_drivers(root: Path) -> frozenset[str]:
    """Names of the PCI drivers that the kernel of a sysfs tree has now."""
    return Folder(str(root / "bus/pci/drivers")).names


def list_loadable(modules: Path = Path("/lib/modules")) -> frozenset[str]:
    """Those of the drivers for user space that this kernel has as modules, loaded or not."""
    known: set[str] = set()
    for name in _LISTS:
        try:
            text = (modules / os.uname().release / name).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            check_answer(error, f"reading the kernel's list of modules {name}")
            continue
        known |= {_name_module(line.partition(":")[0]) for line in text.splitlines()}
    variants = {name for name in known if is_vfio(name)} - {"vfio_pci"}
    return frozenset(driver for driver in USERSPACE_DRIVERS if driver.replace("-", "_") in known) | variants


def list_modules(modalias: str) -> list[str]:
    """Modules of this kernel for a modalias, the first choice first; none where modprobe does not know or is missing.

    Raises DeviceError when modprobe does not end, KernelError when it cannot be started.
    """
    listed = _run_modprobe("--resolve-alias", modalias)
    return listed.stdout.split() if listed else []


def load_module(module: str) -> None:
    """Load a module and those that it needs. Raises DeviceError with modprobe's reason, KernelError."""
    loaded = _run_modprobe("--", module)
    if loaded is None:
        raise DeviceError(f"loading module {module} failed: modprobe is not installed", hint="install the package kmod")
    if loaded.returncode != 0 and loaded.stderr:
        raise DeviceError(
            f"loading module {module} failed: {loaded.stderr.strip()}",
            hint="install the module for this kernel; the kernel log (dmesg) has the reason when it is there",
        )


def _run_modprobe(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    """What modprobe answers; None when it is not installed."""
    try:
        return subprocess.run(
            [_MODPROBE, *arguments], capture_output=True, text=True, timeout=_MODPROBE_TIMEOUT, check=False
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelError(f"starting modprobe failed: {error.strerror}", errno=error.errno or 0) from error
    except subprocess.TimeoutExpired:
        asked = " ".join(arguments)
        raise DeviceError(f"`modprobe {asked}` did not end within {_MODPROBE_TIMEOUT:.0f} s") from None


def _name_module(path: str) -> str:
    """Name of a module by its path, `kernel/drivers/vfio/pci/vfio-pci.ko.xz`; the kernel takes - and _ for the same."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
