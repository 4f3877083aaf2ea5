"""Everything on a node that a pool could offer, seen the way selectors see it. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

from sriovdp.config.terms import DeviceType
from sriovdp.config.values import PfConfig
from sriovdp.model import (
    NetDevice,
    Node,
    PciAddress,
    PhysicalFunction,
    Subfunction,
    Traits,
    VirtualFunction,
    escape_unprintable,
    name_vf,
)

Kind = Literal["VF", "PF", "SF"]
"""VF: a virtual function. PF: a PCI function without a PF here, so a VF in a virtual machine too. SF: a subfunction."""

Function: TypeAlias = PhysicalFunction | VirtualFunction | Subfunction


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that a pool of this type could offer, unless `obstacle` says why none can, and the cure.

    `vendor`, `device` and `driver` of a subfunction are those of its PF, and `address` is None, as upstream has it.
    `index` counts VFs or subfunctions of the PF, and is None for a PF.
    """

    id: str
    kind: Kind
    device_type: DeviceType
    pf: PhysicalFunction
    function: Function
    vendor: str
    device: str
    driver: str | None
    address: PciAddress | None = None
    index: int | None = None
    obstacle: str = ""

    @property
    def traits(self) -> Traits:
        """The function's own."""
        return self.function.traits

    @property
    def netdev(self) -> NetDevice | None:
        """The function's own."""
        return self.function.netdev

    @property
    def name(self) -> str:
        """Its name in log lines and errors, like `eth0 VF 3 (0000:3b:02.3)`."""
        if self.kind == "VF" and self.index is not None:
            return name_vf(self.pf.name, self.index, self.id)
        if self.kind == "SF":
            return escape_unprintable(f"{self.pf.name} SF {self.index} ({self.id})")
        return self.id if self.netdev is None else escape_unprintable(f"{self.netdev.name} ({self.id})")

    def __str__(self) -> str:
        return self.id if self.kind == "PF" else f"{self.kind} {self.index} of {self.pf.name}"


NONE_RETURNED: Mapping[str, str] = MappingProxyType({})
"""No function is known to have been a pod's."""


def list_candidates(
    node: Node, physical_functions: Sequence[PfConfig] = (), returned: Mapping[str, str] = NONE_RETURNED
) -> Iterator[Candidate]:
    """All network functions in order of PF and VF index, each PF before its VFs and these before its subfunctions.

    Then all accelerators. `physical_functions` are those of the config: a PF that it splits is not offered, and one
    that this host uses only with `allowHostUplink`. `returned` are functions without a PF here that a pod had before,
    each with its MAC: one to which a DHCP client of this host gave an address since is still for pods.
    """
    for pf in node.pfs:
        if pf.traits.addressed and pf.netdev and returned.get(pf.address) == pf.netdev.mac:
            pf = replace(pf, traits=replace(pf.traits, host_use="", addressed=False))  # noqa: PLW2901
        entry = next((entry for entry in physical_functions if entry.select.matches(pf)), None)
        yield _see_pf(pf, "netDevice", _find_pf_obstacle(pf, entry))
        for vf in pf.vfs:
            yield _see_vf(pf, vf, "netDevice", _find_obstacle(vf, pf, entry))
        for sf in pf.sfs:
            yield _see_sf(pf, sf, _find_obstacle(sf, pf, entry))
    for pf in node.accelerators:
        yield _see_pf(pf, "accelerator", _find_obstacle(pf, pf, None))
        for vf in pf.vfs:
            yield _see_vf(pf, vf, "accelerator", _find_obstacle(vf, pf, None))


def _see_pf(pf: PhysicalFunction, device_type: DeviceType, obstacle: str) -> Candidate:
    return Candidate(
        pf.address, "PF", device_type, pf, pf, pf.vendor, pf.device, pf.driver, pf.address, obstacle=obstacle
    )


def _see_vf(pf: PhysicalFunction, vf: VirtualFunction, device_type: DeviceType, obstacle: str) -> Candidate:
    return Candidate(
        vf.address, "VF", device_type, pf, vf, vf.vendor, vf.device, vf.driver, vf.address, vf.index, obstacle
    )


def _see_sf(pf: PhysicalFunction, sf: Subfunction, obstacle: str) -> Candidate:
    return Candidate(
        sf.name, "SF", "auxNetDevice", pf, sf, pf.vendor, pf.device, pf.driver, index=sf.index, obstacle=obstacle
    )


def _find_pf_obstacle(pf: PhysicalFunction, entry: PfConfig | None) -> str:
    if pf.vfs:
        return f"it is split into {len(pf.vfs)} VF{'' if len(pf.vfs) == 1 else 's'}, which are offered in its place"
    if entry and entry.num_vfs and (pf.total_vfs or entry.num_vfs != "max"):
        return "an entry of physicalFunctions splits it into VFs, and there are none yet"
    return _find_obstacle(pf, pf, entry)


def _find_obstacle(function: Function, pf: PhysicalFunction, entry: PfConfig | None) -> str:
    if function.driver is None:
        return "it has no driver"
    use = function.traits.host_use
    if not use or (entry and entry.allow_host_uplink):
        return ""
    return f"{use}; to offer it all the same, {_write_cure(function, pf, entry)}"


def _write_cure(function: Function, pf: PhysicalFunction, entry: PfConfig | None) -> str:
    if entry:
        return f"set allowHostUplink: true in the entry of {pf.name} in physicalFunctions"
    if function is pf:
        added = f'{{select: {{pciAddresses: ["{pf.address}"]}}, numVfs: 0, allowHostUplink: true}}'
        return f"add {added} to physicalFunctions"
    return f"add an entry of {pf.name} with allowHostUplink: true to physicalFunctions"
