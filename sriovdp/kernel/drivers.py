"""Binding a VF to a driver: driver_override and drivers_probe, verified by the driver link; never new_id."""

import subprocess
import time
from collections.abc import Collection
from pathlib import Path

from sriovdp.errors import DeviceError, KernelError, VerifyError
from sriovdp.kernel.device_name import named
from sriovdp.kernel.netdevs import find_netdev
from sriovdp.kernel.sysfs import Sysfs, list_names, read_link, read_text, write_text
from sriovdp.model import KERNEL_DRIVER, NO_DRIVER, USERSPACE_DRIVERS

_VFIO = "vfio-pci"
_VIABLE_DRIVERS = frozenset({None, _VFIO, "pci-stub", "pcieport"})  # drivers/vfio, vfio_dev_viable; DMA ownership
_BRIDGE_CLASS = "0x0604"
_MODPROBE_TIMEOUT = 60.0
_NETDEV_TIMEOUT = 10.0  # seconds; slow drivers register their netdev a while after the probe


def current_driver(sysfs: Sysfs, address: str) -> str | None:
    """Name of the driver a PCI function is bound to."""
    return read_link(sysfs.pci(address) / "driver")


@named
def resolve_driver(sysfs: Sysfs, address: str, wanted: str) -> str:
    """The driver's real name: for `kernel`, the one that the function's modalias asks for; loads its module.

    Raises DeviceError when there is no such driver on this machine.
    """
    if wanted == KERNEL_DRIVER:
        return _kernel_driver(sysfs, address)
    if not _driver_path(sysfs, wanted).is_dir():
        _load_module(wanted)
    if not _driver_path(sysfs, wanted).is_dir():
        raise DeviceError(
            f"binding to {wanted} failed: the kernel has no PCI driver of that name",
            hint=f"install the module for this kernel; `modprobe {wanted}` must make {_driver_path(sysfs, wanted)}",
        )
    return wanted


def is_bound_as_wanted(driver: str | None, wanted: str) -> bool:
    """Whether a driver fulfils what the config asks for: `kernel` is any driver not for user space, `none` none."""
    if wanted == NO_DRIVER:
        return driver is None
    if wanted == KERNEL_DRIVER:
        return driver is not None and driver not in USERSPACE_DRIVERS
    return driver == wanted


@named
def bind(sysfs: Sysfs, address: str, driver: str, companions: Collection[str] = (), *, noiommu: bool = False) -> None:
    """Bind a function to the named driver, unbinding it first, and read back that it is bound.

    `companions` are functions that are about to get a driver for user space too. `noiommu`: vfio-pci may have it
    without an IOMMU. On failure the previous driver is put back. Raises DeviceError (its IOMMU group does not allow
    vfio-pci), KernelError (the kernel refused) or VerifyError (it did not bind after all).
    """
    previous = current_driver(sysfs, address)
    if previous == driver:
        return
    if driver == _VFIO:
        check_iommu_group(sysfs, address, companions, noiommu=noiommu)
        if not (sysfs.pci(address) / "iommu_group").exists():
            _allow_noiommu(sysfs)
    try:
        _probe(sysfs, address, driver)
    except (KernelError, VerifyError) as error:
        if previous is not None and current_driver(sysfs, address) != previous:
            _put_back(sysfs, address, previous, error)
        raise


def _put_back(sysfs: Sysfs, address: str, previous: str, cause: KernelError | VerifyError) -> None:
    try:
        _probe(sysfs, address, previous)
    except (KernelError, VerifyError) as error:
        cause.message = f"{cause.message}; and it did not go back to {previous}: {error.message}"


@named
def check_iommu(sysfs: Sysfs, address: str, *, noiommu: bool) -> None:
    """Raises DeviceError when vfio-pci has no IOMMU to protect the host with, and may not or cannot go without."""
    if (sysfs.pci(address) / "iommu_group").exists():
        return
    if noiommu and _noiommu_switch(sysfs).exists():
        return
    if noiommu:
        raise DeviceError(
            "binding to vfio-pci failed: it is in no IOMMU group, and this kernel's vfio cannot go without",
            hint="a kernel with CONFIG_VFIO_NOIOMMU can; or use igb_uio or uio_pci_generic",
        )
    raise DeviceError(
        "binding to vfio-pci failed: it is in no IOMMU group",
        hint=(
            "switch the IOMMU on in the firmware and boot with intel_iommu=on (Intel) or amd_iommu=on (AMD); to go "
            "without any protection, write noiommu: true into its range of the config"
        ),
    )


def has_no_iommu(sysfs: Sysfs) -> bool:
    """Whether this machine has no IOMMU at work."""
    folder = sysfs.root / "class/iommu"
    return folder.is_dir() and not list_names(folder)


