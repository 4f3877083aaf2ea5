"""A VF on the host's side: where it is, how it is set, what drives it, and its way into a sandbox."""

import errno
import logging
import os
import threading
import time
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass

from cni.protocol.spec import DEVICE_FAILURE
from cni.vf.names import clear_name
from sriovdp.errors import CniError, DeviceError, InUseError, KernelError, VerifyError
from sriovdp.kernel import drivers, netdevs
from sriovdp.kernel.abilities import TABLE, may_list_none
from sriovdp.kernel.device_name import find_vf_index, named
from sriovdp.kernel.devlink_port import set_vf_mac
from sriovdp.kernel.holders import find_holder
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.rtnl.tuning import Tuning
from sriovdp.kernel.sysfs import Folder, Sysfs, read_link
from sriovdp.kernel.tuning import read_tuning
from sriovdp.model import ZERO_MAC, PciAddress, VfSettings, escape_unprintable, is_userspace, name_vf
from sriovdp.state.journal import Original

logger = logging.getLogger(__name__)

_UNREAD_PATIENCE = 5.0  # seconds; as for a VF that is busy
_UNREAD_PAUSE = 0.1
_LIST_NONE = frozenset(one.driver for one in TABLE.values() if one.may_list_none)
_NETWORK_CLASS = "0x02"
# a driver without that setting, or with half of it; ENOTSUPP (524) is for inside the kernel only, and bnxt_en gives it
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, 524})
_LOOKS = 3
_VERBS = "infiniband_verbs"  # what a function with an RDMA device has, wherever that is
# what drivers say to a setting that they do not take; anything else is no matter of one setting
_REFUSALS = _UNSUPPORTED | {errno.EINVAL, errno.EPERM, errno.ERANGE}
_VLAN_NAMES = frozenset({"vlan", "qos", "vlan_proto"})  # they keep pods apart
# what the kernel sets as a whole; in this order the kernel sets them within one request too (do_setvfinfo)
_GROUPS = (
    ("mac",),
    ("vlan", "qos", "vlan_proto"),
    ("min_tx_rate", "max_tx_rate"),
    ("spoofchk",),
    ("link_state",),
    ("trust",),
)
TURNS = threading.RLock()
"""Held while the driver of an RDMA device is bound again: the kernel numbers device and nodes by what is free."""


@dataclass(frozen=True, slots=True)
class Vf:
    """Which VF it is, and the settings that the PF held for it when it was looked up.

    `pf_ifindex`, `settings` and `pf_mtu` are None when the PF has no netdev in the host's network namespace; `settings`
    is None too when the PF's driver has none of its VFs, and when it could not read this one: `is_unread`. `pf` is its
    name, or its PCI address then; `pf_address` is the latter in any case, empty where it is not known. In a virtual
    machine the PF is its host's: then `index` is None, and `pf` the function's own netdev. `infiniband` is the link
    type of the PF, or without a PF that of the VF's netdev.
    """

    address: PciAddress
    index: int | None
    pf_ifindex: int | None
    settings: VfSettings | None
    pf_mtu: int | None = None
    pf: str = "PF"
    infiniband: bool = False
    is_unread: bool = False
    pf_address: str = ""

    def __str__(self) -> str:
        if self.index is None:
            return escape_unprintable(f"{self.pf} ({self.address})" if self.pf else self.address)
        return name_vf(self.pf, self.index, self.address)

    def explain(self) -> str:
        """Why nothing of the VF can be set through its PF."""
        if self.index is None:
            return "its PF is not on this machine, as in a virtual machine"
        if self.pf_ifindex is None:
            return "its PF has no netdev on the host"
        if self.is_unread:
            return (
                f"the kernel left it out of the list of {self.pf}'s VFs for {_UNREAD_PATIENCE:.0f} s, as one in reset"
            )
        return f"the driver of {self.pf} has no settings of it"


