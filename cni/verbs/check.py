"""CHECK: whether an attachment still is what ADD made of it (specification, section 4)."""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from cni.ipam.delegate import IpamError, check_addresses
from cni.protocol.environment import require_sandbox
from cni.protocol.netconf import NetConf, parse_netconf
from cni.protocol.spec import (
    DEVICE_FAILURE,
    INVALID_CONFIG,
    INVALID_NETNS,
    UNKNOWN_CONTAINER,
    Interface,
    Result,
    describe_result,
    parse_result,
)
from cni.protocol.wire import Request
from cni.vf.rdma import find_missing
from cni.vf.representor import compare_representor
from cni.vf.settings import find_vf
from cni.vf.trunk import compare_trunk
from sriovdp.errors import CniError, SriovdpError, naming
from sriovdp.kernel import drivers, netns
from sriovdp.kernel.device_name import DeviceName
from sriovdp.kernel.netdevs import list_parents
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs, read_link
from sriovdp.model import PciAddress, is_vfio
from sriovdp.state.journal import Attachment, Journal
from sriovdp.state.locks import Locks


@dataclass(frozen=True, slots=True)
class Check:
    """The verb CHECK, on one node."""

    sysfs: Sysfs
    journal: Journal
    locks: Locks

    def run(self, request: Request, netns_fd: int | None) -> None:
        """Compare the container's interface with what ADD made. Raises CniError with every difference."""
        conf = parse_netconf(request.stdin, request.args, "CHECK")
        sandbox_fd = require_sandbox(request, netns_fd)
        with self.locks.hold(request.key):
            attachment = self.journal.find_attachment(request.container_id, request.ifname)
            if attachment is None or attachment.phase != "attached":
                raise CniError(
                    UNKNOWN_CONTAINER,
                    f"network {conf.name} has no attachment of it",
                )
            with naming(DeviceName(self.sysfs, attachment.device)):
                self._compare(attachment, conf, sandbox_fd)

    def _compare(self, attachment: Attachment, conf: NetConf, sandbox_fd: int) -> None:
        if conf.device not in {None, attachment.device}:
            raise CniError(INVALID_CONFIG, f"this VF was attached, but deviceID is {conf.device}")
        if netns.identify(sandbox_fd) != netns.NetnsId(attachment.netns_dev, attachment.netns_ino):
            raise CniError(INVALID_NETNS, "CNI_NETNS is not the sandbox that ADD was given")
        if differences := compare(self.sysfs, attachment, conf, sandbox_fd):
            raise CniError(DEVICE_FAILURE, f"it is not as ADD made it: {'; '.join(differences)}")


def compare(sysfs: Sysfs, attachment: Attachment, conf: NetConf, netns_fd: int | None) -> list[str]:
    """What is not as it was made, a sentence each, by the node and by the IPAM plugin. `netns_fd` is the sandbox."""
    result = conf.previous or parse_result(attachment.result)
    differences = Comparison(sysfs, attachment, conf, result).differences(netns_fd)
    previous = {"prevResult": describe_result(result, conf.version)}
    try:
        check_addresses(replace(attachment, config={**attachment.config, **previous}))
    except IpamError as error:
        differences.append(str(error))
    return differences


