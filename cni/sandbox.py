"""What is done inside the pod's network namespace. Every function here runs there, by `netns.run_in`."""

from pathlib import Path

from cni.spec import INVALID_ENVIRONMENT, Result
from sriovdp.errors import CniError, DeviceError, VerifyError
from sriovdp.kernel.netlink import Netlink
from sriovdp.model import NetDevice

_SYSCTL = Path("/proc/sys/net")


def check_name_is_free(ifname: str) -> None:
    """Raise CniError when the sandbox has an interface of that name (specification: ADD must fail then)."""
    with Netlink() as netlink:
        if netlink.find(ifname):
            raise CniError(INVALID_ENVIRONMENT, f"the sandbox has an interface {ifname} already")


def bring_up(ifname: str, address: str, mac: str | None) -> NetDevice:
    """Set the VF's interface up and give its state. Raises VerifyError when it is not the VF with the wanted MAC."""
    with Netlink() as netlink:
        found = netlink.find_by_pci(address)
        if found is None or found.name != ifname:
            raise VerifyError(f"VF {address} was moved but is not {ifname} in the sandbox")
        # the kernel announces our addresses itself whenever the link comes up again
        _set_sysctl(f"ipv4/conf/{ifname}/arp_notify", "1")
        _set_sysctl(f"ipv6/conf/{ifname}/ndisc_notify", "1")
        _set_sysctl(f"ipv6/conf/{ifname}/optimistic_dad", "1")
        netlink.set_link(found.ifindex, f"setting {ifname} up", state="up")
        after = netlink.find(ifname)
    if after is None or (mac and after.mac != mac):
        raise VerifyError(f"{ifname} came up with MAC {after.mac if after else None} in place of {mac}")
    return after


def configure_addresses(ifname: str, result: Result) -> None:
    """Set the addresses and routes that the IPAM plugin gave. A route without a gateway takes its family's first one.

    Raises KernelError, and DeviceError when the interface is gone.
    """
    with Netlink() as netlink:
        device = netlink.find(ifname)
        if device is None:
            raise DeviceError(f"{ifname} vanished from the sandbox while it was being configured")
        gateways: dict[bool, str] = {}
        for ip in result.ips:
            is_v6 = ":" in ip.address
            if is_v6:
                _set_sysctl(f"ipv6/conf/{ifname}/disable_ipv6", "0")
                _set_sysctl(f"ipv6/conf/{ifname}/keep_addr_on_down", "1")
            netlink.add_address(device.ifindex, ip.address)
            if ip.gateway:
                gateways.setdefault(is_v6, ip.gateway)
        for route in result.routes:
            gateway = route.get("gw") or gateways.get(":" in route["dst"])
            netlink.add_route(device.ifindex, route["dst"], gateway)


def _set_sysctl(name: str, value: str) -> None:
    """Set a sysctl of this namespace; a kernel without IPv6 has none of its files."""
    try:
        (_SYSCTL / name).write_text(value)
    except OSError:
        return