def is_alone(sysfs: Sysfs, address: str) -> bool:
    """Whether this is a network function that has no PF here and is none: what a virtual machine sees of a VF."""
    folder = Folder(f"{sysfs.root}/bus/pci/devices/{address}")
    if folder.has("physfn") or folder.has("sriov_totalvfs"):
        return False
    return (folder.text("class") or "").startswith(_NETWORK_CLASS)


def is_vf(sysfs: Sysfs, address: str) -> bool:
    """Whether this is a VF, or what may be one whose PF is not here."""
    return os.path.lexists(f"{sysfs.root}/bus/pci/devices/{address}/physfn") or is_alone(sysfs, address)


def find_vf(sysfs: Sysfs, netlink: Netlink, address: PciAddress) -> Vf:
    """Look a VF up, also one whose PF is not here. Raises DeviceError when there is no such VF."""
    pf_path = f"{sysfs.pci(address)}/physfn"
    index = find_vf_index(pf_path, address)
    if index is None and is_alone(sysfs, address):
        own = find_netdev(sysfs, netlink, address)
        infiniband = own is not None and own.infiniband
        return Vf(address, None, None, None, pf=own.name if own else "", infiniband=infiniband)
    if index is None:
        raise DeviceError(f"{address} is no VF", hint="`sriovdp discover` lists the VFs there are")
    name = netdevs.find_pf_netdev(sysfs, address)
    driver = read_link(f"{pf_path}/driver")
    found = _find_with_vf(netlink, name, index, driver) if name else None
    if not found:
        own = find_netdev(sysfs, netlink, address)
        infiniband = own is not None and own.infiniband
        return Vf(address, index, None, None, pf=name or read_link(pf_path) or "PF", infiniband=infiniband)
    link, settings, listed = found
    is_unread = settings is None and (bool(listed) or (listed == 0 and not may_list_none(driver)))
    pf = read_link(pf_path) or ""
    return Vf(address, index, link.ifindex, settings, link.mtu, link.name, link.infiniband, is_unread, pf)


def _find_with_vf(
    netlink: Netlink, pf: str, index: int, driver: str | None
) -> tuple[Link, VfSettings | None, int | None] | None:
    """A VF that the kernel leaves out is looked for again: drivers do so for a moment, or while a VF is in reset.

    A look that takes long blocks all network changes of the node (ice: 0.8 s for each VF in reset): pauses are as long.
    """
    began = time.monotonic()
    while True:
        started = time.monotonic()
        found = netlink.find_with_vf(pf, index)
        now = time.monotonic()
        if not found or found[1] or found[2] is None or (found[2] == 0 and driver in _LIST_NONE):
            return found
        if now - began > _UNREAD_PATIENCE:
            return found
        time.sleep(max(_UNREAD_PAUSE, now - started))


def find_netdev(sysfs: Sysfs, netlink: Netlink, address: PciAddress) -> Link | None:
    """The VF's netdev in the host's network namespace. Looked for again when udev renames it meanwhile."""
    for _ in range(_LOOKS):
        name = netdevs.find_netdev(sysfs, address)
        if name is None or (link := netlink.find(name)):
            return link if name else None
    return None


def read_original(sysfs: Sysfs, netlink: Netlink, vf: Vf) -> Original:
    """How the VF is now, for the journal. Raises CniError when its netdev should be on the host and is not."""
    driver = drivers.current_driver(sysfs, vf.address)
    if driver is None or is_userspace(driver):
        return Original(driver or "", vf.settings)
    name = netdevs.find_netdev(sysfs, vf.address)
    found = _read_netdev(sysfs, netlink, name, vf) if name else None
    if found is None:
        raise CniError(
            DEVICE_FAILURE,
            f"{vf}: it is bound to {driver} but has no netdev on the host",
            hint="it is in another network namespace, or the driver failed (dmesg)",
        )
    device, tuning = found
    flags = (device.up, device.promisc, device.allmulti)
    all_netdevs = netdevs.list_netdevs(sysfs, vf.address)
    number = min(all_netdevs) if len(all_netdevs) > 1 else None
    return Original(driver, vf.settings, device.name, device.altnames, device.mac, device.mtu, *flags, tuning, number)


