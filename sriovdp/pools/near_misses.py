"""What a value in the config likely means, where it names no device of a node as it stands. No I/O."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from sriovdp.config.ranges import VfIndices
from sriovdp.config.terms import DeviceType, PfName, RootDevice
from sriovdp.config.values import PfSelect, Selector
from sriovdp.model import KERNEL_DRIVER, Node, PhysicalFunction, VirtualFunction
from sriovdp.pools.candidates import Candidate, list_candidates

BEFORE_3_5 = "as by sriov-network-device-plugin before v3.5; later versions take only VFs by pfNames"
"""What is said where `pfNames` takes a PF itself."""

_WORDS = {
    "netdevice": "a deviceType of sriov-network-operator",
    "kernel": "a word for physicalFunctions",
    "none": "a word for physicalFunctions",
}
_RENAMED = {"i40evf": "iavf"}  # Linux 4.20, commit 8062b2263a9f
_ID_CUTOFF, _DRIVER_CUTOFF, _NAME_CUTOFF = 0.75, 0.6, 0.75  # one wrong digit of four; vfio for vfio-pci
_MAX_NAMES = 8


@dataclass(frozen=True, slots=True)
class Miss:
    """A value that names no device: its key, its number in the key's list, and a sentence with the likely cure.

    `sure`: the value can never take a device of this node. Else it is worth a word only where the selector takes none.
    """

    field: str
    number: int
    sentence: str
    sure: bool = False


Judgement = tuple[str, bool] | None
"""The sentence and whether it is sure; None where nothing is known."""


@dataclass(frozen=True)
class NearMisses:
    """Looks values up in one node."""

    node: Node

    def find(self, selector: Selector, device_type: DeviceType) -> Iterator[Miss]:
        """Misses of a pool's selector, in the order in which its fields are matched."""
        own = [candidate for candidate in self._candidates if candidate.device_type == device_type]
        yield from _judge_all("vendors", selector.vendors, lambda value: self._judge_vendor(value, own))
        yield from _judge_all("devices", selector.devices, lambda value: self._judge_device(value, own))
        yield from _judge_all("drivers", selector.drivers, lambda value: _judge_driver(value, own))
        yield from _judge_all("pciAddresses", selector.pci_addresses, lambda v: self._judge_address(v, device_type))
        yield from _judge_all("pfNames", selector.pf_names, self._judge_pf_name)
        yield from _judge_all("rootDevices", selector.root_devices, self._judge_root)

    def find_of_pf(self, select: PfSelect) -> Iterator[Miss]:
        """Misses of the `select` of an entry of `physicalFunctions`."""
        own = [candidate for candidate in self._candidates if candidate.kind == "PF"]
        yield from _judge_all("pfNames", select.pf_names, lambda name: self._judge_name(name, "{pf}"))
        yield from _judge_all("pciAddresses", select.pci_addresses, self._judge_pf_address)
        yield from _judge_all("vendors", select.vendors, lambda value: self._judge_vendor(value, own))
        yield from _judge_all("devices", select.devices, lambda value: self._judge_pf_device(value, own))
        yield from _judge_all("rootDevices", select.root_devices, self._judge_pf_address)

    @cached_property
    def _candidates(self) -> tuple[Candidate, ...]:
        return tuple(list_candidates(self.node))

    @cached_property
    def _by_address(self) -> dict[str, Candidate]:
        return {str(found.address): found for found in self._candidates if found.address}

    @cached_property
    def _pfs(self) -> dict[str, PhysicalFunction]:
        return {pf.netdev.name: pf for pf in self.node.pfs if pf.netdev}

    @cached_property
    def _parts(self) -> dict[str, tuple[str, PhysicalFunction, int]]:
        """Netdevs of VFs, their representors and subfunctions: what each is, its PF and index."""
        parts: dict[str, tuple[str, PhysicalFunction, int]] = {}
        for pf in self.node.pfs:
            for vf in pf.vfs:
                parts |= {name: (what, pf, vf.index) for name, what in _name_vf(vf)}
            parts |= {sf.netdev.name: (f"subfunction {sf.index}", pf, sf.index) for sf in pf.sfs if sf.netdev}
        return parts

    def _judge_vendor(self, value: str, own: Sequence[Candidate]) -> Judgement:
        known = {candidate.vendor for candidate in own}
        if value in known:
            return None
        if any(candidate.device == value for candidate in self._candidates):
            return f"{value} is a device id: write it under devices", True
        return self._judge_type(value, "vendor") or _guess(value, known, _ID_CUTOFF)

    def _judge_device(self, value: str, own: Sequence[Candidate]) -> Judgement:
        known = {candidate.device for candidate in own if not _is_split(candidate)}
        split = next((c.pf for c in own if _is_split(c) and c.device == value), None)
        if split:
            return f"{value} is the id of PF {split.name}; its VFs have {split.vfs[0].device}", value not in known
        if value in known:
            return None
        return self._judge_swapped(value) or self._judge_type(value, "device") or _guess(value, known, _ID_CUTOFF)

    def _judge_pf_device(self, value: str, own: Sequence[Candidate]) -> Judgement:
        known = {candidate.device for candidate in own}
        if value in known:
            return None
        vf = next((c for c in self._candidates if c.kind == "VF" and c.device == value), None)
        if vf:
            return f"{value} is the id of the VFs of {vf.pf.name}; the PF has {vf.pf.device}", True
        return self._judge_swapped(value) or _guess(value, known, _ID_CUTOFF)

    def _judge_swapped(self, value: str) -> Judgement:
        if any(candidate.vendor == value for candidate in self._candidates):
            return f"{value} is a vendor id: write it under vendors", True
        return None

    def _judge_type(self, value: str, field: str) -> Judgement:
        """An id that only devices of another type have."""
        found = next((c for c in self._candidates if getattr(c, field) == value), None)
        return (f"{found.id} has this id: write deviceType: {found.device_type}", True) if found else None

    def _judge_address(self, value: str, device_type: DeviceType) -> Judgement:
        found = self._by_address.get(value)
        if found is None:
            return self._guess_domain(value)
        if _is_split(found):
            return f"{value} is a PF split into VFs: use rootDevices to select the VFs of {found.pf.name}", True
        if device_type not in {found.device_type, "auxNetDevice"}:
            what = "an accelerator" if found.device_type == "accelerator" else "a network function"
            return f"{value} is {what}: write deviceType: {found.device_type}", True
        return None

    def _judge_pf_address(self, value: str) -> Judgement:
        found = self._by_address.get(value)
        if found is None:
            return self._guess_domain(value)
        return (f"{value} is {found}: write {found.pf.address}", True) if found.kind == "VF" else None

    def _judge_pf_name(self, entry: PfName) -> Judgement:
        pf = self._pfs.get(entry.name)
        if pf is None:
            return self._judge_name(entry.name, "{pf}#{index}")
        if entry.indices is None and not pf.vfs and not pf.sfs:
            return f"{pf.name} has no VFs: the PF itself is taken, {BEFORE_3_5}", True
        return _judge_indices(pf, entry.indices)

    def _judge_name(self, name: str, cure: str) -> Judgement:
        """A name of no PF here. `cure` says how the PF, or its part with an index, is written."""
        if name in self._pfs:
            return None
        if set(name) & set("*?["):
            fitting = [pf for pf in self._pfs if fnmatchcase(pf, name)]
            return f"* is not expanded; write the names of the PFs{_list(fitting, ': ')}", True
        if part := self._parts.get(name):
            what, pf, index = part
            return f"{name} is {what} of {pf.name}: use {cure.format(pf=pf.name, index=index)}", True
        if name.lower() in self._by_address:
            return f"{name} is a PCI address: use rootDevices", True
        return self._judge_spelling(name)

    def _judge_spelling(self, name: str) -> Judgement:
        """A name that is a PF's in another form, or none at all."""
        alias = next((pf for pf, found in self._pfs.items() if found.netdev and name in found.netdev.altnames), None)
        if alias:
            return f"{name} is an altname of {alias}: write {alias}", True
        same = next((pf for pf in self._pfs if pf.lower() == name.lower()), None)
        if same:
            return f"did you mean {same}? Upper and lower case differ", True
        none = f"this node has no PF {name}{_list(self._pfs, '; it has ')}"
        return _guess(name, self._pfs, _NAME_CUTOFF) or (none, False)

    def _judge_root(self, entry: RootDevice) -> Judgement:
        found = self._by_address.get(entry.address)
        if found is None:
            return self._judge_bridge(entry.address) or self._guess_domain(entry.address)
        if found.kind == "VF":
            return f"{entry.address} is {found}: use {found.pf.address}#{found.index}, or pciAddresses", True
        return _judge_indices(found.pf, entry.indices)

    def _judge_bridge(self, value: str) -> Judgement:
        below = [f"{pf.name} ({pf.address})" for pf in self.node.pfs if value in pf.bridges]
        return (
            (f"{value} is a PCI bridge: write the address of the PF{_list(below, ' below it: ')}", True)
            if below
            else None
        )

    def _guess_domain(self, value: str) -> Judgement:
        rest = value.partition(":")[2]
        other = next((address for address in self._by_address if address.partition(":")[2] == rest), None)
        return (f"did you mean {other}?", False) if other else None


