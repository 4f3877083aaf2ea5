"""How a network fits the node's policy and the devices of its resource."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from cni.policy import Policy
from cni.protocol.nad import NadReport, check_nad
from cni.protocol.netconf import NetConf
from sriovdp.cli.networks import Network
from sriovdp.config.values import Config
from sriovdp.kernel.abilities import BIFURCATED, TABLE, list_wanted
from sriovdp.model import Node, is_userspace
from sriovdp.policy import make_policy
from sriovdp.pools.assignment import assign
from sriovdp.pools.candidates import Candidate
from sriovdp.pools.fit import predict

_FOREIGN = "no plugin has type sriov"  # as check_nad says it
_NO_VF = (
    "there is no annotation k8s.v1.cni.cncf.io/resourceName, so no VF comes with the network; name the resource there, "
    "and let the pod request it"
)
_REPORTED = ("trust", "spoofchk", "link_state")


@dataclass(slots=True)
class Findings:
    """Faults refuse each pod, warnings do not; sentences. `foreign`: the network is for other plugins only."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a network is checked against: the policy, and the devices of each resource, None where they are not known.

    `mtus` are those of PFs, by address.
    """

    policy: Policy = field(default_factory=Policy)
    devices: Mapping[str, Sequence[Candidate]] | None = None
    mtus: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config, node: Node) -> "Surroundings":
        """The node as it will be after `apply`."""
        offers = assign(config.pools, predict(config, node), config.physical_functions)
        pairs = zip(config.pools, offers, strict=True)
        devices = {pool.resource: [offer.candidate for offer in found.values()] for pool, found in pairs}
        entries = [(pf, config.find_pf(pf)) for pf in node.pfs]
        mtus = {
            str(pf.address): max(pf.netdev.mtu, (entry.mtu or 0) if entry else 0) for pf, entry in entries if pf.netdev
        }
        return cls(make_policy(config), devices, mtus)

    def check(self, network: Network) -> Findings:
        """What is wrong with a network here."""
        devices = (self.devices or {}).get(network.resource, ())
        report = self._report(network, devices)
        warnings = [*report.warnings, *self._warn_of_resource(network)]
        foreign = not report.networks and any(fault.message.startswith(_FOREIGN) for fault in report.faults)
        found = Findings([str(fault) for fault in report.faults], warnings, foreign)
        for conf in report.networks:
            if isinstance(network.document, Mapping) and not (network.resource or conf.device or conf.pf):
                found.faults.append(_NO_VF)
            for device in devices:
                limits = self._limit(conf, device)
                if limits.faults or limits.warnings:
                    found.faults += limits.faults
                    found.warnings += limits.warnings
                    break
        return found

    def _report(self, network: Network, devices: Sequence[Candidate]) -> NadReport:
        """Of a network that names no driver, the devices say in which mode they are attached."""
        modes = {"dpdk" if is_userspace(device.driver) else "kernel" for device in devices}
        report = check_nad(network.document, policy=self.policy)
        if len(modes) == 1 and not any(conf.driver for conf in report.networks):
            report = check_nad(network.document, policy=self.policy, mode=modes.pop())
        return report

    def _warn_of_resource(self, network: Network) -> Iterator[str]:
        if self.devices is None or not network.resource:
            return
        if network.resource not in self.devices:
            near = get_close_matches(network.resource, self.devices, 1)
            yield f"the config has no pool {network.resource}" + (f"; did you mean {near[0]}?" if near else "")
        elif not self.devices[network.resource]:
            yield f"{network.resource} has no device on this node; `sriovdp explain` shows why"

    def _limit(self, conf: NetConf, device: Candidate) -> Findings:
        """What a device cannot do."""
        found, what = Findings(), f"{device} ({device.id})"
        driver = conf.driver or device.driver
        mtu = self.mtus.get(device.pf.address)
        if is_userspace(driver) and conf.ipam == "dhcp":
            found.faults.append(f"ipam.type is dhcp, but {what} is on {driver}: there is no netdev to ask with")
        if conf.mtu and mtu and conf.mtu > mtu:
            sentence = f"mtu is {conf.mtu}, but the PF of {what} has {mtu}; set `mtu` of {device.pf.name} in the config"
            (found.faults if is_userspace(driver) else found.warnings).append(sentence)
        found.faults += _list_misfits(conf, device, what)
        found.warnings += _list_unsupported(conf, device, what)
        return found


def _list_misfits(conf: NetConf, device: Candidate, what: str) -> Iterator[str]:
    """What each ADD refuses, as the VF is of the other kind."""
    if device.traits.link_type == "infiniband":
        if vlan := conf.settings.get("vlan"):
            yield f"vlan is {vlan}, but {what} is InfiniBand, which has no port VLAN; partitions keep pods apart there"
        if conf.mac:
            yield f"mac is {conf.mac}, but {what} is InfiniBand; set `guid` in place of it"
    elif device.traits.link_type == "ether":
        if conf.infiniband:
            yield f"type is ib-sriov, but {what} is Ethernet; set it to sriov"
        if conf.guid:
            yield f"guid is {conf.guid}, but {what} is Ethernet; leave guid out"
    if conf.rdma_isolation and not device.traits.is_rdma:
        soft = " but soft RoCE, which cannot go into a pod" if device.traits.soft_rdma else ""
        yield f"rdmaIsolation is true, but {what} has no RDMA device{soft}; leave rdmaIsolation out"


def _list_unsupported(conf: NetConf, device: Candidate, what: str) -> Iterator[str]:
    settings = getattr(device.function, "settings", None)
    for key in _REPORTED if settings else ():
        if conf.settings.get(key) is not None and getattr(settings, key) is None:
            yield f"{key} has no effect on {what}: {device.pf.driver} does not support it"
    given = [key for key in list_wanted(conf.settings) if key not in _REPORTED]
    if device.kind == "VF" and (driver := TABLE.get(device.pf.driver or "")):
        for key in driver.list_lacking(given):
            yield f"{key} may be refused on {what}: {driver.driver} does not take it in Linux 6.12 ({driver.source})"
    elif device.kind == "PF" and conf.settings:
        yield f"{', '.join(conf.settings)}: refused on {what}, which has no PF here, as in a virtual machine"
    if is_userspace(conf.driver) and device.pf.driver in BIFURCATED:
        yield f"driver {conf.driver} is no use with {what}: DPDK uses it through {device.pf.driver}; leave driver out"
