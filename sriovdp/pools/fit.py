"""How a config fits a node: what cannot be done there, and what is likely a mistake. No I/O."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sriovdp.config.document import KeyPath, write_path
from sriovdp.config.ranges import VfIndices
from sriovdp.config.values import Config, PfConfig, Pool
from sriovdp.model import (
    KERNEL_DRIVER,
    NO_DRIVER,
    Node,
    PciAddress,
    PhysicalFunction,
    VirtualFunction,
    is_userspace,
)
from sriovdp.pools.candidates import Candidate, list_candidates
from sriovdp.pools.near_misses import Miss, NearMisses
from sriovdp.pools.selectors import find_owner, find_selector, reject

Finding = tuple[KeyPath, str]
"""Where in the file, and a sentence."""


@dataclass(frozen=True)
class Fit:
    """A config beside a node. `pf_places` and `pool_places` say where its entries are in the file, in its order."""

    config: Config
    node: Node
    pf_places: Sequence[KeyPath]
    pool_places: Sequence[KeyPath]

    def find_faults(self, drivers: Collection[str]) -> Iterator[Finding]:
        """What cannot be done on this node: more VFs than a PF can have, drivers that are not among `drivers`."""
        for place, entry in zip(self.pf_places, self.config.physical_functions, strict=True):
            for pf in self._list_pfs(entry):
                if isinstance(entry.num_vfs, int) and entry.num_vfs > pf.total_vfs:
                    yield (*place, "numVfs"), f"{_name(pf)} can have at most {pf.total_vfs} VFs; {_explain_total(pf)}"
            for number, vfs in enumerate(entry.vfs):
                if vfs.driver not in {KERNEL_DRIVER, NO_DRIVER, *drivers} and any(self._list_pfs(entry)):
                    yield (
                        (*place, "vfs", number, "driver"),
                        f"this node has no PCI driver {vfs.driver} and no module for it; install the module",
                    )

            yield from self._find_macs_for_several(place, entry)

    def _find_macs_for_several(self, place: KeyPath, entry: PfConfig) -> Iterator[Finding]:
        pfs = self._list_pfs(entry)
        for number, vfs in enumerate(entry.vfs):
            if len(pfs) > 1 and not isinstance(vfs.mac, str):
                names = " and ".join(map(_name, pfs))
                yield (*place, "vfs", number, "mac"), f"{names} would get the same MACs; write one entry for each PF"

    def find_warnings(self) -> Iterator[Finding]:
        """What is allowed but likely a mistake."""
        yield from self._warn_of_entries()
        yield from self._warn_of_pools()
        yield from self._warn_of_vfs()

    def _list_pfs(self, entry: PfConfig) -> list[PhysicalFunction]:
        """The PFs that an entry gets. It selects more if an earlier entry has some of them."""
        return [pf for pf in self.node.pfs if self.config.find_pf(pf) is entry]

    def _warn_of_entries(self) -> Iterator[Finding]:
        for place, entry in zip(self.pf_places, self.config.physical_functions, strict=True):
            if any(self._list_pfs(entry)):
                continue
            selected = next((pf for pf in self.node.pfs if entry.select.matches(pf)), None)
            owner = self.config.find_pf(selected) if selected else None
            if owner is None:
                yield (*place, "select"), "no PF of this node matches"
                yield from _place((*place, "select"), self._misses.find_of_pf(entry.select))
                continue
            number = next(n for n, other in enumerate(self.config.physical_functions) if other is owner)
            yield (*place, "select"), f"{write_path(self.pf_places[number])} has every PF of this node that matches"

    @cached_property
    def _node(self) -> Node:
        """The node as it will be after `apply`."""
        return predict(self.config, self.node)

    @cached_property
    def _planned(self) -> tuple[Candidate, ...]:
        """Devices of the node as it will be after `apply`."""
        done = tuple(replace(entry, num_vfs=0) for entry in self.config.physical_functions)
        return tuple(list_candidates(self._node, done))

    @cached_property
    def _misses(self) -> NearMisses:
        return NearMisses(self._node)

    @cached_property
    def _pools(self) -> tuple[Pool, ...]:
        """The pools; `kernel` stands for the kernel driver of VFs to come, whose name is not known yet."""
        return tuple(
            replace(pool, selectors=tuple(replace(s, drivers=_add_kernel(s.drivers)) for s in pool.selectors))
            for pool in self.config.pools
        )

    def _warn_of_pools(self) -> Iterator[Finding]:
        for number, (place, pool) in enumerate(zip(self.pool_places, self._pools, strict=True)):
            matched = [candidate for candidate in self._planned if find_selector(pool, candidate) is not None]
            if not matched:
                why = "`sriovdp explain` shows why for each device"
                yield (*place, "selectors"), f"no device of this node matches: {pool.resource} stays empty; {why}"
                yield from self._find_misses(place, self.config.pools[number])
                continue
            yield from self._warn_of_selectors(place, pool, self.config.pools[number])
            free = [candidate for candidate in matched if not candidate.obstacle]
            owners = {owner[0] for candidate in free if (owner := find_owner(self._pools, candidate))}
            if not free:
                yield place, f"{pool.resource} stays empty: {matched[0].id} matches, but {matched[0].obstacle}"
            elif number not in owners:
                earlier = " and ".join(write_path(self.pool_places[owner]) for owner in sorted(owners))
                yield place, f"{pool.resource} stays empty: {earlier} takes all devices of this node that match"

    def _warn_of_selectors(self, place: KeyPath, pool: Pool, written: Pool) -> Iterator[Finding]:
        """Selectors of a pool that is not empty: each that takes nothing, and values that never take anything."""
        for number, selector in enumerate(pool.selectors):
            where = _place_selector(place, pool, number)
            fitting = (c for c in self._planned if c.device_type == pool.device_type)
            misses = self._misses.find(written.selectors[number], pool.device_type)
            if any(reject(selector, candidate) is None for candidate in fitting):
                yield from _place(where, (miss for miss in misses if miss.sure))
            else:
                yield where, "no device of this node matches"
                yield from _place(where, misses)

    def _find_misses(self, place: KeyPath, pool: Pool) -> Iterator[Finding]:
        for number, selector in enumerate(pool.selectors):
            where = _place_selector(place, pool, number)
            yield from _place(where, self._misses.find(selector, pool.device_type))

    def _warn_of_vfs(self) -> Iterator[Finding]:
        """PFs with VFs that no pool takes."""
        for place, entry in zip(self.pf_places, self.config.physical_functions, strict=True):
            for pf in self._list_pfs(entry):
                vfs = [c for c in self._planned if c.kind == "VF" and c.pf.address == pf.address]
                vfs = [c for c in vfs if c.driver is not None]  # one without a driver is for no pool
                left = [c.index for c in vfs if c.index is not None and find_owner(self._pools, c) is None]
                if left:
                    what = "any of its VFs" if len(left) == len(vfs) else f"VF {_write_indices(left)}"
                    yield place, f"{_name(pf)} is split, but no pool takes {what}"


def predict(config: Config, node: Node) -> Node:
    """The node as it will be after `apply`, as far as can be known.

    A VF to come has the address and device id of the PF's SR-IOV capability; vendor, NUMA node and traits are those of
    the PF. A kernel driver that is not known is called `kernel`.
    """
    return replace(node, pfs=tuple(_predict_pf(pf, config.find_pf(pf)) for pf in node.pfs))


def _predict_pf(pf: PhysicalFunction, entry: PfConfig | None) -> PhysicalFunction:
    if entry is None:
        return pf
    count = pf.total_vfs if entry.num_vfs == "max" else min(entry.num_vfs, pf.total_vfs)
    if entry.externally_managed:
        count = len(pf.vfs)
    now = {vf.index: vf for vf in pf.vfs}
    kernel = next((vf.driver for vf in pf.vfs if vf.driver and not is_userspace(vf.driver)), KERNEL_DRIVER)
    vfs = []
    for index in range(count):
        wanted = entry.vf(index).driver
        vf = now.get(index) or _make_vf(pf, index)
        kept = vf.driver if not is_userspace(vf.driver) else None
        named = {KERNEL_DRIVER: kept or kernel, NO_DRIVER: None}.get(wanted, wanted)
        vfs.append(replace(vf, driver=named))
    return replace(pf, vfs=tuple(vfs))


def _make_vf(pf: PhysicalFunction, index: int) -> VirtualFunction:
    """A VF to come."""
    address = pf.vf_address(index) or PciAddress(f"{pf.address}+vf{index}")
    traits = replace(pf.traits, acpi_index=None, host_use="", vdpa=(), rdma=(), soft_rdma=())
    device_id = pf.vf_device or pf.device
    return VirtualFunction(address, pf.address, index, pf.vendor, device_id, numa_node=pf.numa_node, traits=traits)


def _add_kernel(drivers: tuple[str, ...]) -> tuple[str, ...]:
    return (*drivers, KERNEL_DRIVER) if any(not is_userspace(driver) for driver in drivers) else drivers


def _place_selector(place: KeyPath, pool: Pool, number: int) -> KeyPath:
    """Where a selector is. One alone may be written without a list."""
    return (*place, "selectors", number) if len(pool.selectors) > 1 else (*place, "selectors")


def _place(place: KeyPath, misses: Iterable[Miss]) -> Iterator[Finding]:
    for miss in misses:
        yield (*place, miss.field, miss.number), miss.sentence


def _name(pf: PhysicalFunction) -> str:
    return f"{pf.name} ({pf.address})" if pf.netdev else str(pf.address)


def _explain_total(pf: PhysicalFunction) -> str:
    if pf.total_vfs:
        return f"write {pf.total_vfs} or max, or raise the limit in the NIC's firmware settings"
    return "its driver cannot split it, or SR-IOV is off in the NIC's firmware settings"


def _write_indices(indices: Sequence[int]) -> str:
    return str(VfIndices.parse(",".join(map(str, indices))))