def _judge_all(field: str, values: Iterable[Any], judge: Callable[[Any], Judgement]) -> Iterator[Miss]:
    for number, value in enumerate(values):
        judgement = judge(value)
        if judgement:
            yield Miss(field, number, *judgement)


def _judge_driver(value: str, own: Sequence[Candidate]) -> Judgement:
    known = {candidate.driver for candidate in own if candidate.driver and not _is_split(candidate)}
    split = next((c.pf for c in own if _is_split(c) and c.driver == value), None)
    of_vfs = sorted({vf.driver for vf in split.vfs if vf.driver}) if split else []
    if split and value not in of_vfs:
        return f"{value} is the driver of PF {split.name}{_list(of_vfs, '; its VFs have ')}", value not in known
    if value in known:
        return None
    if value.lower() in _WORDS:
        of_devices = {c.driver for c in own if c.driver and c.kind == "VF"} - {KERNEL_DRIVER} or known
        named = _list(of_devices, ": ")
        return f"{value} is not a driver but {_WORDS[value.lower()]}; write the driver of the devices{named}", True
    if _RENAMED.get(value) in known:
        return f"did you mean {_RENAMED[value]}? {value} is called so since Linux 4.20", True
    return _guess(value, known, _DRIVER_CUTOFF)


def _judge_indices(pf: PhysicalFunction, indices: VfIndices | None) -> Judgement:
    """A PF that is here, but has no such VF or subfunction."""
    there = sorted({vf.index for vf in pf.vfs} | {sf.index for sf in pf.sfs})
    if not there and pf.total_vfs:
        create = f"create them with an entry in physicalFunctions, or select {pf.name} itself with pciAddresses"
        return f"{pf.name} has no VFs (it can have {pf.total_vfs}); {create}", False
    if not there:
        return f"{pf.name} has no VFs: select it with pciAddresses: {pf.address}", False
    if indices is not None and not any(index in indices for index in there):
        return f"{pf.name} has only VF {VfIndices.parse(','.join(map(str, there)))}", False
    return None


def _is_split(candidate: Candidate) -> bool:
    return candidate.kind == "PF" and bool(candidate.pf.vfs)


def _name_vf(vf: VirtualFunction) -> Iterator[tuple[str, str]]:
    if vf.netdev:
        yield vf.netdev.name, f"VF {vf.index}"
    if vf.representor:
        yield vf.representor, f"the representor of VF {vf.index}"


def _guess(value: str, known: Collection[str], cutoff: float) -> Judgement:
    near = get_close_matches(value, known, 1, cutoff)
    return (f"did you mean {near[0]}?", False) if near else None


def _list(names: Collection[str], before: str) -> str:
    """Some names after a text; nothing where there are none."""
    shown = sorted(names)[:_MAX_NAMES]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"{before}{', '.join(shown)}{more}" if shown else ""
