"""Checks of PCI: what the firmware gives to VFs, links, errors."""

from collections.abc import Iterator

from sriovdp.doctor.check import Finding, SkipError, check, fail, ok, warn
from sriovdp.doctor.examined import Examined, name_pf
from sriovdp.model import PhysicalFunction

_VF_BARS = slice(7, 13)  # after six BARs and the ROM: PCI_IOV_RESOURCES of include/linux/pci.h
_UNSET = 0x20000000  # IORESOURCE_UNSET of include/linux/ioport.h
_MELLANOX = frozenset({"mlx4_core", "mlx5_core"})
_ERRORS = {"aer_dev_fatal": "fatal", "aer_dev_nonfatal": "uncorrected"}


@check("devices", "pci", "Documentation/ABI/testing/sysfs-bus-pci")
def check_devices(examined: Examined) -> Iterator[Finding]:
    """The PCI functions of the node can be read, and some are there."""
    if examined.node_fault:
        yield fail(f"the devices of this node cannot be looked at: {examined.node_fault}", "see the error")
        return
    pfs, vfs = len(examined.node.pfs), sum(1 for _ in examined.vfs())
    if not pfs and not examined.node.accelerators:
        yield fail("this node has no PCI network function or accelerator", "`lspci -nn` shows what the machine has")
        return
    for pf in examined.node.pfs:
        if pf.driver is None and not pf.vfs and examined.config and examined.config.config.find_pf(pf):
            yield fail(
                f"{pf.address}: no driver is bound to this PF", f"load its driver: `lspci -k -s {pf.address}` names it"
            )
    yield ok(f"{pfs} network functions, {len(examined.node.accelerators)} accelerators, {vfs} VFs")


@check("firmware", "pci", "drivers/pci/iov.c, sriov_init; NVIDIA mstconfig, SRIOV_EN and NUM_OF_VFS")
def check_firmware(examined: Examined) -> Iterator[Finding]:
    """The PFs can have as many VFs as the config wants."""
    for pf, entry in examined.entries():
        if entry.externally_managed or entry.num_vfs == 0:
            continue
        if pf.total_vfs == 0 and not pf.vfs:
            driver = pf.driver or "none"
            yield fail(f"{name_pf(pf)}: it can have no VFs (no sriov_totalvfs; its driver: {driver})", _name_fix(pf, 8))
        elif isinstance(entry.num_vfs, int) and entry.num_vfs > pf.total_vfs:
            yield fail(
                f"{name_pf(pf)}: the config wants {entry.num_vfs} VFs, it can have {pf.total_vfs}",
                f"write numVfs: {pf.total_vfs} or max; or {_name_fix(pf, entry.num_vfs)}",
            )
    capable = [pf for pf in examined.node.pfs if pf.total_vfs]
    if capable:
        yield ok("VFs possible: " + ", ".join(f"{pf.name} {pf.total_vfs}" for pf in capable))
    elif examined.config is None and not any(examined.vfs()) and examined.node.pfs:
        yield warn("no PF of this node can have VFs", _name_fix(examined.node.pfs[0], 8))


def _name_fix(pf: PhysicalFunction, count: int) -> str:
    if pf.driver in _MELLANOX:
        return f"`mstconfig -d {pf.address} set SRIOV_EN=1 NUM_OF_VFS={count}`, then reboot"
    return "switch SR-IOV on in the firmware of the machine and of the NIC, and load the PF's own driver; then reboot"


@check("mmio", "pci", "drivers/pci/iov.c, sriov_enable: not enough MMIO resources for SR-IOV")
def check_mmio(examined: Examined) -> Iterator[Finding]:
    """The firmware gave each PF the address space of its VFs."""
    looked = 0
    for pf in examined.sriov_pfs():
        text = examined.view.text(f"/sys/bus/pci/devices/{pf.address}/resource")
        if text is None:
            continue
        looked += 1
        bars = [tuple(int(word, 16) for word in line.split()) for line in text.splitlines()][_VF_BARS]
        missing = [bar for bar in bars if len(bar) == 3 and (bar[2] & _UNSET or (bar[0] == 0 and bar[1] > 0))]  # noqa: PLR2004
        if missing and not pf.vfs:
            need = sum(bar[1] - bar[0] + 1 for bar in missing) >> 10
            yield fail(
                f"{name_pf(pf)}: its VFs have no MMIO space: {need} KiB are not assigned",
                "switch `above 4G decoding` and SR-IOV on in the machine's firmware, or add `pci=realloc` to the "
                "kernel's command line; then reboot",
            )
    if not looked:
        raise SkipError("no PF of this node can have VFs, or its resources were not recorded")


@check("pcie-link", "pci", "Documentation/ABI/testing/sysfs-bus-pci, current_link_speed and current_link_width")
def check_link(examined: Examined) -> Iterator[Finding]:
    """The PCIe links of the PFs are as fast and wide as they can be."""
    looked = 0
    for pf in examined.sriov_pfs():
        folder = f"/sys/bus/pci/devices/{pf.address}"
        values = {
            name: examined.view.text(f"{folder}/{name}")
            for name in ("current_link_speed", "max_link_speed", "current_link_width", "max_link_width")
        }
        speed, most = (_read_number(values[f"{which}_link_speed"]) for which in ("current", "max"))
        width, widest = (_read_number(values[f"{which}_link_width"]) for which in ("current", "max"))
        if not (speed and most and width and widest) or width == 255 or widest == 255:  # noqa: PLR2004 - not known
            continue
        looked += 1
        if speed < most or width < widest:
            now = f"{values['current_link_speed']} x{width}, it can {values['max_link_speed']} x{widest}"
            yield warn(
                f"{name_pf(pf)}: its PCIe link runs at {now}", "put the NIC into a wider or faster slot; seat it again"
            )
    if not looked:
        raise SkipError("no PF says how fast its PCIe link is")


def _read_number(text: str | None) -> float:
    try:
        return float((text or "0").split()[0])
    except (ValueError, IndexError):
        return 0


@check("pcie-errors", "pci", "Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats")
def check_errors(examined: Examined) -> Iterator[Finding]:
    """The PFs have no PCIe errors since the boot."""
    looked = 0
    for pf in examined.sriov_pfs():
        for name, kind in _ERRORS.items():
            text = examined.view.text(f"/sys/bus/pci/devices/{pf.address}/{name}")
            if text is None:
                continue
            looked += 1
            total = sum(int(line.split()[-1]) for line in text.splitlines() if line.startswith("TOTAL"))
            if total:
                yield warn(
                    f"{name_pf(pf)}: {total} {kind} PCIe errors since the boot",
                    f"`dmesg | grep {pf.address}`; seat the NIC again",
                )
    if not looked:
        raise SkipError("no PF counts PCIe errors")


@check("numa", "pci", "kubelet, Topology Manager: policies restricted and single-numa-node")
def check_numa(examined: Examined) -> Iterator[Finding]:
    """The NUMA node of each PF is known on a machine with several."""
    nodes = examined.view.names("/sys/devices/system/node", r"^node\d+$")
    if len(nodes) < 2:  # noqa: PLR2004
        raise SkipError("this machine has one NUMA node")
    for pf in examined.sriov_pfs():
        if pf.numa_node is None:
            yield warn(
                f"{name_pf(pf)}: the firmware does not say on which NUMA node it is: pods are not aligned to it",
                "update the machine's firmware, or switch `sub-NUMA clustering` off in it",
            )


CHECKS = (check_devices, check_firmware, check_mmio, check_link, check_errors, check_numa)
