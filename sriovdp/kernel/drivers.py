"""Binding a VF to a driver: driver_override and drivers_probe, verified by the driver link; never new_id."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from sriovdp.errors import DeviceError, KernelError, VerifyError, keep_first_error
from sriovdp.kernel.device_name import named
from sriovdp.kernel.modules import list_drivers, list_modules, load_module
from sriovdp.kernel.netdevs import find_netdev
from sriovdp.kernel.sysfs import Folder, Sysfs, list_names, read_link, read_text, write_text
from sriovdp.model import KERNEL_DRIVER, NO_DRIVER, is_userspace, is_vfio

_VIABLE_DRIVERS = frozenset({None, "pci-stub", "pcieport"})  # drivers/vfio, vfio_dev_viable; DMA ownership
_BRIDGE_CLASS = "0x0604"
_IDS = ("vendor", "device", "class")
_NETDEV_PATIENCE = 10.0  # seconds; slow drivers register their netdev a while after the probe


def current_driver(sysfs: Sysfs, address: str) -> str | None:
    """Name of the driver a PCI function is bound to."""
    return read_link(sysfs.pci(address) / "driver")


@named
def resolve_driver(sysfs: Sysfs, address: str, wanted: str) -> str:
    """The driver's real name: for `kernel`, the one that the function's modalias asks for; loads its module.

    It stays `kernel` where only the kernel itself can say, as with a driver that is built in: `bind` then lets it
    choose. Raises DeviceError when there is no such driver on this machine.
    """
    if wanted == KERNEL_DRIVER:
        return _find_kernel_driver(sysfs, address)
    if not _driver_path(sysfs, wanted).is_dir():
        load_module(wanted)
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
        return driver is not None and not is_userspace(driver)
    return driver == wanted


@named
def bind(sysfs: Sysfs, address: str, driver: str, companions: Collection[str] = (), *, noiommu: bool = False) -> None:
    """Bind a function to the named driver, unbinding it first, and read back that it is bound.

    With `kernel` the kernel chooses among the drivers that it has. `companions` are functions that are about to get a
    driver for user space too. `noiommu`: vfio-pci may have it without an IOMMU. On failure the previous driver is put
    back. Raises DeviceError (its IOMMU group does not allow vfio-pci), KernelError (the kernel refused) or VerifyError
    (it did not bind after all).
    """
    previous = current_driver(sysfs, address)
    if previous is not None and is_bound_as_wanted(previous, driver):
        return
    if is_vfio(driver):
        check_iommu_group(sysfs, address, companions, noiommu=noiommu)
        if not (sysfs.pci(address) / "iommu_group").exists():
            _allow_noiommu(sysfs)
    try:
        _probe(sysfs, address, driver)
    except (KernelError, VerifyError) as error:
        is_there = (sysfs.root / "bus/pci/devices" / address).exists()
        if previous is not None and is_there and current_driver(sysfs, address) != previous:
            _put_back(sysfs, address, previous, error)
        raise


def _put_back(sysfs: Sysfs, address: str, previous: str, cause: KernelError | VerifyError) -> None:
    try:
        _probe(sysfs, address, previous)
    except (KernelError, DeviceError) as error:
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
    driver = current_driver(sysfs, address)
    return is_bridge or driver in _VIABLE_DRIVERS or is_vfio(driver)


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
def wait_for_netdev(sysfs: Sysfs, address: str, number: int | None = None, patience: float = _NETDEV_PATIENCE) -> str:
    """Name of the function's netdev in this network namespace, awaited after a bind, `patience` seconds at most.

    `number` is as with `find_netdev`. Raises DeviceError.
    """
    deadline = time.monotonic() + patience
    while True:
        if name := find_netdev(sysfs, address, number):
            return name
        if time.monotonic() > deadline:
            driver = current_driver(sysfs, address)
            raise DeviceError(
                f"no netdev {patience:.0f} s after it was bound to {driver}",
                hint="the kernel log (dmesg) has the driver's reason",
            )
        time.sleep(0.02)


def _probe(sysfs: Sysfs, address: str, driver: str) -> None:
    """Probe with driver_override set, which a VF needs even for its own driver when sriov_drivers_autoprobe is 0.

    Without an override the PF's autoprobe flag lets every probe of its VFs fail (drivers/pci/pci-driver.c,
    pci_device_can_probe); so it is on for the moment when the kernel is to choose.
    """
    override = sysfs.pci(address) / "driver_override"
    is_free = driver == KERNEL_DRIVER
    write_text(override, "\n" if is_free else driver)  # before it is unbound: from then on no other driver can take it
    with keep_first_error(lambda: write_text(override, "\n")):
        unbind(sysfs, address)
        if is_free:
            with _autoprobe_on(sysfs, address):
                write_text(sysfs.root / "bus/pci/drivers_probe", address)
        else:
            write_text(sysfs.root / "bus/pci/drivers_probe", address)
    bound = current_driver(sysfs, address)
    if is_free and bound is None:
        modalias = read_text(sysfs.pci(address) / "modalias")
        raise VerifyError(
            f"binding to its kernel driver failed: no driver of this kernel, built in or module, takes {modalias}",
            hint="install the kernel's full module package; see the kernel log (dmesg) for a driver that failed",
        )
    if bound is None or not is_bound_as_wanted(bound, driver):
        raise VerifyError(
            f"it was probed for {driver} but is {f'bound to {bound}' if bound else 'unbound'}",
            hint="the kernel log (dmesg) has the driver's reason",
        )


@contextmanager
def _autoprobe_on(sysfs: Sysfs, address: str) -> Iterator[None]:
    """Let the VFs of a function's PF be probed without an override; a function that is no VF always is."""
    switch = sysfs.pci(address) / "physfn/sriov_drivers_autoprobe"
    if read_text(switch) != "0":
        yield
        return
    write_text(switch, "1")
    with keep_first_error(lambda: write_text(switch, "0")):
        yield