@dataclass(frozen=True, slots=True)
class Comparison:
    """What an attachment should be: its configuration, and the result as the last plugin of the chain left it."""

    sysfs: Sysfs
    attachment: Attachment
    conf: NetConf
    result: Result

    def differences(self, netns_fd: int | None) -> list[str]:
        """What is not as it was made, a sentence each; empty when all is well. `netns_fd` is the sandbox."""
        try:
            found = [*self._compare_settings(), *self._compare_driver()]
            found += compare_representor(self.sysfs, self.attachment, self.conf.bridging)
            found += compare_trunk(self.sysfs, self.attachment, self.conf.trunk)
        except SriovdpError as error:
            return [error.reason]
        if self.attachment.mode == "dpdk":
            return found
        if netns_fd is None:
            return [*found, f"the sandbox {self.attachment.netns} is gone"]
        found += [f"RDMA device {name} is not in the sandbox" for name in find_missing(self.attachment.rdma, netns_fd)]
        return found + netns.run_in(netns_fd, self._compare_sandbox, list_parents(self.sysfs, self.attachment.device))

    def _compare_settings(self) -> list[str]:
        wanted = dict(self.conf.settings) | ({"mac": self.conf.mac} if self.conf.mac else {})
        if self.conf.guid:
            wanted |= {"node_guid": self.conf.guid, "port_guid": self.conf.guid}
        wanted = {name: value for name, value in wanted.items() if name not in self.attachment.unsupported}
        if not wanted:
            return []
        with Netlink() as netlink:
            vf = find_vf(self.sysfs, netlink, PciAddress(self.attachment.device))
        if (current := vf.settings) is None:
            return [f"{', '.join(wanted)} cannot be read: {vf.explain()}"]
        return [
            f"{name} on the PF is {_write(now)}, {_write(value)} was set"
            for name, value in wanted.items()
            if (now := getattr(current, name)) not in {None, value}
        ]

    def _compare_driver(self) -> list[str]:
        address = self.attachment.device
        wanted = self.conf.driver or self.attachment.original.driver
        current = drivers.current_driver(self.sysfs, address)
        if not drivers.is_bound_as_wanted(current, wanted):
            return [f"it is bound to {current or 'no driver'}, not to {wanted}"]
        if is_vfio(current):
            group = read_link(self.sysfs.pci(address) / "iommu_group")
            if not group or not Path("/dev/vfio", group).exists():
                return [f"it has no /dev/vfio/{group or 'GROUP'}"]
        return []

    def _compare_sandbox(self, parents: Collection[str]) -> list[str]:
        """Run in the sandbox."""
        ifname = self.attachment.pod_ifname
        with Netlink() as netlink:
            device = netlink.find_by_parent(parents, ifname)
            if device is None:
                return ["it is not in the sandbox"]
            if device.name != ifname:
                return [f"it is called {device.name} in the sandbox, not {ifname}"]
            wanted = self._interface()
            found = [] if device.up else [f"{ifname} is down"]
            if self.conf.guid and device.guid != self.conf.guid:
                found.append(f"GUID of {ifname} is {device.guid}, not {self.conf.guid}")
            # a subnet manager may change the other part of InfiniBand's address
            if wanted.mac and not device.infiniband and device.mac != wanted.mac.lower():
                found.append(f"MAC of {ifname} is {device.mac}, not {wanted.mac}")
            if wanted.mtu and device.mtu != wanted.mtu:
                found.append(f"MTU of {ifname} is {device.mtu}, not {wanted.mtu}")
            for name, is_set, value in zip(
                ("promisc", "allmulti"),
                (device.promisc, device.allmulti),
                (self.conf.promisc, self.conf.allmulti),
                strict=True,
            ):
                if value not in {None, is_set}:
                    found.append(f"{name} of {ifname} is {_write(is_set)}, not {_write(value)}")
            return found + self._compare_addresses(netlink, device.ifindex)

    def _compare_addresses(self, netlink: Netlink, ifindex: int) -> list[str]:
        ifname = self.attachment.pod_ifname
        present = {ipaddress.ip_interface(address) for address in netlink.addresses(ifindex)}
        routes = {route.destination for route in netlink.routes(ifindex)}
        index = self._index()
        ours = [ip.address for ip in self.result.ips if index is not None and ip.interface == index]
        missing = [address for address in ours if ipaddress.ip_interface(address) not in present]
        families = {":" in address for address in ours}
        wanted = [str(ipaddress.ip_network(route["dst"], strict=False)) for route in self.result.routes]
        lost = [route for route in wanted if (":" in route) in families and route not in routes]
        if lost and len(self.result.interfaces) > 1:
            lost = []  # in a chain the route may be by another plugin's interface
        return [
            *(f"{ifname} has lost its address {address}" for address in missing),
            *(f"{ifname} has lost its route {route}" for route in lost),
        ]

    def _interface(self) -> Interface:
        index = self._index()
        if index is not None:
            interface = self.result.interfaces[index]
            # before 1.0.0 results have no MTU
            return interface if interface.mtu else Interface(interface.name, interface.mac, self.conf.mtu or 0)
        return Interface(self.attachment.pod_ifname, self.conf.mac or "", self.conf.mtu or 0)

    def _index(self) -> int | None:
        names = [interface.name if interface.sandbox else "" for interface in self.result.interfaces]
        return names.index(self.attachment.pod_ifname) if self.attachment.pod_ifname in names else None


def _write(value: object) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)