def _read_netdev(sysfs: Sysfs, netlink: Netlink, name: str, vf: Vf) -> tuple[Link, Tuning | None] | None:
    """A netdev of the host and how it is tuned; None for a tuning that cannot be read."""
    try:
        return read_tuning(netlink, f"{sysfs.root}/class/net/{name}")
    except KernelError as error:
        logger.warning("%s: %s; each release binds the driver again, as what a pod changed cannot be found", vf, error)
    device = netlink.find(name)
    return (device, None) if device else None


def refuse_settings(vf: Vf, names: Collection[str], *, skip_unsupported: bool = False) -> list[str]:
    """Settings of a VF whose PF takes none: gives their names where they may be skipped; a VLAN never may.

    Nothing is skipped of a VF that cannot be read just now. Raises CniError with their names and the reason.
    """
    if names and vf.is_unread:
        raise CniError(
            DEVICE_FAILURE,
            f"{vf}: setting {', '.join(names)} failed: its settings cannot be read: {vf.explain()}",
            hint="see the kernel log (dmesg) for its driver's reason, then try again",
        )
    if names and (not skip_unsupported or _VLAN_NAMES.intersection(names)):
        raise CniError(
            DEVICE_FAILURE,
            f"{vf}: setting {', '.join(names)} failed: {vf.explain()}",
            hint="leave these keys out, or use a VF whose PF is here and takes them",
        )
    for name in names:
        logger.warning("%s: skipped %s: %s", vf, name, vf.explain())
    return list(names)


def apply_settings(
    netlink: Netlink, vf: Vf, wanted: VfSettings, *, skip_unsupported: bool = False, skip_mac: bool = False
) -> list[str]:
    """Set what differs from the settings that `vf` was looked up with, in one request.

    When the driver refuses that, one after the other, so that the error names the one that the NIC does not take. Gives
    the names of settings that the NIC does not have, where those may be skipped; a VLAN never may, and a MAC may with
    `skip_mac`, as then the netdev gets it. Raises KernelError, and CniError when nothing can be set through the PF.
    """
    if vf.settings is None or vf.pf_ifindex is None or vf.index is None:
        named = VfSettings(ZERO_MAC).changes_to(wanted) or ({"mac": wanted.mac} if vf.is_unread else {})
        refuse_settings(vf, list(named))
        return []
    changes = vf.settings.changes_to(wanted)
    groups = [{name: changes[name] for name in group} for group in _GROUPS if group[0] in changes]
    if len(groups) > 1:
        try:
            netlink.set_vf(vf.pf_ifindex, vf.index, changes)
            return []
        except KernelError as error:
            if error.errno not in _REFUSALS:
                raise
            logger.info("%s: %s; setting one after the other", vf, error)
    skipped: list[str] = []
    for group in groups:
        try:
            netlink.set_vf(vf.pf_ifindex, vf.index, group)
        except KernelError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            if "mac" in group and _set_mac_by_port(vf, str(group["mac"])):
                continue
            may_skip = skip_unsupported or (skip_mac and "mac" in group)
            if "vlan" in group or not may_skip:
                error.hint = _hint_at_refusal(group)
                raise
            logger.warning("%s: skipped what the NIC does not support: %s", vf, error.message)
            skipped += group
    return skipped


def _hint_at_refusal(group: Collection[str]) -> str:
    if "vlan" in group:  # it keeps pods apart: without it the VF would be in another network
        return "this NIC or its driver lacks that; use a VLAN and protocol that it has, or another NIC"
    return 'this NIC or its driver lacks that; leave the key out, or set "onUnsupported": "warn"'


