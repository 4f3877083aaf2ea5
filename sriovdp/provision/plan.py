"""The difference between a node and its config, as the steps that remove it. No I/O."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from sriovdp.config.values import Config, PfConfig, VfConfig
from sriovdp.errors import DeviceError
from sriovdp.kernel.drivers import is_bound_as_wanted
from sriovdp.model import (
    KERNEL_DRIVER,
    NO_DRIVER,
    Eswitch,
    Node,
    PciAddress,
    PhysicalFunction,
    VirtualFunction,
    is_userspace,
)
from sriovdp.provision.advice import warn_of_lacks
from sriovdp.provision.eswitch import plan_mode, plan_rest
from sriovdp.provision.settings import Derived, make_stable_mac, plan_netdev_mac, plan_settings
from sriovdp.provision.steps import (
    BindDriver,
    ClearOverride,
    SetAdminMac,
    SetAutoprobe,
    SetGuid,
    SetLink,
    SetMtu,
    SetNumVfs,
    SetRdmaMode,
    SetVf,
    SetVfMtu,
    Step,
)
from sriovdp.provision.unread import gives_settings, list_unread, lists_none
from sriovdp.provision.warnings import warn_of_entries, warn_of_pf, warn_of_twins
from sriovdp.provision.wishes import count_vfs, find_fault, find_wish, is_infiniband


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What an interrupted apply left of a PF: how its autoprobe was, and which VFs have a `driver_override` of ours.

    `eswitch` is how its e-switch was, where the apply was to change that.
    """

    autoprobe: bool
    overrides: frozenset[PciAddress] = frozenset()
    eswitch: Eswitch | None = None


NO_LEFTOVERS: Mapping[PciAddress, Leftovers] = MappingProxyType({})

MadeMacs = Mapping[PciAddress, Mapping[int, str]]
"""Stable MACs that applies made, by PF and VF index."""

NONE_MADE: MadeMacs = MappingProxyType({})

Refusals = Mapping[PciAddress, Mapping[int, str]]
"""Whose driver took no MAC or GUID that this program makes, by PF and VF index: `PF`, or `VF` where neither did."""

NONE_REFUSED: Refusals = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they are to be done: PF after PF. `warnings` are sentences about the config.

    `faults` says of a PF why it cannot be as the config says; it has no steps then. `unread` says of which VFs of a PF
    it is not known whether they are; its steps are not all, and not to be done. Both are sentences. `unlisted` are PFs
    of which the kernel lists no VF, while nothing is known of why: a later look may find more.
    `mode` is a step for the RDMA mode, which is the node's and comes before those of PFs.
    """

    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    faults: Mapping[PciAddress, str] = field(default_factory=dict)
    unread: Mapping[PciAddress, list[str]] = field(default_factory=dict)
    unlisted: frozenset[PciAddress] = frozenset()
    mode: SetRdmaMode | None = None

    @property
    def is_empty(self) -> bool:
        """Whether all PFs are as the config says."""
        return not self.steps and not self.blocked

    @property
    def blocked(self) -> list[str]:
        """Why PFs cannot be changed, or compared."""
        return [*self.faults.values(), *(sentence for own in self.unread.values() for sentence in own)]

    def is_blocked(self, pf: PciAddress) -> bool:
        """Whether a PF can neither be changed nor be found as it should be."""
        return pf in self.faults or pf in self.unread

    @property
    def pfs(self) -> dict[PciAddress, list[Step]]:
        """The steps of each PF that has any."""
        found: dict[PciAddress, list[Step]] = {}
        for step in self.steps:
            found.setdefault(step.pf, []).append(step)
        return found


def plan(
    config: Config,
    node: Node,
    attached: Collection[str] = (),
    leftovers: Mapping[PciAddress, Leftovers] = NO_LEFTOVERS,
    made: MadeMacs = NONE_MADE,
    refused: Refusals = NONE_REFUSED,
) -> Plan:
    """Find what has to be done to a node. PFs that are not in the config are left alone.

    `attached` has the PCI addresses of VFs that a pod has: their settings are the pod's business until it gives them
    back. `leftovers` has the PFs whose last apply was interrupted. A stable MAC that is in `made`, or comes from a MAC
    that a PF of this node has now, as a bond gives one to all its members, stays until the VF is created again; until
    then what is in `refused` is not tried again. Raises DeviceError when VFs of two PFs would have the same MACs.
    """
    node = _tell_apart(node)
    entries = [(pf, config.find_pf(pf)) for pf in node.pfs]
    taken = [(pf, entry) for pf, entry in entries if entry is not None]
    _check_given_macs(taken)
    faults = {pf.address: str(fault) for pf, entry in taken if (fault := find_fault(pf, entry))}
    entries = [(pf, entry) for pf, entry in entries if pf.address not in faults]
    unread: dict[PciAddress, list[str]] = {}
    unlisted: set[PciAddress] = set()
    steps: list[Step] = []
    warnings: list[str] = []
    for pf, entry in entries:
        known = _Known(node, made.get(pf.address, {}), refused.get(pf.address, {}))
        is_unlisted = lists_none(pf, known.recorded, known.refused)
        own = list(_plan_pf(pf, entry, attached, known)) if entry else []
        own += _plan_leftovers(pf, leftovers.get(pf.address), own)
        steps += own
        if entry and (missing := list(list_unread(pf, entry, own, attached, is_unlisted=is_unlisted))):
            unread[pf.address] = missing
        if entry and is_unlisted and len(known.refused) < len(pf.vfs):
            unlisted.add(pf.address)
        if entry:
            warnings += warn_of_pf(pf, entry, known.refused, is_unlisted=is_unlisted)
    warnings += [*warn_of_entries(config, node, [entry for _, entry in taken]), *warn_of_twins(taken, steps)]
    warnings += [w for pf, _ in taken for w in warn_of_lacks(pf, [step for step in steps if step.pf == pf.address])]
    return Plan(tuple(steps), tuple(warnings), faults, unread, frozenset(unlisted))


def _tell_apart(node: Node) -> Node:
    """PFs with one MAC, of which no driver reports the permanent one, as in a team: their addresses tell them apart."""
    macs = Counter(pf.netdev.own_mac for pf in node.pfs if pf.netdev)
    return replace(
        node,
        pfs=tuple(
            replace(pf, netdev=replace(pf.netdev, permanent_mac=f"{pf.netdev.own_mac}/{pf.address}"))
            if pf.netdev and macs[pf.netdev.own_mac] > 1
            else pf
            for pf in node.pfs
        ),
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """Of one PF's VFs: stable MACs that stay, by its record and by the MACs of this node, and what was refused."""

    node: Node
    recorded: Mapping[int, str]
    refused: Mapping[int, str]

    def of(self, index: int) -> Derived:
        """What is known of one VF."""
        return Derived(tuple(self._list_made(index)), self.refused.get(index, ""))

    def _list_made(self, index: int) -> Iterator[str]:
        if index in self.recorded:
            yield self.recorded[index]
        for pf in self.node.pfs:
            if pf.netdev and pf.netdev.permanent_mac not in {"", pf.netdev.mac}:
                yield make_stable_mac(pf.netdev.mac, index)


