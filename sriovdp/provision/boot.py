"""What is different while the machine boots: PFs appear one after the other, and what needs a reboot is listed."""

import time

from sriovdp.config.values import Config
from sriovdp.kernel import drivers
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import Node, is_vfio
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision.waiting import Report

_INTERVAL = 0.5


def wait_for_pfs(config: Config, sysfs: Sysfs, timeout: float, report: Report) -> None:
    """Wait until each entry of the config has a PF: drivers load, and udev renames netdevs. `timeout` is in seconds."""
    deadline = time.monotonic() + timeout
    while missing := _list_missing(config, take_snapshot(sysfs)):
        if time.monotonic() > deadline:
            listed = ", ".join(f"physicalFunctions[{number}]" for number in missing)
            report(f"warning: no PF after {timeout:.0f} s for {listed}; going on without")
            return
        time.sleep(_INTERVAL)


def list_reboot_needs(config: Config, node: Node, sysfs: Sysfs) -> list[str]:
    """What the config wants and only another boot can give, as sentences. Nothing here is ever done by this program."""
    entries = [(pf, entry) for pf in node.pfs if (entry := config.find_pf(pf))]
    needs = [
        f"{pf.name} ({pf.address}) offers no VFs: switch SR-IOV on in the machine's and the NIC's firmware"
        for pf, entry in entries
        if entry.num_vfs != 0 and pf.total_vfs == 0
    ]
    wants_vfio = any(is_vfio(vfs.driver) and not vfs.noiommu for _, entry in entries for vfs in entry.vfs)
    if wants_vfio and drivers.has_no_iommu(sysfs):
        needs.append(
            "vfio-pci needs an IOMMU and none is at work: switch VT-d or AMD-Vi on in the firmware, and boot with "
            "intel_iommu=on on an Intel machine"
        )
    return needs


def _list_missing(config: Config, node: Node) -> list[int]:
    return [
        number
        for number, entry in enumerate(config.physical_functions)
        if not any(entry.select.matches(pf) for pf in node.pfs)
    ]
