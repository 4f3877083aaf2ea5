"""One pool at work: what it offers, what its containers get, and the files that go with that.

Every call for a container reads again what decides about its devices; what else is known of them is as old as the last
look at the node.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from sriovdp.config.values import Pool
from sriovdp.errors import DeviceError, InUseError, SriovdpError, naming
from sriovdp.model import Fault, Node, PoolDevice
from sriovdp.pools.allocation import Access, Allocation, allocate, find_access
from sriovdp.pools.assignment import Offer
from sriovdp.pools.candidates import list_candidates
from sriovdp.pools.cdi import CdiSpecs, name_device
from sriovdp.pools.device_info import DeviceInfoFiles
from sriovdp.pools.grants import Grant, Grants
from sriovdp.pools.health import judge
from sriovdp.pools.holds import Holds
from sriovdp.pools.host import LiveHost
from sriovdp.pools.pcie_errors import PcieErrors
from sriovdp.pools.placement import prefer
from sriovdp.pools.selectors import reject

logger = logging.getLogger(__name__)

_GRACE = 60.0  # seconds from an allocation to when the kubelet reports its pod: the pod is being admitted
_DOUBT = 60.0  # seconds for which a device that was refused is given last, whatever the next looks find


class PoolService:
    """The service of one pool. Safe to be called from several threads.

    `find_owner` says who has a device that must not be given once more, empty for no pod.
    """

    def __init__(
        self,
        pool: Pool,
        host: LiveHost,
        grants: Grants,
        device_info: DeviceInfoFiles,
        cdi: CdiSpecs,
        find_owner: Callable[[str], str],
    ) -> None:
        self.pool = pool
        """What it offers; may be another one of the same resource from the next update on."""
        self._host = host
        self._grants = grants
        self._device_info = device_info
        self._cdi = cdi
        self._find_owner = find_owner
        self._offers: Mapping[str, Offer] = {}
        self._accesses: dict[str, Access] = {}  # as the CDI spec has them
        self._given_at: dict[str, float] = {}
        self._refused_at: dict[str, float] = {}
        self._doubtful: frozenset[str] = frozenset()
        self._is_writable = False  # until the first look has tried it
        self._refreshed: set[str] = set()  # since the last look was taken over
        self._lock = threading.Lock()
        self._holds = Holds()
        self._pcie_errors = PcieErrors()
        self._warned: frozenset[tuple[str, Fault]] = frozenset()

    @property
    def next_change(self) -> float | None:
        """Seconds from the last update to when the health of a device may change by itself, None for never."""
        return self._holds.find_next()

    @property
    def offers(self) -> Mapping[str, Offer]:
        """What the last update offered, by device."""
        return self._offers

    def update(
        self,
        offers: Mapping[str, Offer],
        node: Node,
        broken: Mapping[str, Fault],
        in_use: Collection[str] | None = None,
    ) -> list[PoolDevice]:
        """Take over what a look at the node found, and judge it.

        `broken` are devices no pod should get, with faults; `in_use` those that pods have, None when it is not known.
        A device that was offered before and has lost its driver is among the devices, as not healthy.
        """
        used = None if in_use is None else self.list_used(in_use)
        missing = self._offers.keys() - offers.keys()
        seen = [c for c in list_candidates(node) if c.id in missing] if missing else []
        driverless = {c.id for c in seen if c.function.driver is None}
        for candidate in seen:
            if candidate.obstacle and candidate.id not in driverless:
                logger.warning("%s: %s: no longer offered: %s", self.pool.resource, candidate.name, candidate.obstacle)
        kept = {id_: offer for id_, offer in self._offers.items() if id_ in missing & driverless}
        verdicts = {
            id_: judge(self.pool, offer, self._host, in_use=used is None or id_ in used)
            for id_, offer in offers.items()
        }
        known = {id_: verdict.access or self._accesses.get(id_) for id_, verdict in verdicts.items()}
        accesses = {id_: access for id_, access in known.items() if access is not None}
        self._doubtful = frozenset(id_ for id_, verdict in verdicts.items() if verdict.access is None)
        fault = self._take_over(kept | dict(offers), accesses)
        whole = (Fault("files", fault),) if fault else ()
        self._holds.update(
            time.monotonic(),
            self.pool.find_rule,
            [(id_, lack) for id_, found in verdicts.items() for lack in found.lacks],
            self._pcie_errors.find_new(self.pool, offers, self._host),
        )
        counting = self._holds.find()
        faults = {
            id_: (
                *((broken[id_],) if id_ in broken else ()),
                *whole,
                *(
                    Fault(lack.condition, lack.reason, rule.action == "unhealthy")
                    for lack, rule in counting.get(id_, ())
                ),
            )
            for id_ in offers
        }
        self._log_warnings(faults)
        return [
            *(self._build_device(offers[id_], faults[id_]) for id_ in offers),
            *(self._build_device(offer, (Fault("driver", "it has lost its driver"),)) for offer in kept.values()),
        ]

    def _log_warnings(self, faults: Mapping[str, Sequence[Fault]]) -> None:
        """Log each warning when it begins and when it ends: once for all devices that it is about."""
        now = frozenset((id_, fault) for id_, found in faults.items() for fault in found if not fault.is_fatal)
        for fault, who in self._group(now - self._warned):
            logger.warning("%s: %s: %s (%s)", self.pool.resource, who, fault.reason, fault.condition)
        for fault, who in self._group(self._warned - now):
            logger.info("%s: %s: no longer so: %s (%s)", self.pool.resource, who, fault.reason, fault.condition)
        self._warned = now

    def _group(self, found: Collection[tuple[str, Fault]]) -> Iterator[tuple[Fault, str]]:
        """Each fault once, with the devices that have it in words."""
        ids: dict[Fault, list[str]] = {}
        for id_, fault in sorted(found, key=lambda pair: pair[0]):
            ids.setdefault(fault, []).append(id_)
        for fault, (first, *others) in ids.items():
            offer = self._offers.get(first)
            yield fault, (offer.candidate.name if offer else first) + (f" and {len(others)} more" if others else "")

    def _take_over(self, offers: Mapping[str, Offer], accesses: dict[str, Access]) -> str:
        """Take over what there is now; gives what keeps the whole pool from being given, empty for nothing."""
        fault = self._find_unwritable()
        with self._lock:
            # a container that starts is given what it finds then, which a look begun before does not know
            newer = {id_: self._accesses[id_] for id_ in self._refreshed & accesses.keys()}
            self._refreshed.clear()
            self._offers = offers
            self._accesses = accesses = accesses | newer
            try:
                self._cdi.write(self.pool, accesses)
                if self._cdi.enabled:
                    name_device(self.pool, "any")
            except SriovdpError as error:
                return fault or str(error)
        return fault

    def _find_unwritable(self) -> str:
        """Why nothing can be kept of what is given, empty when it can. Tried at the start, and after each failure."""
        try:
            if not self._is_writable:
                self._grants.check_writable()
                if self.pool.device_type == "netDevice":
                    self._device_info.check_writable()
        except OSError as error:
            return f"writing below {error.filename} failed: {error.strerror}"
        self._is_writable = True
        return ""

    def tidy(self, held: Collection[str]) -> None:
        """Keep the files of devices that pods have, and remove those of all others of this pool."""
        in_use = self.list_used(held)
        try:
            for id_ in in_use & self._offers.keys():
                self._device_info.write(self.pool, self._offers[id_])
            self._device_info.remove_others(self.pool, in_use)
            self._grants.remove_others(self.pool.resource, in_use)
            if not in_use:
                self._cdi.remove_unused(self.pool)
        except OSError as error:
            self._is_writable = False
            logger.error("%s: writing the files of its devices failed: %s", self.pool.resource, error)

    def list_returned(self) -> dict[str, str]:
        """Functions without a PF here that pods had at any time, each with its MAC."""
        return self._grants.list_returned(self.pool.resource)

    def note_listed(self, held: Collection[str], asked_at: float) -> None:
        """Take over that the kubelet lists pods for these devices, as of that time on the monotonic clock.

        From then on the kubelet knows best when they are free.
        """
        for id_ in held:
            if self._given_at.get(id_, asked_at) < asked_at:
                self._given_at.pop(id_, None)

    def list_used(self, held: Collection[str]) -> frozenset[str]:
        """The devices that pods have, and those just given to pods which the kubelet does not list yet."""
        oldest = time.monotonic() - _GRACE
        return frozenset(held) | {id_ for id_, given in list(self._given_at.items()) if given > oldest}

    def allocate(self, ids: Sequence[str]) -> Allocation:
        """What a container gets for these devices. Raises SriovdpError when one cannot be given to it."""
        offers, accesses = [], {}
        for id_ in ids:
            try:
                offer = self._take(id_)
                accesses[id_] = find_access(self.pool, offer, self._host)
            except SriovdpError:
                self._refused_at[id_] = time.monotonic()
                raise
            offers.append(offer)
        allocation = allocate(self.pool, accesses)
        if self._cdi.enabled:
            allocation = self._name_devices(allocation, ids)
        self._refresh_spec(accesses)
        try:
            self._grants.write(self.pool.resource, [self._grant(offer, accesses[offer.id]) for offer in offers])
            for offer in offers:
                self._device_info.write(self.pool, offer)
        except OSError as error:
            self._is_writable = False
            self._refused_at.update(dict.fromkeys(ids, time.monotonic()))
            raise SriovdpError(f"writing {error.filename} failed: {error.strerror}") from error
        self._given_at.update(dict.fromkeys(ids, time.monotonic()))
        return allocation

    def verify(self, ids: Sequence[str]) -> None:
        """Look whether devices still are what they were when they were given. Raises DeviceError when one is not.

        Of a device that was given by another plugin nothing is known: it must be there, and have what it takes.
        """
        offers = [self._look(id_) for id_ in ids]
        accesses = {offer.id: find_access(self.pool, offer, self._host) for offer in offers}
        for offer in offers:
            before, now = self._grants.find(self.pool.resource, offer.id), Grant.of(offer, accesses[offer.id])
            differences = before.differences(now) if before else []
            if differences:
                raise DeviceError(
                    f"{offer.candidate.name}: it is not what this container was given: {'; '.join(differences)}",
                    hint="delete the pod, so that it is given devices again",
                )
        self._refresh_spec(accesses)

    def prefer(self, available: Sequence[str], must: Sequence[str], size: int) -> list[str]:
        """Choose `size` devices, `must` among them, by the pool's policy; doubtful ones when there are no others."""
        offers, oldest = self._offers, time.monotonic() - _DOUBT
        doubtful = self._doubtful | {id_ for id_, refused in list(self._refused_at.items()) if refused > oldest}
        places = {id_: offers[id_].place for id_ in (*available, *must) if id_ in offers}
        certain = [id_ for id_ in available if id_ not in doubtful]
        chosen = prefer(self.pool.allocation, certain, must, size, places)
        return prefer(self.pool.allocation, available, chosen, size, places)

    def _take(self, id_: str) -> Offer:
        """The device as it is now. Raises DeviceError when the pool cannot give it, or somebody has it."""
        owner = self._find_owner(id_)
        if owner:
            offer = self._offers.get(id_)
            name = offer.candidate.name if offer else id_
            raise InUseError(f"{name}: it is in use by {owner}", hint="it is free when that pod is gone")
        return self._look(id_)

    def _look(self, id_: str) -> Offer:
        """The device as it is now. Raises DeviceError when the pool cannot give it."""
        offer = self._offers.get(id_)
        if offer is None:
            raise DeviceError(f"{id_}: it is no device of this pool now", hint=f"`sriovdp explain {id_}` says why")
        with naming(offer):
            candidate = self._host.refresh(offer.candidate)
        if candidate.function.driver is None:
            raise DeviceError(f"{candidate.name}: it has lost its driver", hint="`sriovdp apply` binds it again")
        rejection = reject(offer.selector, candidate)
        if rejection:
            raise DeviceError(f"{candidate.name}: it is no device of this pool any more: {rejection}")
        return replace(offer, candidate=candidate)

    def _name_devices(self, allocation: Allocation, ids: Sequence[str]) -> Allocation:
        """Names of devices in place of what the spec says of them."""
        return replace(allocation, nodes=(), mounts=(), cdi_devices=tuple(name_device(self.pool, id_) for id_ in ids))

    def _grant(self, offer: Offer, access: Access) -> Grant:
        """What is given now. Through CDI it is a name: the runtime looks up what belongs to it at each start."""
        grant = Grant.of(offer, access)
        return replace(grant, nodes=(), mounts=()) if self._cdi.enabled else grant

    def _refresh_spec(self, accesses: Mapping[str, Access]) -> None:
        """Make the spec say how devices are now: the runtime reads it next."""
        with self._lock:
            if any(self._accesses.get(id_) != access for id_, access in accesses.items()) or not self._cdi.has(
                self.pool
            ):
                self._accesses |= accesses
                self._refreshed |= accesses.keys()
                self._cdi.write(self.pool, self._accesses)

    def _build_device(self, offer: Offer, faults: tuple[Fault, ...]) -> PoolDevice:
        numa_node = None if self.pool.exclude_topology else offer.candidate.function.numa_node
        fault = next((fault.reason for fault in faults if fault.is_fatal), "")
        return PoolDevice(offer.id, numa_node, not fault, fault, offer.candidate.name, faults)