def _check_given_macs(taken: Sequence[tuple[PhysicalFunction, PfConfig]]) -> None:
    for number, (pf, entry) in enumerate(taken):
        other = next((earlier for earlier, same in taken[:number] if same is entry), None)
        if other and any(not isinstance(vfs.mac, str) for vfs in entry.vfs):
            raise DeviceError(
                f"{other.name}, {pf.name}: their VFs would have the same MACs: one entry of physicalFunctions gives "
                "MACs and selects both",
                hint="write an entry for each PF",
            )


def _plan_pf(pf: PhysicalFunction, entry: PfConfig, attached: Collection[str], known: _Known) -> Iterator[Step]:
    """Settings come before drivers (igb hands a MAC over at the bind only), MTUs of VFs after them.

    Drivers for user space come first: they do not need the PF's link, which is down for a while after VFs were created.
    Rates do with some NICs (drivers/net/ethernet/intel/igb/igb_main.c, igb_ndo_set_vf_bw), as do kernel drivers.
    """
    wanted = count_vfs(pf, entry)
    vfs: list[VirtualFunction | None] = [*pf.vfs]
    if not entry.externally_managed:
        yield from _prepare_pf(pf, entry, wanted)
        mode_steps = plan_mode(pf, entry.eswitch_mode, wanted)
        yield from mode_steps
        there = 0 if mode_steps else len(pf.vfs)
        if there != wanted:
            reason = f"numVfs is {entry.num_vfs}, there are {there}"
            yield SetNumVfs(pf.address, pf.name, reason, there, wanted)
        if mode_steps or there != wanted:
            vfs = [None] * wanted
    is_unlisted = lists_none(pf, known.recorded, known.refused)
    without_list = replace(pf, sets_vfs=False) if is_unlisted else pf
    binds: list[BindDriver] = []
    rates: list[Step] = []
    late: list[Step] = []
    for number, vf in enumerate(vfs):
        index = vf.index if vf else number
        wish = find_wish(pf, entry, index)
        free = vf is None or not (vf.address in attached or vf.is_elsewhere)
        asked = without_list if vf and not gives_settings(wish, index) else pf
        settings = list(plan_settings(asked, index, vf, wish, known.of(index))) if free else []
        rates += filter(_is_rate, settings)
        yield from (step for step in settings if not _is_rate(step))
        renamed = any(isinstance(step, SetAdminMac | SetGuid) for step in settings)
        bind = _plan_driver(pf, index, vf, wish, renamed=renamed, refused=known.refused.get(index, ""))
        if bind and (free or not bind.again):
            binds.append(bind)
        rebound = bind is not None
        late += plan_netdev_mac(asked, index, vf, wish, known.of(index), rebound=rebound) if free else ()
        if free and entry.mtu and wish.driver == KERNEL_DRIVER:
            late += _plan_vf_mtu(pf, index, vf, entry.mtu, rebound=rebound)
    yield from (bind for bind in binds if _is_early(bind))
    yield from rates
    yield from (bind for bind in binds if not _is_early(bind))
    yield from late


