"""Checks of the kernel: its version, IOMMU, lockdown, modules and memory."""

import gzip
import lzma
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from sriovdp.doctor.check import Finding, SkipError, check, fail, ok, warn
from sriovdp.doctor.examined import Examined, name_vf_of
from sriovdp.kernel.modules import list_drivers
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import KERNEL_DRIVER, NO_DRIVER, PhysicalFunction, VirtualFunction, is_vfio
from sriovdp.node.sources import list_known_drivers

_AUTOPROBE = (5, 3)
_CMDLINE = r"iommu|^pci=|^pci$|vfio|hugepage|lockdown|sig_enforce|^netns_mode|ib_core|isolcpus|^nohz_full"
_TABLES = {"DMAR": "Intel VT-d", "IVRS": "AMD-Vi", "IORT": "Arm SMMU", "VIOT": "a virtual IOMMU"}
_OFF = re.compile(r"(intel_iommu|amd_iommu|iommu)=off|iommu\.passthrough=|disable_iommu")
_BRIDGE = "0x0604"
_VIABLE = frozenset({None, "pci-stub", "pcieport"})  # drivers/vfio/vfio_main.c; DMA ownership of drivers/iommu/iommu.c
_SIGNED = b"~Module signature appended~\n"  # scripts/sign-file.c
_UNPACKERS: dict[str, Callable[[bytes], bytes]] = {".ko": bytes, ".xz": lzma.decompress, ".gz": gzip.decompress}
_SET_ARGUMENTS = (
    "add `{}` to the kernel's command line (GRUB_CMDLINE_LINUX in /etc/default/grub, then `update-grub`), reboot"
)


def read_arguments(examined: Examined) -> list[str]:
    """Those of the kernel's arguments that matter here."""
    text = examined.view.text(
        "/proc/cmdline", lambda raw: " ".join(word for word in raw.split() if re.search(_CMDLINE, word))
    )
    return (text or "").split()


def read_release(examined: Examined) -> str:
    """The running kernel, like `6.1.0-28-amd64`; empty when not known."""
    return examined.view.text("/proc/sys/kernel/osrelease") or ""


@check("kernel", "kernel", "drivers/pci/pci-driver.c, pci_device_can_probe")
def check_version(examined: Examined) -> Iterator[Finding]:
    """The kernel binds a VF by its driver_override alone, as since Linux 5.3."""
    release = read_release(examined)
    numbers = tuple(map(int, re.findall(r"\d{1,6}", release)[:2]))
    if numbers and numbers < _AUTOPROBE:
        yield fail(
            f"Linux {release}: VFs are not bound while sriov_drivers_autoprobe is 0",
            "install Linux 5.3 or later, reboot",
        )
    elif numbers:
        yield ok(f"Linux {release}")
    else:
        raise SkipError("the kernel's version is not known")


@check("iommu", "kernel", "Documentation/admin-guide/kernel-parameters.txt, intel_iommu and amd_iommu")
def check_iommu(examined: Examined) -> Iterator[Finding]:
    """An IOMMU is at work, which vfio-pci needs."""
    functions: list[PhysicalFunction | VirtualFunction] = [*examined.node.pfs, *examined.node.accelerators]
    functions += [vf for _, vf in examined.vfs()]
    groups = {one.iommu_group for one in functions if one.iommu_group is not None and not one.traits.noiommu}
    if groups or (not functions and examined.view.names("/sys/class/iommu")):
        yield ok(f"an IOMMU is at work: {len(groups)} groups with network functions or accelerators")
        return
    if not functions:
        raise SkipError("this node has no PCI network function or accelerator")
    users = sorted({pf.name for pf, wish in examined.wishes() if is_vfio(wish.driver) and not wish.noiommu})
    why, fix = _explain_iommu(examined)
    if users:
        yield fail(f"no IOMMU is at work{why}; the config wants VFs of {', '.join(users)} on vfio-pci", fix)
    elif examined.config is None:
        yield warn(f"no IOMMU is at work{why}: VFs cannot be bound to vfio-pci", fix)
    else:
        yield ok(f"no IOMMU is at work{why}; the config wants no vfio-pci")


def _explain_iommu(examined: Examined) -> tuple[str, str]:
    """Why there is none, in words, and what to do."""
    arguments = read_arguments(examined)
    off = [word for word in arguments if _OFF.search(word)]
    if off:
        return (
            f": the kernel was started with {' '.join(off)}",
            f"remove `{' '.join(off)}` from its command line, reboot",
        )
    tables = examined.view.names("/sys/firmware/acpi/tables", f"^({'|'.join(_TABLES)})$")
    vendor = " ".join(examined.view.lines("/proc/cpuinfo", r"^vendor_id")[:1])
    if not tables:
        return ", and the firmware describes none", "switch VT-d (Intel) or AMD-Vi (AMD) on in the machine's firmware"
    wanted = "iommu=pt" if "AMD" in vendor or "IVRS" in tables else "intel_iommu=on iommu=pt"
    return f", although the firmware describes {_TABLES[tables[0]]}", _SET_ARGUMENTS.format(wanted)


