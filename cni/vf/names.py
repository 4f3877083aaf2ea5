"""Names and altnames of a VF's netdev. Both share one space with those of all interfaces of the same namespace."""

import errno
import logging
from collections.abc import Iterable

from sriovdp.errors import KernelError
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.link import Link

logger = logging.getLogger(__name__)


def clear_name(netlink: Netlink, device: Link, name: str) -> None:
    """Make a rename possible: what is the device's altname cannot become its name."""
    if name in device.altnames:
        netlink.remove_altname(device.ifindex, name)


def remove_altnames(netlink: Netlink, device: Link, altnames: Iterable[str], vf: object) -> None:
    """Remove altnames of a VF's netdev. `vf` is its name in the log, here and below."""
    for altname in sorted(altnames):
        logger.info("%s: removing altname %s of %s", vf, altname, device.name)
        netlink.remove_altname(device.ifindex, altname)


def choose_free_name(device: Link) -> str:
    """What the kernel calls a netdev that comes home and finds its name in use (net/core/dev.c)."""
    return f"dev{device.ifindex}"


def restore_names(netlink: Netlink, device: Link, name: str, altnames: Iterable[str], vf: object) -> None:
    """Give a netdev its old name and altnames back, except those that another interface has by now.

    Without its name it gets one that the kernel would choose, never the pod's: that may be one the host needs.
    Raises KernelError.
    """
    if device.name != name:
        _rename(netlink, device, name, vf)
    for altname in sorted(set(altnames) - {*device.altnames, name}):
        try:
            netlink.add_altname(device.ifindex, altname)
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
            logger.warning("%s: another interface has its altname %s now", vf, altname)


def _rename(netlink: Netlink, device: Link, name: str, vf: object) -> None:
    other = netlink.find(name)
    if other and other.ifindex != device.ifindex:
        name = choose_free_name(device)
        logger.warning("%s: another interface has its name %s now, so it is called %s", vf, other.name, name)
        if device.name == name:
            return
    clear_name(netlink, device, name)
    if device.up:
        netlink.set_link(device.ifindex, f"setting {device.name} down", state="down")
    netlink.set_link(device.ifindex, f"renaming {device.name} to {name}", ifname=name)
