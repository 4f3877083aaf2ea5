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

_SYS = Path("/sys")
_DEV = "/dev/"
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
