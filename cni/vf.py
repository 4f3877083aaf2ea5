"""A VF on the host's side: where it is, how it is set, and its way into a sandbox."""

import logging
from dataclasses import dataclass

from cni.spec import DEVICE_FAILURE
from sriovdp.errors import CniError, DeviceError, KernelError, VerifyError
from sriovdp.journal import Original
from sriovdp.kernel import drivers
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs, list_names, read_link
from sriovdp.model import USERSPACE_DRIVERS, NetDevice, PciAddress, VfSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Vf:
    """Which VF it is. `pf_ifindex` is None when the PF has no netdev in the host's network namespace."""

    address: PciAddress
    index: int
    pf_ifindex: int | None


def find_vf(sysfs: Sysfs, netlink: Netlink, address: PciAddress) -> Vf:
    """Look a VF up. Raises DeviceError when there is no such VF."""
    pf_path = sysfs.pci(address) / "physfn"
    index = next(
        (int(link.name.removeprefix("virtfn")) for link in pf_path.glob("virtfn*") if read_link(link) == address), None
    )
    if index is None:
        raise DeviceError(f"{address} is no VF", hint="`sriovdp discover` lists the VFs there are")
    names = list_names(pf_path / "net")
    pf = next((found for name in names if (found := netlink.find(name))), None)
    return Vf(address, index, pf.ifindex if pf else None)


def read_settings(netlink: Netlink, vf: Vf) -> VfSettings | None:
    """The settings that the PF holds for the VF; None when there is no PF to ask."""
    return None if vf.pf_ifindex is None else netlink.vf_settings(vf.pf_ifindex).get(vf.index)


def find_netdev(sysfs: Sysfs, netlink: Netlink, address: PciAddress) -> NetDevice | None:
    """The VF's netdev in the host's network namespace."""
    for name in list_names(sysfs.pci(address) / "net"):
        if device := netlink.find(name):
            return device
    return None


def read_original(sysfs: Sysfs, netlink: Netlink, vf: Vf) -> Original:
    """How the VF is now, for the journal. Raises CniError when it can not be given to a pod as it is."""
    driver = drivers.current_driver(sysfs, vf.address)
    if driver is None:
        raise CniError(
            DEVICE_FAILURE, f"VF {vf.address} has no driver", hint="`sriovdp apply` binds it as the config says"
        )
    settings = read_settings(netlink, vf)
    if driver in USERSPACE_DRIVERS:
        return Original(driver, settings)
    device = find_netdev(sysfs, netlink, vf.address)
    if device is None:
        raise CniError(
            DEVICE_FAILURE,
            f"VF {vf.address} is bound to {driver} but has no netdev on the host",
            hint="it is in another network namespace, or the driver failed (dmesg)",
        )
    altnames = netlink.altnames(device.ifindex)
    return Original(driver, settings, device.name, altnames, device.mac, device.mtu, device.up)


def apply_settings(netlink: Netlink, vf: Vf, wanted: VfSettings) -> None:
    """Set what differs, one after the other so that an error names the one that the NIC refuses.

    Raises KernelError, and CniError when no PF is visible.
    """
    current = read_settings(netlink, vf)
    if current is None or vf.pf_ifindex is None:
        raise CniError(
            DEVICE_FAILURE,
            f"setting VLAN, MAC or rates of VF {vf.address} failed: its PF has no netdev on the host",
            hint="leave these keys out for a VF whose PF another driver or host owns",
        )
    changes = current.changes_to(wanted)
    for group in (("vlan", "qos", "vlan_proto"), ("mac",), ("min_tx_rate", "max_tx_rate")):
        if group[0] in changes:
            netlink.set_vf(vf.pf_ifindex, vf.index, {name: changes[name] for name in group})
    for name in ("spoofchk", "trust", "link_state"):
        if name in changes:
            netlink.set_vf(vf.pf_ifindex, vf.index, {name: changes[name]})


def set_netdev_mac(sysfs: Sysfs, netlink: Netlink, vf: Vf, mac: str) -> None:
    """Give the VF's netdev on the host its MAC, after the PF was told of it.

    Some drivers refuse the change while they are bound (igb: «Reload the VF driver»); then the driver is bound anew,
    and the VF comes up with the admin MAC. Raises VerifyError when it has another one even then.
    """
    device = find_netdev(sysfs, netlink, vf.address)
    if device is None or device.mac == mac:
        return
    try:
        netlink.set_link(device.ifindex, f"setting {device.name} down", state="down")
        netlink.set_link(device.ifindex, f"setting MAC {mac} of {device.name}", address=mac)
    except KernelError as error:
        logger.info("%s; binding the driver of VF %s anew", error, vf.address)
        driver = drivers.current_driver(sysfs, vf.address)
        drivers.unbind(sysfs, vf.address)
        drivers.bind(sysfs, vf.address, driver or "")
        drivers.wait_for_netdev(sysfs, vf.address)
    device = find_netdev(sysfs, netlink, vf.address)
    if device is None or device.mac != mac:
        raise VerifyError(f"VF {vf.address} has MAC {device.mac if device else None} although {mac} was set")


def move_into(netlink: Netlink, device: NetDevice, netns_fd: int, ifname: str) -> None:
    """Move and rename a netdev in one request: each change of namespace costs the kernel an RCU grace period."""
    prepare_rename(netlink, device, ifname)
    netlink.set_link(
        device.ifindex, f"moving {device.name} into the sandbox as {ifname}", net_ns_fd=netns_fd, ifname=ifname
    )


def prepare_rename(netlink: Netlink, device: NetDevice, name: str) -> None:
    """Make a rename possible: only a device that is down and has no such altname takes a new name."""
    if name in netlink.altnames(device.ifindex):
        netlink.remove_altname(device.ifindex, name)
    if device.up:
        netlink.set_link(device.ifindex, f"setting {device.name} down", state="down")
