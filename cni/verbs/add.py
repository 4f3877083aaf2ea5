"""The steps of ADD from its entry in the journal on. The caller undoes them when one fails."""

import errno
import threading
from dataclasses import dataclass, replace
from typing import Any, Literal

from cni import timing
from cni.device_info import write_device_info
from cni.ipam.delegate import Addresses
from cni.policy import Policy
from cni.protocol.netconf import NetConf
from cni.protocol.spec import DEVICE_FAILURE, INVALID_CONFIG, TRY_AGAIN, Interface, Result, describe_result
from cni.vf import rdma, sandbox
from cni.vf.infiniband import set_guid, take_guid
from cni.vf.names import remove_altnames
from cni.vf.representor import attach_representor
from cni.vf.settings import (
    TURNS,
    Vf,
    apply_settings,
    bind_driver,
    find_netdev,
    move_into,
    refuse_settings,
    set_netdev_mac,
)
from cni.vf.trunk import apply_trunk
from sriovdp.errors import CniError, KernelError
from sriovdp.kernel import drivers, netns
from sriovdp.kernel.abilities import list_doubts, list_wanted
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.sysfs import Sysfs, read_link
from sriovdp.model import ZERO_MAC, VfSettings, is_userspace
from sriovdp.state.journal import Attachment, Journal


def choose_mode(conf: NetConf, vf: Vf, driver: str) -> Literal["kernel", "dpdk"]:
    """`kernel` or `dpdk`, by the driver that is asked for, else by the one there is.

    Raises CniError when there is none, or when the configuration asks for what that mode has not.
    """
    wanted = conf.driver or driver
    if not wanted:
        raise CniError(
            DEVICE_FAILURE,
            f"{vf}: it has no driver",
            hint="`sriovdp apply` binds it as the config says, and the key `driver` for this attachment",
        )
    if not is_userspace(wanted):
        return "kernel"
    if conf.ipam == "dhcp":
        raise CniError(
            INVALID_CONFIG,
            f'{vf}: ipam.type is "dhcp", but it is on {wanted} and has no netdev to ask with',
            hint="use another IPAM plugin; in DPDK mode its addresses are reported and set nowhere",
        )
    if conf.mtu and vf.pf_mtu and conf.mtu > vf.pf_mtu:
        raise CniError(
            INVALID_CONFIG,
            f"{vf}: mtu is {conf.mtu}, but its PF has {vf.pf_mtu}, and in DPDK mode nothing can change it",
            hint=f"set mtu to {vf.pf_mtu} or less, or give the PF a larger one by `mtu` in the agent's config",
        )
    return "dpdk"


