"""Which drivers there are for PCI functions: those the kernel has, and modules that it can load."""

import os
from pathlib import Path

from sriovdp.kernel.sysfs import Folder, check_answer
from sriovdp.model import USERSPACE_DRIVERS

_LISTS = ("modules.dep", "modules.builtin")


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
    return frozenset(driver for driver in USERSPACE_DRIVERS if driver.replace("-", "_") in known)


def _name_module(path: str) -> str:
    """Name of a module by its path, `kernel/drivers/vfio/pci/vfio-pci.ko.xz`; the kernel takes - and _ for the same."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