@check("iommu-groups", "kernel", "drivers/vfio/vfio_main.c; drivers/iommu/iommu.c, pci_device_group")
def check_groups(examined: Examined) -> Iterator[Finding]:
    """No VF for vfio-pci shares its IOMMU group with a device on a kernel driver."""
    wanted = {
        (pf.address, vf.index)
        for pf, wish in examined.wishes()
        for vf in pf.vfs
        if is_vfio(wish.driver) and vf.index in wish.indices
    }
    looked = 0
    for pf, vf in examined.vfs():
        if vf.iommu_group is None or not (is_vfio(vf.driver) or (pf.address, vf.index) in wanted):
            continue
        looked += 1
        members = examined.view.names(f"/sys/kernel/iommu_groups/{vf.iommu_group}/devices")
        others = [other for other in members if other != vf.address and not _is_viable(examined, other)]
        if others:
            yield fail(
                f"{name_vf_of(pf, vf)}: its IOMMU group {vf.iommu_group} has {', '.join(others)} on a kernel driver",
                "use a slot whose root port has ACS (`lspci -vvv`, ACSCtl), or bind those to vfio-pci too",
            )
    if not looked:
        raise SkipError("no VF is for vfio-pci")


def _is_viable(examined: Examined, address: str) -> bool:
    folder = f"/sys/bus/pci/devices/{address}"
    if (examined.view.text(f"{folder}/class") or "").startswith(_BRIDGE):
        return True
    driver = examined.view.link(f"{folder}/driver")
    return driver in _VIABLE or is_vfio(driver)


@check("noiommu", "kernel", "drivers/vfio/container.c, vfio_noiommu")
def check_noiommu(examined: Examined) -> Iterator[Finding]:
    """Vfio does not go without an IOMMU unless the config says so."""
    if examined.view.text("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode") != "Y":
        return
    if any(wish.noiommu for _, wish in examined.wishes()):
        yield ok("vfio goes without an IOMMU, as the config says: a pod can write to all memory of this node")
    else:
        yield warn(
            "vfio goes without an IOMMU, and the config does not say so: a pod can write to all memory of this node",
            "`echo N > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode`; remove the option in /etc/modprobe.d",
        )


@check("modules", "kernel", "modprobe(8), modprobe.d(5)")
def check_modules(examined: Examined) -> Iterator[Finding]:
    """The drivers that the config wants are in the kernel, or can be loaded."""
    release = read_release(examined)
    known = list_known_drivers(Sysfs(examined.view.sysfs))
    wanted = {(wish.driver, pf.name) for pf, wish in examined.wishes()}
    for driver in sorted({driver for driver, _ in wanted} - {KERNEL_DRIVER, NO_DRIVER} - known):
        pfs = ", ".join(sorted(pf for name, pf in wanted if name == driver))
        source = "dpdk-kmods-dkms" if driver == "igb_uio" else "the kernel's full module package"
        yield fail(
            f"{pfs}: the config wants {driver}, and this kernel has no such driver and no module for it",
            f"install {source}; `modprobe {driver}` has to make /sys/bus/pci/drivers/{driver}",
        )
    if release and examined.view.has("/lib/modules") and not examined.view.has(f"/lib/modules/{release}/modules.dep"):
        yield warn(
            f"/lib/modules has nothing of the running kernel {release}: no module can be loaded",
            "reboot into the installed kernel, or install the modules of the running one",
        )
    yield from _find_blocked(examined)


def _find_blocked(examined: Examined) -> Iterator[Finding]:
    """VF drivers that a file of modprobe.d forbids, and options that make VFs when a PF driver is loaded."""
    names = "iavf|i40evf|igbvf|ixgbevf|mlx4_core|mlx5_core|mlx5_vfio_pci|vfio[_-]pci|igb_uio|bnxt_en"
    loaded = {name.replace("-", "_") for name in list_drivers(examined.view.sysfs)}
    for path in (f"/etc/modprobe.d/{name}" for name in examined.view.names("/etc/modprobe.d", r"\.conf$")):
        for line in examined.view.lines(path, rf"^\s*(blacklist|install|options)\s+({names}|igb|ixgbe|i40e|be2net)\b"):
            words = line.split()
            module = words[1].replace("-", "_")
            is_barred = words[0] == "blacklist" or (words[0] == "install" and words[-1].endswith(("/false", "/true")))
            if is_barred and module not in loaded:
                yield warn(
                    f"{path}: {line.strip()}: {module} is not loaded by itself",
                    f"remove that line, `modprobe {module}`",
                )
            elif words[0] == "options" and re.search(r"\b(max_vfs|num_vfs)=[^0]", line):
                yield warn(f"{path}: {line.strip()}: the driver makes VFs by itself", "remove that option, reboot")