@named
def check_iommu_group(sysfs: Sysfs, address: str, companions: Collection[str] = (), *, noiommu: bool = False) -> None:
    """Raises DeviceError when vfio could not open the function's IOMMU group, as others in it have kernel drivers."""
    check_iommu(sysfs, address, noiommu=noiommu)
    group = read_link(sysfs.pci(address) / "iommu_group")
    others = set(list_names(sysfs.root / f"kernel/iommu_groups/{group}/devices")) - {address, *companions}
    in_the_way = [
        f"{other} ({current_driver(sysfs, other)})" for other in sorted(others) if not _is_viable(sysfs, other)
    ]
    if in_the_way:
        raise DeviceError(
            f"binding to vfio-pci failed: its IOMMU group {group} has functions with other drivers: "
            f"{', '.join(in_the_way)}",
            hint="a group goes to user space as a whole; use a slot with ACS, or bind those to vfio-pci too",
        )


def _is_viable(sysfs: Sysfs, address: str) -> bool:
    is_bridge = (read_text(sysfs.pci(address) / "class") or "").startswith(_BRIDGE_CLASS)
    return is_bridge or current_driver(sysfs, address) in _VIABLE_DRIVERS


def _noiommu_switch(sysfs: Sysfs) -> Path:
    return sysfs.root / "module/vfio/parameters/enable_unsafe_noiommu_mode"


def _allow_noiommu(sysfs: Sysfs) -> None:
    """Let vfio take functions without an IOMMU; it stays so until the next boot."""
    if read_text(_noiommu_switch(sysfs)) != "Y":
        write_text(_noiommu_switch(sysfs), "Y")


@named
def unbind(sysfs: Sysfs, address: str) -> None:
    """Take a function away from its driver, if it has one. Raises KernelError, VerifyError."""
    path = sysfs.pci(address)
    if current_driver(sysfs, address) is None:
        return
    write_text(path / "driver/unbind", address)
    if (still := current_driver(sysfs, address)) is not None:
        raise VerifyError(f"unbinding failed: it is still bound to {still}")


@named
def wait_for_netdev(sysfs: Sysfs, address: str) -> str:
    """Name of the function's netdev in this network namespace, awaited after a bind. Raises DeviceError."""
    deadline = time.monotonic() + _NETDEV_TIMEOUT
    while True:
        if name := find_netdev(sysfs, address):
            return name
        if time.monotonic() > deadline:
            driver = current_driver(sysfs, address)
            raise DeviceError(
                f"no netdev {_NETDEV_TIMEOUT:.0f} s after it was bound to {driver}",
                hint="the kernel log (dmesg) has the driver's reason",
            )
        time.sleep(0.02)


def _probe(sysfs: Sysfs, address: str, driver: str) -> None:
    """Probe with driver_override set, which a VF needs even for its own driver when sriov_drivers_autoprobe is 0.

    Without an override the PF's autoprobe flag lets every probe of its VFs fail (drivers/pci/pci-driver.c,
    pci_device_can_probe).
    """
    override = sysfs.pci(address) / "driver_override"
    write_text(override, driver)  # before it is unbound: from then on no other driver can take it
    try:
        unbind(sysfs, address)
        write_text(sysfs.root / "bus/pci/drivers_probe", address)
    finally:
        write_text(override, "\n")
    bound = current_driver(sysfs, address)
    if bound != driver:
        raise VerifyError(
            f"it was probed for {driver} but is {f'bound to {bound}' if bound else 'unbound'}",
            hint="the kernel log (dmesg) has the driver's reason",
        )


def _kernel_driver(sysfs: Sysfs, address: str) -> str:
    """The driver for a function's modalias: what modprobe would load, then what that module registers."""
    modalias = read_text(sysfs.pci(address) / "modalias") or ""
    listed = _run_modprobe("--resolve-alias", modalias)
    for module in listed.stdout.split():
        if module.replace("_", "-") in USERSPACE_DRIVERS or module in USERSPACE_DRIVERS:
            continue
        _load_module(module)
        for name in (module, *list_names(sysfs.root / "module" / module / "drivers")):
            driver = name.removeprefix("pci:")
            if _driver_path(sysfs, driver).is_dir():
                return driver
    raise DeviceError(
        f"binding to its kernel driver failed: no module of this kernel knows {modalias}",
        hint="install the kernel's full module package",
    )


def _driver_path(sysfs: Sysfs, driver: str) -> Path:
    return sysfs.root / "bus/pci/drivers" / driver


def _load_module(module: str) -> None:
    loaded = _run_modprobe("--", module)
    if loaded.returncode != 0 and loaded.stderr:
        raise DeviceError(
            f"loading module {module} failed: {loaded.stderr.strip()}",
            hint="install the module for this kernel; the kernel log (dmesg) has the reason when it is there",
        )


def _run_modprobe(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["modprobe", *arguments], capture_output=True, text=True, timeout=_MODPROBE_TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise DeviceError("modprobe is not installed", hint="install the package kmod") from None
    except OSError as error:
        raise KernelError(f"starting modprobe failed: {error.strerror}", errno=error.errno or 0) from error
    except subprocess.TimeoutExpired:
        asked = " ".join(arguments)
        raise DeviceError(f"`modprobe {asked}` did not end within {_MODPROBE_TIMEOUT:.0f} s") from None
