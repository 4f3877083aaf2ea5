"""The way of a VF's netdev back to the host: out of its sandbox, or out of one that the kernel is taking apart.

What the pod stacked on it goes first: the kernel leaves a VLAN or macvlan in the sandbox when its lower interface moves
away. So do names that the pod gave it, as each name that the host has too would keep it there.
"""

import errno
import logging
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from cni.vf.names import choose_free_name, clear_name, remove_altnames
from sriovdp.errors import KernelError
from sriovdp.kernel import netns
from sriovdp.kernel.device_name import DeviceName
from sriovdp.kernel.netdevs import find_netdev, list_parents
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Attachment, Original

logger = logging.getLogger(__name__)

_PATIENCE = 0.5  # seconds; the kernel takes some 10-100 ms to move a dead namespace's devices home
_PAUSE = 0.02


def fetch_home(sysfs: Sysfs, attachment: Attachment, netns_fd: int | None) -> bool:
    """Get the netdev into the host's namespace. Gives whether it is there.

    It is not when the pod moved it on to another namespace, or when the kernel is not done with the sandbox in time.
    """
    device, number = attachment.device, attachment.original.dev_port
    name = DeviceName(sysfs, device)
    if find_netdev(sysfs, device, number):
        return True
    if netns_fd is not None:
        try:
            with host_namespace() as host_fd:
                netns.run_in(netns_fd, _send_home, attachment, list_parents(sysfs, device), host_fd, name)
        except KernelError as error:
            logger.warning("%s: its netdev did not leave the sandbox of %s: %s", name, attachment.owner, error)
        return find_netdev(sysfs, device, number) is not None
    deadline = time.monotonic() + _PATIENCE
    while not find_netdev(sysfs, device, number):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def _send_home(attachment: Attachment, parents: Collection[str], host_fd: int, vf: object) -> None:
    """Run in the sandbox: send the VF's netdev to the host, at once under its old name if that is free there."""
    original = attachment.original
    with Netlink() as netlink:
        links = netlink.links()
        device = next((link for link in links if link.parent in parents), None)
        if device is None:
            return
        for link in links:
            if link.lower == device.ifindex and link.ifindex != device.ifindex:
                logger.info("%s: removing %s, which %s left on it", vf, link.name, attachment.owner)
                netlink.remove_link(link.ifindex)
        remove_altnames(netlink, device, set(device.altnames) - set(original.altnames), vf)
        try:
            _move(netlink, device, host_fd, original)
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
            # the kernel may have moved it first and then failed to rename it
            if stuck := netlink.find_by_parent(parents):
                remove_altnames(netlink, stuck, stuck.altnames, vf)
                what = f"moving {stuck.name} to the host"
                netlink.set_link(stuck.ifindex, what, net_ns_fd=host_fd, ifname=choose_free_name(stuck))


def _move(netlink: Netlink, device: Link, host_fd: int, original: Original) -> None:
    name = original.name or device.name
    clear_name(netlink, device, name)
    netlink.set_link(device.ifindex, f"moving {device.name} to the host as {name}", net_ns_fd=host_fd, ifname=name)


@contextmanager
def host_namespace() -> Iterator[int]:
    """The namespace of the agent's main thread: the host's."""
    host_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield host_fd
    finally:
        os.close(host_fd)
