"""What is done inside the pod's network namespace. Every function here runs there, by `netns.run_in`."""

import errno
import os
import time
from contextlib import suppress
from typing import Any

from cni.protocol.netconf import NetConf
from cni.protocol.spec import INVALID_ENVIRONMENT, Result
from sriovdp.errors import CniError, DeviceError, KernelError, VerifyError
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.link import Link

# a container's own can only be read; what is below follows the thread's network namespace, wherever it is mounted
_PROC_SYS = os.environ.get("SRIOVDP_PROC_SYS", "/proc/sys")
_DAD_TIMEOUT = 5.0  # seconds; the kernel takes one to two


def check_name_is_free(ifname: str) -> None:
    """Raise CniError when the sandbox has an interface of that name (specification: ADD must fail then)."""
    with Netlink() as netlink:
        if netlink.find(ifname):
            raise CniError(INVALID_ENVIRONMENT, f"the sandbox has an interface {ifname} already")


def bring_up(conf: NetConf, ifname: str, parent: str) -> Link:
    """Make the VF's interface as the configuration says, set it up, and give its state.

    Raises KernelError, and VerifyError when it is not the VF with the wanted MAC and MTU.
    """
    with Netlink() as netlink:
        found = netlink.find(ifname)
        if found is None or found.parent != parent:
            raise VerifyError(f"it was moved into the sandbox but is not {ifname} there")
        _set_sysctls(conf, ifname)
        if conf.mtu is not None and conf.mtu != found.mtu:
            netlink.set_link(found.ifindex, f"setting MTU {conf.mtu} of {ifname}", mtu=conf.mtu)
        what = f"setting promisc or allmulti of {ifname}"
        netlink.set_flags(found.ifindex, what, promisc=conf.promisc, allmulti=conf.allmulti)
        netlink.set_link(found.ifindex, f"setting {ifname} up", state="up")
        after = netlink.find(ifname)
    if after is None or (conf.mac and after.mac != conf.mac) or (conf.mtu and after.mtu != conf.mtu):
        state = f"MAC {after.mac} and MTU {after.mtu}" if after else "nothing"
        raise VerifyError(f"{ifname} came up with {state} in place of {conf.mac or 'any MAC'} and {conf.mtu or 'any'}")
    if conf.guid and after.guid != conf.guid:
        raise VerifyError(f"{ifname} came up with GUID {after.guid} in place of {conf.guid}")
    return after


def configure_addresses(conf: NetConf, ifname: str, result: Result) -> None:
    """Set the addresses and routes that the IPAM plugin gave. A route without a gateway takes its family's first one.

    Raises KernelError, VerifyError for an address that another host has, and DeviceError when the interface is gone.
    """
    with Netlink() as netlink:
        device = netlink.find(ifname)
        if device is None:
            raise DeviceError(f"{ifname} vanished from the sandbox while it was being configured")
        if any(":" in ip.address for ip in result.ips):
            for name in ("lo", ifname):
                _set_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0")
            _set_sysctl(f"net/ipv6/conf/{ifname}/keep_addr_on_down", "1")
        gateways: dict[bool, str] = {}
        for ip in result.ips:
            _add_address(netlink, device, ip.address, conf)
            if ip.gateway:
                gateways.setdefault(":" in ip.address, ip.gateway)
        if conf.dad == "wait":
            _wait_for_dad(netlink, device)
        for route in result.routes:
            gateway = route.get("gw") or gateways.get(":" in route["dst"])
            netlink.add_route(device.ifindex, route["dst"], gateway, **_route_options(route))


def _add_address(netlink: Netlink, device: Link, address: str, conf: NetConf) -> None:
    try:
        netlink.add_address(device.ifindex, address, dad=conf.dad != "off")
    except KernelError as error:
        # the dhcp plugin's daemon may have been quicker
        if error.errno != errno.EEXIST or address not in netlink.addresses(device.ifindex):
            raise


def _route_options(route: Any) -> dict[str, Any]:
    """What specification 1.1.0 has for a route beside destination and gateway."""
    options = {key: route[key] for key in ("priority", "table", "scope") if route.get(key) is not None}
    metrics = {key: route[key] for key in ("mtu", "advmss") if route.get(key)}
    return options | ({"metrics": metrics} if metrics else {})


def _wait_for_dad(netlink: Netlink, device: Link) -> None:
    deadline = time.monotonic() + _DAD_TIMEOUT
    while True:
        pending, failed = netlink.pending_addresses(device.ifindex)
        if failed:
            raise VerifyError(f"another host has {', '.join(failed)} already (duplicate address detection)")
        if not pending:
            return
        if time.monotonic() > deadline:
            raise VerifyError(
                f"duplicate address detection of {', '.join(pending)} did not end within {_DAD_TIMEOUT:.0f} s",
                hint="the link has no carrier, or the kernel is set to ask too often (dad_transmits)",
            )
        time.sleep(0.05)


def _set_sysctls(conf: NetConf, ifname: str) -> None:
    # the kernel announces our addresses itself whenever the link comes up again
    _set_sysctl(f"net/ipv4/conf/{ifname}/arp_notify", "1")
    _set_sysctl(f"net/ipv6/conf/{ifname}/ndisc_notify", "1")
    if conf.dad == "optimistic":
        _set_sysctl(f"net/ipv6/conf/{ifname}/optimistic_dad", "1")
    elif conf.dad == "off":
        _set_sysctl(f"net/ipv6/conf/{ifname}/accept_dad", "0")
    for name, value in conf.sysctls.items():
        path = name.replace("IFNAME", ifname)
        try:
            _write(path, value)
        except OSError as error:
            raise KernelError(f"setting sysctl {path} to {value} failed", errno=error.errno or 0) from error


def _set_sysctl(name: str, value: str) -> None:
    """Set a sysctl of this namespace; a kernel without IPv6 has none of its files."""
    with suppress(OSError):
        _write(name, value)


def _write(name: str, value: str) -> None:
    descriptor = os.open(f"{_PROC_SYS}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