def _find_kernel_driver(sysfs: Sysfs, address: str) -> str:
    """The driver for a function's modalias: one that the kernel has, else of a module that can be loaded.

    A driver that is built in is in no list of modules by its device ids (include/linux/module.h, MODULE_DEVICE_TABLE):
    then a like function shows it, or the kernel is left to choose. Raises DeviceError when a module cannot be loaded.
    """
    modules = [name for name in list_modules(read_text(sysfs.pci(address) / "modalias") or "") if not _is_other(name)]
    registered = list_drivers(sysfs.root)
    for module in modules:
        if driver := _choose_registered(sysfs, module, registered):
            return driver
    if driver := _find_driver_of_twin(sysfs, address):
        return driver
    for module in modules:
        load_module(module)
        if driver := _choose_registered(sysfs, module, list_drivers(sysfs.root)):
            return driver
    return KERNEL_DRIVER


def _is_other(module: str) -> bool:
    """Whether a module is for user space: vfio-pci and its variants claim every device, with a driver_override."""
    return is_userspace(module) or is_userspace(module.replace("_", "-"))


def _choose_registered(sysfs: Sysfs, module: str, registered: Collection[str]) -> str | None:
    """The PCI driver of a module, which often has its name, with the other dash or in capitals (LiquidIO_VF)."""
    own = (name.removeprefix("pci:") for name in list_names(sysfs.root / "module" / module / "drivers"))
    return next((name for name in (module, *own, module.replace("_", "-")) if name in registered), None)


def _find_driver_of_twin(sysfs: Sysfs, address: str) -> str | None:
    """The kernel driver that a function with the same ids has, like the VF's neighbour, or its PF with virtio."""
    ids = _read_ids(sysfs, address)
    for other in sysfs.addresses():
        driver = read_link(sysfs.root / "bus/pci/devices" / other / "driver")
        if driver and driver not in _VIABLE_DRIVERS and not is_userspace(driver) and _read_ids(sysfs, other) == ids:
            return driver
    return None


def _read_ids(sysfs: Sysfs, address: str) -> list[str | None]:
    """Of a VF those that the kernel gives it (drivers/pci/iov.c, pci_iov_add_virtfn)."""
    folder = Folder(f"{sysfs.root}/bus/pci/devices/{address}")
    return [folder.text(name) for name in _IDS]


def _driver_path(sysfs: Sysfs, driver: str) -> Path:
    return sysfs.root / "bus/pci/drivers" / driver