@check("lockdown", "kernel", "security/lockdown; kernel/module/signing.c")
def check_lockdown(examined: Examined) -> Iterator[Finding]:
    """Under lockdown or enforced signatures the modules that the config wants are signed."""
    mode = re.search(r"\[(\w+)\]", examined.view.text("/sys/kernel/security/lockdown") or "")
    enforced = examined.view.text("/sys/module/module/parameters/sig_enforce") == "Y"
    if not enforced and (mode is None or mode[1] == "none"):
        yield ok("unsigned modules may be loaded")
        return
    state = f"lockdown is {mode[1]}" if mode and mode[1] != "none" else "the kernel enforces signatures"
    wanted = sorted(driver for driver in examined.wanted_drivers() if not is_vfio(driver))
    for driver in wanted:
        if _read_signature(examined, driver) == "unsigned":
            yield fail(
                f"{state}: module {driver} is not signed, and is refused",
                "write driver: vfio-pci in the config, or sign it and enrol the key (`mokutil --import`)",
            )
        elif mode and mode[1] != "none":
            yield warn(
                f"{state}: {driver} may be refused access to PCI registers", "write driver: vfio-pci in the config"
            )
    if not wanted:
        yield ok(f"{state}; no driver that it could refuse is wanted")


def _read_signature(examined: Examined, driver: str) -> str:
    module = driver.replace("-", "_")

    def look() -> Iterator[str]:
        yield _find_signature(module, Path(examined.view.place(f"/lib/modules/{read_release(examined)}")))

    return (examined.view.ask(f"signature-{module}", look) or ["unknown"])[0]


def _find_signature(module: str, folder: Path) -> str:
    try:
        lines = (folder / "modules.dep").read_text(errors="replace").splitlines()
    except OSError:
        return "unknown"
    for line in lines:
        path = folder / line.partition(":")[0]
        unpack = _UNPACKERS.get(path.suffix)
        if path.name.partition(".ko")[0].replace("-", "_") == module and unpack:
            return "signed" if unpack(path.read_bytes()).endswith(_SIGNED) else "unsigned"
    return "unknown"


@check("hugepages", "kernel", "Documentation/admin-guide/mm/hugetlbpage.rst; DPDK, doc/guides/linux_gsg/sys_reqs.rst")
def check_hugepages(examined: Examined) -> Iterator[Finding]:
    """There are huge pages for DPDK, on the NUMA nodes of the PFs as well."""
    if not examined.wanted_drivers():
        raise SkipError("no VF is for a program in user space")
    folder = "/sys/kernel/mm/hugepages"
    sizes = examined.view.names(folder, r"^hugepages-\d+kB$")
    total = {size: examined.view.number(f"{folder}/{size}/nr_hugepages") or 0 for size in sizes}
    free = {size: examined.view.number(f"{folder}/{size}/free_hugepages") or 0 for size in sizes}
    if not any(total.values()):
        yield warn(
            "there are no huge pages: DPDK in a pod does not start",
            "`echo 1024 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`, and `vm.nr_hugepages=1024` in "
            "/etc/sysctl.d; then `systemctl restart kubelet`",
        )
        return
    counts = ", ".join(
        f"{total[size]} of {size.removeprefix('hugepages-')}, {free[size]} free" for size in sizes if total[size]
    )
    yield ok(f"huge pages: {counts}")
    yield from _check_numa_pages(examined)


def _check_numa_pages(examined: Examined) -> Iterator[Finding]:
    nodes = examined.view.names("/sys/devices/system/node", r"^node\d+$")
    for number in sorted({pf.numa_node for pf in examined.sriov_pfs() if pf.numa_node is not None}):
        folder = f"/sys/devices/system/node/node{number}/hugepages"
        pages = [
            examined.view.number(f"{folder}/{size}/nr_hugepages") or 0 for size in examined.view.names(folder, "^huge")
        ]
        if len(nodes) > 1 and pages and not any(pages):
            names = ", ".join(pf.name for pf in examined.sriov_pfs() if pf.numa_node == number)
            size = "hugepages-2048kB/nr_hugepages"
            yield warn(f"{names}: NUMA node {number} has no huge pages", f"`echo 1024 > {folder}/{size}`")


CHECKS = (
    check_version,
    check_iommu,
    check_groups,
    check_noiommu,
    check_lockdown,
    check_modules,
    check_hugepages,
)