def _set_mac_by_port(vf: Vf, mac: str) -> bool:
    """Set a MAC by the VF's devlink port, which is there in switchdev mode. Gives whether it was taken."""
    if vf.index is None or not vf.pf_address:
        return False
    try:
        set_vf_mac(vf.pf_address, vf.index, mac)
    except KernelError as error:
        logger.info("%s: %s", vf, error)
        return False
    return True


def set_netdev_mac(sysfs: Sysfs, netlink: Netlink, vf: Vf, mac: str) -> None:
    """Give the VF's netdev on the host its MAC, after the PF has it.

    Some drivers refuse the change while they are bound (igb: «Reload the VF driver»); then the driver is bound again,
    and the VF comes up with the admin MAC. Raises VerifyError when it has another one even then.
    """
    device = find_netdev(sysfs, netlink, vf.address)
    if device is not None and device.mac == mac:
        return
    try:
        _change_mac(sysfs, netlink, vf, mac)
    except KernelError as error:
        logger.info("%s: binding the driver again: %s", vf, error)
        bind_again(sysfs, vf.address, drivers.current_driver(sysfs, vf.address) or "")
        if not _has_mac(sysfs, netlink, vf, mac):
            _change_mac(sysfs, netlink, vf, mac)
    if not _has_mac(sysfs, netlink, vf, mac):
        device = find_netdev(sysfs, netlink, vf.address)
        raise VerifyError(f"{vf}: its MAC is {device.mac if device else None} although {mac} was set")


def _has_mac(sysfs: Sysfs, netlink: Netlink, vf: Vf, mac: str) -> bool:
    device = find_netdev(sysfs, netlink, vf.address)
    return device is not None and device.mac == mac


def _change_mac(sysfs: Sysfs, netlink: Netlink, vf: Vf, mac: str) -> None:
    device = find_netdev(sysfs, netlink, vf.address)
    if device is None:
        raise DeviceError(f"{vf}: its netdev vanished while its MAC was being set")
    netlink.set_link(device.ifindex, f"setting {device.name} down", state="down")
    netlink.set_link(device.ifindex, f"setting MAC {mac} of {device.name}", address=mac)


def bind_again(sysfs: Sysfs, address: PciAddress, driver: str) -> None:
    """Let a VF's driver make a new netdev, on the host, wherever the old one is. Raises KernelError, DeviceError."""
    with TURNS if os.path.lexists(sysfs.pci(address) / _VERBS) else nullcontext():
        drivers.unbind(sysfs, address)
        drivers.bind(sysfs, address, driver)
        drivers.wait_for_netdev(sysfs, address)


@named
def bind_driver(sysfs: Sysfs, address: PciAddress, wanted: str) -> bool:
    """Bind a VF to a driver, or to none if `wanted` is empty.

    Gives whether there was anything to do. Raises InUseError when a program has the VF open, and DeviceError or
    KernelError when it does not bind.
    """
    current = drivers.current_driver(sysfs, address)
    if (current or "") == wanted or (wanted and drivers.is_bound_as_wanted(current, wanted)):
        return False
    if holder := find_holder(sysfs, address):
        raise InUseError(
            f"binding to {wanted or 'no driver'} failed: {holder} has it open",
            hint="end that program or virtual machine; until then the VF stays on its driver",
        )
    if not wanted:
        drivers.unbind(sysfs, address)
        return True
    driver = drivers.resolve_driver(sysfs, address, wanted)
    drivers.bind(sysfs, address, driver)
    return True


def move_into(netlink: Netlink, device: Link, netns_fd: int, ifname: str) -> None:
    """Move and rename a netdev in one request: each change of namespace costs the kernel an RCU grace period.

    The kernel takes a device down when it changes its namespace. Raises KernelError, with EEXIST where the name is
    taken; the device may be in the sandbox then, as the kernel moves it first and renames it there.
    """
    clear_name(netlink, device, ifname)
    what = f"moving {device.name} into the sandbox as {ifname}"
    netlink.set_link(device.ifindex, what, net_ns_fd=netns_fd, ifname=ifname)
