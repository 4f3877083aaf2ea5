"""STATUS: whether ADD can be served (specification, section 4): 50 when it cannot, 51 when pods suffer already."""

from dataclasses import dataclass

from cni.ipam.delegate import ask_status
from cni.policy import Policy
from cni.protocol.netconf import NetConf, Network, parse_netconf
from cni.protocol.permission import check_permission
from cni.protocol.spec import LIMITED_CONNECTIVITY, NOT_AVAILABLE
from cni.protocol.wire import Request
from cni.verbs.choice import list_candidates
from cni.verbs.draft import draft_attachment
from cni.vf.settings import find_netdev, find_vf, is_alone
from sriovdp.errors import CniError, DeviceError, SriovdpError
from sriovdp.kernel.device_name import DeviceName
from sriovdp.kernel.host_use import find_host_use
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import PciAddress
from sriovdp.state.journal import Attachment, Journal, Original


@dataclass(frozen=True, slots=True)
class Status:
    """The verb STATUS, on one node."""

    sysfs: Sysfs
    journal: Journal
    policy: Policy

    def run(self, request: Request) -> None:
        """Raise CniError 51 or 50 with the reason why the request's network is not ready."""
        conf = parse_netconf(request.stdin, request.args, "STATUS")
        check_permission(conf, self.policy)
        network = Network(conf.name, conf.version, conf.raw)
        self._check(conf, draft_attachment(request, network, conf.device or "", Original("", None)))

    def _check(self, conf: NetConf, draft: Attachment) -> None:
        """`draft` carries what the IPAM plugin is run with."""
        self._check_links(conf)
        try:
            self.journal.check_writable()
            self._check_devices(conf)
            ask_status(draft)
        except SriovdpError as error:
            raise CniError(NOT_AVAILABLE, f"no ADD can be served: {error.message}", hint=error.hint) from error

    def _check_devices(self, conf: NetConf) -> None:
        with Netlink() as netlink:
            if conf.device is not None:
                find_vf(self.sysfs, netlink, conf.device)
            elif conf.pf is not None:
                self._check_free(conf, netlink)
            elif not any(self._is_for_pods(netlink, address) for address in self.sysfs.addresses()):
                raise DeviceError("this node has no VFs", hint="`sriovdp apply` makes them as the config says")

    def _is_for_pods(self, netlink: Netlink, address: str) -> bool:
        """Whether this is a VF; one without a PF here only as long as this host does not use it: it may be a NIC."""
        if not is_alone(self.sysfs, address):
            return (self.sysfs.pci(address) / "physfn").exists()
        device = find_netdev(self.sysfs, netlink, PciAddress(address))
        return device is None or not find_host_use(self.sysfs, device)

    def _check_free(self, conf: NetConf, netlink: Netlink) -> None:
        assert conf.keys_2017  # noqa: S101 - the caller looked
        taken = {entry.device for entry in self.journal.survey()[0] if not entry.released}
        if not set(list_candidates(self.sysfs, netlink, conf.keys_2017)) - taken:
            raise DeviceError(f"{conf.pf}: no VF is free", hint="create more VFs, or remove pods")

    def _check_links(self, conf: NetConf) -> None:
        """Raise CniError when a PF whose VFs pods of this network have has lost its link."""
        with Netlink() as netlink:
            for entry in self.journal.survey()[0]:
                if entry.network == conf.name and entry.phase == "attached":
                    self._check_link(netlink, entry)

    def _check_link(self, netlink: Netlink, entry: Attachment) -> None:
        try:
            vf = find_vf(self.sysfs, netlink, PciAddress(entry.device))
        except DeviceError as error:
            name = DeviceName(self.sysfs, entry.device)
            raise CniError(LIMITED_CONNECTIVITY, f"{name}: {entry.owner} has lost it: {error.message}") from error
        pf = next((link for link in netlink.links() if link.ifindex == vf.pf_ifindex), None)
        if pf is not None and not (pf.up and pf.carrier):
            state = "has no carrier" if pf.up else "is down"
            raise CniError(
                LIMITED_CONNECTIVITY,
                f"{vf}: its PF {state}, and {entry.owner} has it",
                hint="look at its cable and switch port, or set it up",
            )
