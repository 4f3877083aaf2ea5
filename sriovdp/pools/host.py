"""What decides on this host, right now, about what a container can get: device nodes, and a function's driver."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from sriovdp.errors import DeviceError
from sriovdp.kernel.sysfs import Sysfs, list_names, read_link, read_text
from sriovdp.limits import PATTERN_SIGNS
from sriovdp.model import Subfunction, is_vfio
from sriovdp.pools.candidates import Candidate
from sriovdp.pools.pcie_errors import Counts

_SYS = Path("/sys")
_DEV = "/dev/"
_LEAVE_DMA = frozenset({"pci-stub", "pcieport", "shpchp"})
_TOTAL = re.compile(r"^TOTAL_ERR_\w+ (\d+)$", re.MULTILINE)
_UIO_FILE = re.compile(r"config|resource\d+(_wc)?")  # what DPDK opens, drivers/bus/pci/linux/pci_uio.c


@dataclass(frozen=True, slots=True)
class LiveHost:
    """The host below these roots. Paths that it gives are those of the host, wherever the roots are."""

    sysfs: Sysfs
    dev: Path

    def find_nodes(self, pattern: str) -> list[str]:
        """Device nodes there are of that name or pattern, which begins with /dev/."""
        below = pattern.removeprefix(_DEV)
        if PATTERN_SIGNS.isdisjoint(pattern):
            return [pattern] if os.path.lexists(f"{self.dev}/{below}") else []
        return sorted(f"{_DEV}{path.relative_to(self.dev)}" for path in self.dev.glob(below))

    def list_uio_files(self, address: str) -> list[str]:
        """Config space and BARs of a function: a container's own sysfs cannot be written."""
        folder = self.sysfs.pci(address).resolve()
        place = _SYS / folder.relative_to(self.sysfs.root.resolve())
        return [str(place / name) for name in list_names(folder) if _UIO_FILE.fullmatch(name)]

    def find_intruder(self, group: int) -> str:
        """What keeps a program from opening an IOMMU group through VFIO; empty when nothing does.

        The kernel opens a group only if each function in it has no driver, or one that leaves its DMA to user space
        (`driver_managed_dma`: VFIO's, pci-stub, and those of bridges).
        """
        folder = self.sysfs.root / f"kernel/iommu_groups/{group}/devices"
        for address in list_names(folder):
            driver = read_link(folder / address / "driver")
            if driver and not is_vfio(driver) and driver not in _LEAVE_DMA:
                return f"{address} is in it too, which {driver} drives"
        return ""

    def count_pcie_errors(self, address: str) -> Counts | None:
        """Errors of a function by their kind, None where the kernel does not count them."""
        folder = self.sysfs.pci(address)
        found = {name: read_text(folder / f"aer_dev_{name}") for name in ("correctable", "nonfatal", "fatal")}
        if found["correctable"] is None:
            return None
        totals = {name: _read_total(text or "") for name, text in found.items()}
        return {"pcieErrors": totals["nonfatal"] + totals["fatal"], "pcieCorrectableErrors": totals["correctable"]}

    def refresh(self, candidate: Candidate) -> Candidate:
        """The device with what decides about its use read again: driver, IOMMU group, UIO device.

        Raises DeviceError when it is gone.
        """
        function = candidate.function
        if isinstance(function, Subfunction):
            folder = self.sysfs.root / "bus/auxiliary/devices" / function.name
            if not folder.exists():
                raise DeviceError("this subfunction is gone")
            return replace(candidate, function=replace(function, driver=read_link(folder / "driver")))
        folder = self.sysfs.pci(function.address)
        driver, group = read_link(folder / "driver"), read_link(folder / "iommu_group")
        name = read_text(self.sysfs.root / f"kernel/iommu_groups/{group}/name") if is_vfio(driver) else None
        fresh = replace(
            function,
            driver=driver,
            iommu_group=int(group) if group and group.isdecimal() else None,
            uio=next(iter(list_names(folder / "uio")), None),
            traits=replace(function.traits, noiommu=name == "vfio-noiommu"),
        )
        return replace(candidate, function=fresh, driver=driver)


def _read_total(text: str) -> int:
    match = _TOTAL.search(text)
    return int(match[1]) if match else 0
