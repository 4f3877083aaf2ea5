"""Making a VF like new: as it was before it was attached.

No step of ADD is undone. The VF is compared with its recorded original, what differs is set, and all of it is read
back; so the same code serves a failed ADD, a DEL, and what a crash left behind. Where a pod changed what cannot be set
back in that way, the driver is bound again, which makes a new netdev.
"""

import logging
from dataclasses import asdict, replace

from cni import timing
from cni.vf.homecoming import fetch_home
from cni.vf.infiniband import agree_in_all, has_guid_of, is_infiniband, read_guid, restore_guids
from cni.vf.names import remove_altnames, restore_names
from cni.vf.rdma import fetch_home as fetch_rdma_home
from cni.vf.rdma import restore_names as restore_rdma_names
from cni.vf.settings import (
    Vf,
    apply_settings,
    bind_again,
    bind_driver,
    find_netdev,
    find_vf,
    is_vf,
    read_original,
    set_netdev_mac,
)
from sriovdp.errors import DeviceError, KernelError, VerifyError
from sriovdp.kernel import drivers
from sriovdp.kernel.device_name import DeviceName
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.tuning import find_changes, select_restorable
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import KERNEL_DRIVER, PciAddress
from sriovdp.state.journal import Attachment, Original

logger = logging.getLogger(__name__)


def restore_vf(sysfs: Sysfs, attachment: Attachment, netns_fd: int | None) -> None:
    """Make a VF as it was before the attachment, and read it back.

    `netns_fd` is the sandbox if it still exists. Raises SriovdpError when something is not as it was; to be called
    again then. Waits for nothing but the kernel and its drivers.
    """
    address = PciAddress(attachment.device)
    original = attachment.original
    if not is_vf(sysfs, address):
        logger.warning("%s: gone from this node; there is nothing to restore", address)
        return
    with Netlink() as netlink:
        is_new = _take_home(sysfs, attachment, netns_fd)
        timing.mark("move home")
        vf = find_vf(sysfs, netlink, address)
        if original.settings is not None:
            # before the netdev's MAC: without trust a driver takes only the MAC that the PF allows
            apply_settings(netlink, vf, original.settings)
            restore_guids(netlink, vf, original)
            timing.mark("settings on the PF")
        if original.name is None:
            now = read_original(sysfs, netlink, vf)
        else:
            now = _restore_netdev(sysfs, netlink, vf, original, is_new=is_new)
        if attachment.rdma and original.name is not None:
            restore_rdma_names(sysfs, address, sorted(attachment.rdma))
        _verify(vf, replace(now, settings=find_vf(sysfs, netlink, address).settings), original)


def _take_home(sysfs: Sysfs, attachment: Attachment, netns_fd: int | None) -> bool:
    """Get the VF to the host, on its old driver. Gives whether its netdev is a new one."""
    address = PciAddress(attachment.device)
    original = attachment.original
    is_new = False
    is_bound = original.name is not None and drivers.current_driver(sysfs, address) == original.driver
    if is_bound:
        # first, as IPoIB makes a new netdev on the host then
        has_rdma = fetch_rdma_home(sysfs, attachment, netns_fd)
        is_new = bool(attachment.rdma) and is_infiniband(original.mac)
        if not (fetch_home(sysfs, attachment, netns_fd) and has_rdma):
            is_new = True
            logger.warning(
                "%s: binding %s again: its %s is neither on the host nor in the sandbox of %s",
                *(
                    DeviceName(sysfs, address),
                    original.driver,
                    "netdev" if has_rdma else "RDMA device",
                    attachment.owner,
                ),
            )
            bind_again(sysfs, address, original.driver)
    is_new |= bind_driver(sysfs, address, original.driver)
    if original.name is not None:
        drivers.wait_for_netdev(sysfs, address, original.dev_port)
    return is_new


def _restore_netdev(sysfs: Sysfs, netlink: Netlink, vf: Vf, original: Original, *, is_new: bool) -> Original:
    """Make the netdev as it was; where it cannot be, let the driver make a new one. Gives how the VF is then."""
    device = find_netdev(sysfs, netlink, vf.address)
    if device is not None and is_infiniband(original.mac) and not has_guid_of(device.mac, original):
        logger.info("%s: binding %s again: its GUID is %s", vf, original.driver, device.guid)
        bind_again(sysfs, vf.address, original.driver)
        is_new = True
    if not is_new:
        try:
            now = _set_back(sysfs, netlink, vf, original)
            leftovers = _find_leftovers(now, original)
        except (KernelError, DeviceError) as error:
            leftovers = str(error)
        else:
            if not leftovers:
                return now
        logger.info("%s: binding %s again: %s", vf, original.driver, leftovers)
        bind_again(sysfs, vf.address, original.driver)
    now = _set_back(sysfs, netlink, vf, original)
    if original.tuning is not None and (lost := _find_leftovers(now, original)):
        logger.warning(
            "%s: %s made a new netdev, and the host's tuning of the old one is lost: %s", vf, now.driver, lost
        )
    return now