@dataclass(frozen=True, slots=True)
class Addition:
    """One ADD. Each method is a step, and leaves what the journal's original can be compared with.

    `addresses` is what the IPAM plugin is asked for.
    """

    sysfs: Sysfs
    journal: Journal
    netlink: Netlink
    vf: Vf
    conf: NetConf
    netns_fd: int
    cancelled: threading.Event
    policy: Policy
    addresses: Addresses

    def run(self, attachment: Attachment) -> tuple[Attachment, Result]:
        """Attach the VF; the journal says so at the end. The IPAM plugin runs beside where it can."""
        self.journal.write_attachment(attachment)
        if attachment.mode == "dpdk":
            # nothing is moved there, so the kernel does not refuse it
            netns.run_in(self.netns_fd, sandbox.check_name_is_free, attachment.pod_ifname)
        with self.addresses as addresses:
            self._go_on("start of IPAM")
            attachment = replace(attachment, unsupported=tuple(self._set_on_pf(attachment)))
            apply_trunk(self.sysfs, attachment, self.conf.trunk)
            self._go_on("settings on the PF")
            self._bind_driver()
            self._go_on("driver")
            attachment = self._take_guid_and_rdma(attachment)
            representor = attach_representor(self.sysfs, self.netlink, attachment, self.conf.bridging)
            interface = self._enter_sandbox(attachment)
            self._go_on("interface up")
            ipam = addresses.finish()
            self._go_on("wait for IPAM")
        host = (Interface(representor.name, representor.mac, representor.mtu),) if representor else ()
        result = Result((interface, *host), dns=self.conf.dns)
        if ipam is not None:
            result = result.with_addresses_of(ipam)
            if self.conf.pf and self.conf.dns:
                result = replace(result, dns=self.conf.dns)
            if attachment.mode == "kernel":
                netns.run_in(self.netns_fd, sandbox.configure_addresses, self.conf, attachment.pod_ifname, result)
        timing.mark("addresses")
        if attachment.device_info:
            attachment = write_device_info(attachment, self.policy, self.sysfs)
        if self.conf.previous is not None:
            result = result.after(self.conf.previous)
        attachment = replace(attachment, phase="attached", result=describe_result(result))
        self.journal.write_attachment(attachment)
        timing.mark("journal")
        return attachment, result

    def _go_on(self, done: str) -> None:
        """Say what is done. Raise CniError when no client waits for the answer any more."""
        timing.mark(done)
        if self.cancelled.is_set():
            raise CniError(TRY_AGAIN, f"{self.vf}: the runtime gave up this ADD, which is undone")

    def _set_on_pf(self, attachment: Attachment) -> list[str]:
        """Gives what the PF does not take and can be done without; a MAC then is the netdev's alone."""
        if self.conf.guid:
            set_guid(self.netlink, self.vf, self.conf.guid)
        changes = dict(self.conf.settings) | ({"mac": self.conf.mac} if self.conf.mac else {})
        if not changes:
            return []
        skips, on_netdev = self.conf.skips_unsupported, attachment.mode == "kernel"
        if self.vf.settings is None:
            names = [name for name in changes if not (name == "mac" and on_netdev and not self.vf.is_unread)]
            return [*refuse_settings(self.vf, names, skip_unsupported=skips), *({"mac"} & changes.keys())]
        wanted = replace(attachment.original.settings or VfSettings(ZERO_MAC), **changes)
        try:
            return apply_settings(self.netlink, self.vf, wanted, skip_unsupported=skips, skip_mac=on_netdev)
        except KernelError as error:
            driver = read_link(self.sysfs.root / "bus/pci/devices" / self.vf.address / "physfn/driver")
            error.hint = "; ".join(filter(None, (error.hint, *list_doubts(driver, list_wanted(changes)))))
            raise

    def _bind_driver(self) -> None:
        """After the PF's side: a driver takes the admin MAC over when it is bound."""
        if self.conf.driver:
            bind_driver(self.sysfs, self.vf.address, self.conf.driver)

    def _take_guid_and_rdma(self, attachment: Attachment) -> Attachment:
        """The netdev's GUID, by binding its driver again, and then the RDMA devices, which that makes again."""
        if attachment.mode == "dpdk" or not (self.conf.guid or self.conf.rdma_isolation):
            return attachment
        address = self.vf.address
        with TURNS:
            if self.conf.driver:
                drivers.wait_for_netdev(self.sysfs, address)
            names, nodes = rdma.list_names_of(self.sysfs, address), rdma.list_nodes_of(self.sysfs, address)
            if self.conf.guid and take_guid(self.sysfs, self.netlink, self.vf, self.conf.guid):
                rdma.restore_names(self.sysfs, address, names)
                rdma.check_nodes(self.sysfs, address, nodes)
            self._go_on("GUID")
            if self.conf.rdma_isolation:
                attachment = replace(attachment, rdma=rdma.identify_all(self.sysfs, self.vf, address))
                self.journal.write_attachment(attachment)
                rdma.move_into(attachment.rdma, self.netns_fd)
                rdma.check_nodes(self.sysfs, address, nodes)
                self._go_on("RDMA device")
        return attachment

    def _enter_sandbox(self, attachment: Attachment) -> Interface:
        common: dict[str, Any] = {
            "name": attachment.pod_ifname,
            "sandbox": attachment.netns,
            "pci_id": str(self.vf.address),
        }
        if attachment.mode == "dpdk":
            settings = attachment.original.settings
            admin_mac = settings.mac if settings and settings.mac != ZERO_MAC else ""
            return Interface(mac=self.conf.mac or admin_mac, mtu=self.conf.mtu or self.vf.pf_mtu or 0, **common)
        if self.conf.driver or attachment.rdma:  # IPoIB makes a new netdev when its RDMA device has moved
            drivers.wait_for_netdev(self.sysfs, self.vf.address)
        if self.conf.mac:
            set_netdev_mac(self.sysfs, self.netlink, self.vf, self.conf.mac)
        device = find_netdev(self.sysfs, self.netlink, self.vf.address)
        if device is None:
            raise CniError(DEVICE_FAILURE, f"{self.vf}: its netdev vanished while it was being configured")
        self._move(device, attachment.pod_ifname)
        after = netns.run_in(self.netns_fd, sandbox.bring_up, self.conf, attachment.pod_ifname, device.parent)
        return Interface(mac=after.mac, mtu=after.mtu, **common)

    def _move(self, device: Link, ifname: str) -> None:
        try:
            move_into(self.netlink, device, self.netns_fd, ifname)
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
            netns.run_in(self.netns_fd, sandbox.check_name_is_free, ifname)
            # so it is an altname of the host's that an interface of the pod has as well; DEL gives it back
            remove_altnames(self.netlink, device, device.altnames, self.vf)
            move_into(self.netlink, replace(device, altnames=()), self.netns_fd, ifname)
        timing.mark("move and rename")
