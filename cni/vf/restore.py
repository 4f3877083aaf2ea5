"""Bringing a VF back to how it was before it was attached.

Nothing is replayed backwards. The VF is compared with its recorded original, what differs is set, and all of it is
read back; so it is the same for a failed ADD, a DEL, and whatever a crash left behind.
"""

import errno
import logging
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

from cni import timing
from cni.vf.settings import (
    Vf,
    apply_settings,
    bind_driver,
    clear_name,
    find_netdev,
    find_vf,
    read_original,
    set_netdev_mac,
)
from sriovdp.errors import KernelError, VerifyError
from sriovdp.kernel import drivers, netns
from sriovdp.kernel.netdevs import find_netdev as find_netdev_name
from sriovdp.kernel.netdevs import list_parents
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import PciAddress
from sriovdp.state.journal import Attachment, Original

logger = logging.getLogger(__name__)

_RETURN_TIMEOUT = 5.0  # seconds; the kernel takes some 10-100 ms to move a dead namespace's devices home


def restore_vf(sysfs: Sysfs, attachment: Attachment, netns_fd: int | None) -> None:
    """Bring a VF back to how it was before the attachment, and verify it.

    `netns_fd` is the sandbox if it still exists. Raises SriovdpError when something is not as it was.
    """
    address = PciAddress(attachment.device)
    original = attachment.original
    if not (sysfs.root / "bus/pci/devices" / address / "physfn").exists():
        logger.warning("VF %s is gone from this node; there is nothing to bring back", address)
        return
    with Netlink() as netlink:
        if original.name is not None and drivers.current_driver(sysfs, address) == original.driver:
            _fetch_home(sysfs, attachment, netns_fd)
        bind_driver(sysfs, address, original.driver)
        if original.name is not None:
            drivers.wait_for_netdev(sysfs, address)
        timing.mark("move home")
        vf = find_vf(sysfs, netlink, address)
        if original.settings is not None:
            # before the netdev's MAC: without trust a driver takes only the MAC that the PF allows
            apply_settings(netlink, vf, original.settings)
            timing.mark("settings on the PF")
        if original.name is not None:
            _restore_netdev(sysfs, netlink, vf, original)
        _verify(sysfs, netlink, find_vf(sysfs, netlink, address), original)


def _fetch_home(sysfs: Sysfs, attachment: Attachment, netns_fd: int | None) -> None:
    """Get the netdev into the host's namespace, out of the sandbox or by waiting for a dying one to give it up."""
    address = PciAddress(attachment.device)
    if find_netdev_name(sysfs, address):
        return
    if netns_fd is not None:
        with _host_namespace() as host_fd:
            netns.run_in(netns_fd, _send_home, attachment, list_parents(sysfs, address), host_fd)
    deadline = time.monotonic() + _RETURN_TIMEOUT
    while not find_netdev_name(sysfs, address):
        if time.monotonic() > deadline:
            raise VerifyError(
                f"VF {address} did not come back to the host within {_RETURN_TIMEOUT:.0f} s",
                hint="it is in a network namespace that something else keeps alive, or its driver failed (dmesg)",
            )
        time.sleep(0.02)


def _send_home(attachment: Attachment, parents: Collection[str], host_fd: int) -> None:
    """Run in the sandbox: send the VF's netdev to the host, at once under its old name if that is free there."""
    with Netlink() as netlink:
        device = netlink.find_by_parent(parents, attachment.pod_ifname)
        if device is None:
            return
        name = attachment.original.name or ""
        try:
            _move(netlink, device, host_fd, name)
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
            # where its name here is free on the host, the kernel moves it first and then fails to rename it
            if netlink.find_by_parent(parents):
                _move(netlink, device, host_fd, _free_name(device))


def _move(netlink: Netlink, device: Link, host_fd: int, name: str) -> None:
    clear_name(netlink, device, name)
    what = f"moving {device.name} to the host as {name}"
    netlink.set_link(device.ifindex, what, net_ns_fd=host_fd, ifname=name)


def _free_name(device: Link) -> str:
    """What the kernel calls a netdev that comes home to find its name taken (net/core/dev.c)."""
    return f"dev{device.ifindex}"


def _restore_netdev(sysfs: Sysfs, netlink: Netlink, vf: Vf, original: Original) -> None:
    device = find_netdev(sysfs, netlink, vf.address)
    if original.mac and not (device and device.mac == original.mac):
        set_netdev_mac(sysfs, netlink, vf, original.mac)
        device = find_netdev(sysfs, netlink, vf.address)
    if device is None:
        return
    if original.mtu and device.mtu != original.mtu:
        netlink.set_link(device.ifindex, f"setting MTU {original.mtu} of {device.name}", mtu=original.mtu)
    if (device.promisc, device.allmulti) != (original.promisc, original.allmulti):
        what = f"setting promisc and allmulti of {device.name} back"
        netlink.set_flags(device.ifindex, what, promisc=original.promisc, allmulti=original.allmulti)
    _restore_name(netlink, device, original.name or device.name)
    for altname in set(original.altnames) - set(device.altnames):
        netlink.add_altname(device.ifindex, altname)
    if original.up:
        netlink.set_link(device.ifindex, f"setting {original.name} up", state="up")


def _restore_name(netlink: Netlink, device: Link, name: str) -> None:
    """Give a netdev its old name back; where another has it by now, a name that is nobody's, rather than the pod's."""
    if device.name == name:
        return
    if netlink.find(name):
        logger.warning("the host has another interface %s by now; %s comes back under another name", name, device.name)
        name = _free_name(device)
    if device.name != name:
        clear_name(netlink, device, name)
        if device.up:
            netlink.set_link(device.ifindex, f"setting {device.name} down", state="down")
        netlink.set_link(device.ifindex, f"renaming {device.name} to {name}", ifname=name)


def _verify(sysfs: Sysfs, netlink: Netlink, vf: Vf, original: Original) -> None:
    now = read_original(sysfs, netlink, vf)
    # its old name may be taken by another interface, which does not make the VF unfit for the next pod
    expected = replace(original, name=now.name, altnames=now.altnames, up=now.up)
    # what another plugin's state file does not tell, or no PF could be asked for
    expected = replace(expected, mac=expected.mac or now.mac, mtu=expected.mtu or now.mtu)
    if expected.settings is None:
        expected = replace(expected, settings=now.settings)
    if now != expected:
        raise VerifyError(f"VF {vf.address} is not as it was: {_tell_differences(now, expected)}")


def _tell_differences(now: Original, expected: Original) -> str:
    values, wanted = asdict(now), asdict(expected)
    values |= values.pop("settings") or {}
    wanted |= wanted.pop("settings") or {}
    return ", ".join(
        f"{key} is {values.get(key)}, was {wanted[key]}" for key in wanted if wanted[key] != values.get(key)
    )


@contextmanager
def _host_namespace() -> Iterator[int]:
    """The namespace of the agent's main thread: the host's."""
    host_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield host_fd
    finally:
        os.close(host_fd)
