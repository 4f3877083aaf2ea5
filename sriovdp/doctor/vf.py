"""Checks of VFs: how many, their drivers, netdevs, MACs, and who has them."""

import errno
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial

from sriovdp.doctor.check import Finding, SkipError, check, fail, ok, warn
from sriovdp.doctor.examined import Examined, choose_driver, name_pf, name_vf_of, name_vfs
from sriovdp.kernel.drivers import is_bound_as_wanted
from sriovdp.kernel.sysfs import list_names, read_target, read_text
from sriovdp.model import ZERO_MAC, PhysicalFunction, VirtualFunction, is_userspace, is_vfio

_NO_OVERRIDE = frozenset({None, "", "(null)"})


@check("vf-count", "vf", "drivers/pci/iov.c, sriov_numvfs_store")
def check_count(examined: Examined) -> Iterator[Finding]:
    """Each PF has as many VFs as the config wants, and as the kernel counts."""
    for pf in examined.sriov_pfs():
        counted = examined.view.number(f"/sys/bus/pci/devices/{pf.address}/sriov_numvfs")
        if counted is not None and counted != len(pf.vfs):
            yield fail(
                f"{name_pf(pf)}: the kernel counts {counted} VFs, {len(pf.vfs)} are there",
                "`dmesg | grep -i virtfn`; reboot",
            )
    for pf, entry in examined.entries():
        wanted = pf.total_vfs if entry.num_vfs == "max" else entry.num_vfs
        if len(pf.vfs) != wanted and wanted <= pf.total_vfs:
            by_others = entry.externally_managed
            fix = "let its maker make them (externallyManaged)" if by_others else "`sriovdp plan`, then `sriovdp apply`"
            yield fail(f"{name_pf(pf)}: it has {len(pf.vfs)} VFs, the config wants {wanted}", fix)
    if not any(examined.vfs()) and examined.config is None:
        raise SkipError("there are no VFs, and no config that wants any")


@check("vf-driver", "vf", "drivers/pci/pci-driver.c, pci_device_can_probe")
def check_driver(examined: Examined) -> Iterator[Finding]:
    """Each VF is on the driver that the config wants, or on one at all."""
    entries = {pf.address: entry for pf, entry in examined.entries()}
    alike: dict[tuple[str, str | None, str | None], list[tuple[PhysicalFunction, VirtualFunction]]] = {}
    for pf, vf in _demand_vfs(examined):
        entry = entries.get(pf.address)
        wanted = choose_driver(pf, entry.vf(vf.index)) if entry else None
        if entry and entry.num_vfs not in {"max", len(pf.vfs)} and not entry.externally_managed:
            continue  # they are made again
        if not is_bound_as_wanted(vf.driver, wanted) if wanted else vf.driver is None:
            alike.setdefault((pf.address, vf.driver, wanted), []).append((pf, vf))
    for (_, driver, wanted), places in alike.items():
        name, vf = name_vfs(places[0][0], [vf for _, vf in places]), places[0][1]
        if wanted:
            yield fail(f"{name}: on {driver or 'no driver'}, the config wants {wanted}", "`sriovdp apply`")
        else:
            yield warn(f"{name}: no driver is bound to it", f"`echo {vf.address} > /sys/bus/pci/drivers_probe`")


@check("vf-netdev", "vf", "Documentation/ABI/testing/sysfs-class-net")
def check_netdev(examined: Examined) -> Iterator[Finding]:
    """Each VF on a kernel driver has a netdev, here or in a pod."""
    attached = {entry.device for entry in examined.surveyed[0]} if examined.has_journal else set()
    for pf, vf in _demand_vfs(examined):
        if vf.driver and not is_userspace(vf.driver) and vf.netdev is None and vf.address not in attached:
            if pf.netdev is None:
                continue  # an accelerator
            yield warn(
                f"{name_vf_of(pf, vf)}: it is on {vf.driver} and has no netdev here, and no pod has it by the journal",
                f"`ip netns`, `dmesg | grep {vf.address}`: it is in a namespace, or its driver failed",
            )