def _set_back(sysfs: Sysfs, netlink: Netlink, vf: Vf, original: Original) -> Original:
    """Set what is recorded and rtnetlink can set. Gives how the VF is then."""
    _set_recorded(sysfs, netlink, vf, original)
    now = read_original(sysfs, netlink, vf)
    if not (now.tuning and original.tuning):
        return now
    changes = select_restorable(find_changes(now.tuning, original.tuning))
    device = find_netdev(sysfs, netlink, vf.address) if changes else None
    if device is None:
        return now
    try:
        netlink.set_tuning(device.ifindex, changes)
    except KernelError as error:
        logger.info("%s: %s", vf, error)
    return read_original(sysfs, netlink, vf)


def _find_leftovers(now: Original, original: Original) -> str:
    """What a pod may have left on the netdev, in words."""
    if original.tuning is None:
        return "how the netdev was tuned before the pod is not recorded"
    if now.tuning is None:
        return "how the netdev is tuned cannot be read"
    changes = find_changes(now.tuning, original.tuning)
    found = [f"{name} is {now.tuning.get(name) or 'unset'}, was {was or 'unset'}" for name, was in changes.items()]
    found += [f"altname {altname}" for altname in sorted(set(now.altnames) - set(original.altnames))]
    return ", ".join(found)


def _set_recorded(sysfs: Sysfs, netlink: Netlink, vf: Vf, original: Original) -> None:
    device = find_netdev(sysfs, netlink, vf.address)
    if is_infiniband(original.mac):
        if device is not None and not has_guid_of(device.mac, original):
            raise VerifyError(f"{vf}: its GUID is {device.guid}, was {read_guid(original.mac)}")
    elif original.mac and not (device and device.mac == original.mac):
        set_netdev_mac(sysfs, netlink, vf, original.mac)
        device = find_netdev(sysfs, netlink, vf.address)
    if device is None:
        raise DeviceError(f"{vf}: its netdev vanished while it was being restored")
    if original.mtu and device.mtu != original.mtu:
        netlink.set_link(device.ifindex, f"setting MTU {original.mtu} of {device.name}", mtu=original.mtu)
    if (device.promisc, device.allmulti) != (original.promisc, original.allmulti):
        what = f"setting promisc and allmulti of {device.name} back"
        netlink.set_flags(device.ifindex, what, promisc=original.promisc, allmulti=original.allmulti)
    if original.tuning is not None:
        remove_altnames(netlink, device, set(device.altnames) - set(original.altnames), vf)
    restore_names(netlink, device, original.name or device.name, original.altnames, vf)
    if original.up:
        netlink.set_link(device.ifindex, f"setting {original.name} up", state="up")


def _verify(vf: Vf, now: Original, original: Original) -> None:
    # its old name may be taken by another interface, which does not make the VF unfit for the next pod
    expected = replace(original, name=now.name, altnames=now.altnames, up=now.up, tuning=now.tuning)
    expected = replace(expected, dev_port=now.dev_port)
    # what another plugin's state file does not have, or no PF could be asked for
    expected = replace(expected, mac=expected.mac or now.mac, mtu=expected.mtu or now.mtu)
    if original.driver == KERNEL_DRIVER and drivers.is_bound_as_wanted(now.driver, KERNEL_DRIVER):
        expected = replace(expected, driver=now.driver)
    if expected.settings is None or agree_in_all(now.settings, expected.settings):
        expected = replace(expected, settings=now.settings)
    if has_guid_of(now.mac, original):
        expected = replace(expected, mac=now.mac)
    if now != expected:
        raise VerifyError(f"{vf}: it is not as it was: {_list_differences(now, expected)}")


def _list_differences(now: Original, expected: Original) -> str:
    values, wanted = asdict(now), asdict(expected)
    values |= values.pop("settings") or {}
    wanted |= wanted.pop("settings") or {}
    return ", ".join(
        f"{key} is {values.get(key)}, was {wanted[key]}" for key in wanted if wanted[key] != values.get(key)
    )