def _is_early(bind: BindDriver) -> bool:
    return bind.wanted == NO_DRIVER or is_userspace(bind.wanted)


def _is_rate(step: Step) -> bool:
    return isinstance(step, SetVf) and "max_tx_rate" in step.changes


def _prepare_pf(pf: PhysicalFunction, entry: PfConfig, wanted: int) -> Iterator[Step]:
    if wanted and pf.netdev and not pf.netdev.up:
        yield SetLink(pf.address, pf.name, "VFs of a PF that is down have no link")
    if entry.mtu and pf.netdev and pf.netdev.mtu < entry.mtu:
        reason = f"the config wants {entry.mtu}, it is {pf.netdev.mtu}"
        yield SetMtu(pf.address, pf.name, reason, pf.netdev.mtu, entry.mtu)


def _plan_leftovers(pf: PhysicalFunction, left: Leftovers | None, own: Collection[Step]) -> Iterator[Step]:
    if left is None:
        return
    recreated = any(isinstance(step, SetNumVfs) for step in own)
    bound = {step.index for step in own if isinstance(step, BindDriver) and step.wanted != NO_DRIVER}
    for vf in pf.vfs:
        if vf.address in left.overrides and not recreated and vf.index not in bound:
            yield ClearOverride(pf.address, pf.name, "an interrupted apply left it", vf.index, vf.address)
    if pf.autoprobe != left.autoprobe:
        yield SetAutoprobe(pf.address, pf.name, "it was so before an interrupted apply", left.autoprobe)
    yield from plan_rest(pf, left.eswitch, own)


def _plan_driver(
    pf: PhysicalFunction, index: int, vf: VirtualFunction | None, wish: VfConfig, *, renamed: bool, refused: str
) -> BindDriver | None:
    place = (index, vf.address if vf else None, vf.driver if vf else None)
    if vf is None:
        if wish.driver == NO_DRIVER:
            return None
        return BindDriver(pf.address, pf.name, "a new VF has no driver", *place, wish.driver, noiommu=wish.noiommu)
    if not is_bound_as_wanted(vf.driver, wish.driver):
        target = {KERNEL_DRIVER: "its kernel driver", NO_DRIVER: "no driver"}.get(wish.driver, wish.driver)
        reason = f"the config wants {target}, it has {vf.driver or 'no driver'}"
        return BindDriver(pf.address, pf.name, reason, *place, wish.driver, noiommu=wish.noiommu)
    is_stale = not refused and _has_stale_mac(pf, vf, wish)
    if vf.driver is not None and not is_userspace(vf.driver) and (renamed or is_stale):
        reason = f"a driver takes {'a GUID' if is_infiniband(pf) else 'an admin MAC'} over when it is bound"
        return BindDriver(pf.address, pf.name, reason, *place, vf.driver, again=True)
    return None


def _has_stale_mac(pf: PhysicalFunction, vf: VirtualFunction, wanted: VfConfig) -> bool:
    """Whether a crash came between setting the admin MAC and binding the driver again.

    A netdev that is up is left alone: somebody on this host uses it and may have given it this MAC.
    """
    if wanted.mac == "keep" or is_infiniband(pf) or vf.netdev is None or vf.settings is None or vf.netdev.up:
        return False
    return vf.netdev.mac != vf.settings.mac


def _plan_vf_mtu(
    pf: PhysicalFunction, index: int, vf: VirtualFunction | None, mtu: int, *, rebound: bool
) -> Iterator[Step]:
    """A driver that is bound starts from its own MTU, which is not known before."""
    current = vf.netdev.mtu if vf and vf.netdev and not rebound else None
    if current != mtu:
        reason = f"the config wants {mtu}, it is {current}" if current else "the driver is new to it"
        yield SetVfMtu(pf.address, pf.name, reason, index, vf.address if vf else None, current, mtu)