@check("vf-macs", "vf", "net/core/rtnetlink.c, IFLA_VF_MAC; mellanox/mlx5/core/eswitch.c, spoofchk with a zero MAC")
def check_macs(examined: Examined) -> Iterator[Finding]:
    """No two VFs have one admin MAC, and no netdev has another than its VF."""
    places = [(pf, vf) for pf, vf in _demand_vfs(examined) if vf.settings]
    if not places:
        raise SkipError("settings of VFs were not read: no PF here has any")
    counted = Counter(vf.settings.mac for _, vf in places if vf.settings)
    for pf, vf in places:
        mac = vf.settings.mac if vf.settings else ZERO_MAC
        if mac != ZERO_MAC and counted[mac] > 1:
            yield fail(
                f"{name_vf_of(pf, vf)}: its admin MAC {mac} is that of {counted[mac] - 1} other VFs", "`sriovdp apply`"
            )
        elif mac != ZERO_MAC and vf.netdev and vf.netdev.mac != mac and vf.settings and vf.settings.spoofchk:
            yield warn(
                f"{name_vf_of(pf, vf)}: its netdev has MAC {vf.netdev.mac}, the PF holds {mac}, and spoofchk is on: "
                "what it sends is dropped",
                f"`ip link set {vf.netdev.name} address {mac}`",
            )


@check("vf-reading", "vf", "intel/i40e/i40e_virtchnl_pf.c, i40e_ndo_get_vf_config; intel/ice/ice_vf_lib.c")
def check_unread(examined: Examined) -> Iterator[Finding]:
    """The kernel reports the settings of every VF: none is stuck in reset."""
    for pf in examined.sriov_pfs():
        for vf in pf.unread:
            yield warn(
                f"{name_vf_of(pf, vf)}: the kernel leaves it out of its list: it is in reset, or its driver hangs",
                f"look again; then `echo 1 > /sys/bus/pci/devices/{vf.address}/reset`; `dmesg | grep {pf.address}`",
            )


@check("leftovers", "vf", "drivers/pci/iov.c, sriov_drivers_autoprobe; drivers/pci/pci-sysfs.c, driver_override")
def check_leftovers(examined: Examined) -> Iterator[Finding]:
    """No PF is left with autoprobe off, no VF with a driver_override that is not its driver."""
    for pf in examined.sriov_pfs():
        if not pf.autoprobe:
            yield warn(
                f"{name_pf(pf)}: sriov_drivers_autoprobe is 0: new VFs get no driver",
                f"`echo 1 > /sys/bus/pci/devices/{pf.address}/sriov_drivers_autoprobe`",
            )
        for vf in pf.vfs:
            override = examined.view.text(f"/sys/bus/pci/devices/{vf.address}/driver_override")
            if override not in _NO_OVERRIDE and override != vf.driver:
                yield warn(
                    f"{name_vf_of(pf, vf)}: driver_override is {override}, it is on {vf.driver or 'no driver'}",
                    f"`echo > /sys/bus/pci/devices/{vf.address}/driver_override`",
                )


@check("vf-holders", "vf", "drivers/vfio/vfio_main.c, vfio_unregister_group_dev")
def check_holders(examined: Examined) -> Iterator[Finding]:
    """No program has a VF open that no pod has by the journal."""
    attached = {entry.device for entry in examined.surveyed[0]} if examined.has_journal else set()
    nodes = {f"/dev/vfio/{vf.iommu_group}": (pf, vf) for pf, vf in examined.vfs() if is_vfio(vf.driver)}
    nodes |= {f"/dev/{vf.uio}": (pf, vf) for pf, vf in examined.vfs() if vf.uio}
    if not nodes:
        raise SkipError("no VF is on a driver for user space")
    for line in examined.view.ask("holders", partial(_list_open, examined.view.place("/proc"))):
        node, _, program = line.partition(" ")
        if node in nodes and nodes[node][1].address not in attached:
            yield ok(f"{name_vf_of(*nodes[node])}: {program} has it open, so it is not changed")


def _list_open(proc: str) -> Iterator[str]:
    """Nodes of vfio and UIO that programs have open, and the programs. Opens none itself: a group has one user."""
    if os.geteuid() != 0:
        raise PermissionError(errno.EACCES, "what other programs have open is not shown")
    for process in filter(str.isdecimal, list_names(proc)):
        folder = f"{proc}/{process}"
        opened = {read_target(f"{folder}/fd/{number}") or "" for number in list_names(f"{folder}/fd")}
        for node in sorted(opened):
            if node.startswith(("/dev/vfio/", "/dev/uio")):
                yield f"{node} process {process} ({read_text(f'{folder}/comm')})"


def _demand_vfs(examined: Examined) -> list[tuple[PhysicalFunction, VirtualFunction]]:
    found = list(examined.vfs())
    if not found:
        raise SkipError("there are no VFs")
    return found


CHECKS = (check_count, check_driver, check_netdev, check_macs, check_unread, check_leftovers, check_holders)
