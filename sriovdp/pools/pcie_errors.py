"""PCIe errors that the kernel counted of devices and of their PFs since the last look (AER).

Documentation/ABI/testing/sysfs-bus-pci-devices-aer. No event of the kernel reports correctable ones.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

from sriovdp.config.terms import HealthCondition
from sriovdp.config.values import Pool
from sriovdp.pools.assignment import Offer
from sriovdp.pools.faults import Lack, wants

Counts = Mapping[HealthCondition, int]

_KINDS: Mapping[HealthCondition, str] = {"pcieErrors": "uncorrectable", "pcieCorrectableErrors": "correctable"}


class Host(Protocol):
    """What this host has; see `sriovdp.pools.host`."""

    def count_pcie_errors(self, address: str) -> Counts | None:
        """Errors of a function by their kind, None where the kernel does not count them."""


class PcieErrors:
    """The counters as of the last look, of one pool."""

    def __init__(self) -> None:
        self._counts: dict[str, Counts] = {}

    def find_new(self, pool: Pool, offers: Mapping[str, Offer], host: Host) -> Iterator[tuple[str, Lack]]:
        """What happened to devices of the pool since the last call. The first one only reads.

        A counter that fell is one of a device that was removed and found again.
        """
        conditions = [condition for condition in _KINDS if wants(pool, condition)]
        if not conditions:
            self._counts = {}
            return
        names = {offer.candidate.pf.address: offer.candidate.pf.name for offer in offers.values()}
        before = self._counts
        self._counts = {address: counts for address in {*offers, *names} if (counts := host.count_pcie_errors(address))}
        for id_, offer in offers.items():
            pf = offer.candidate.pf
            for address in dict.fromkeys((id_, str(pf.address))):
                for condition in conditions:
                    more = self._compare(before, address, condition)
                    if more > 0:
                        who = "it has" if address == id_ else f"its PF {pf.name} has"
                        yield id_, Lack(condition, f"{who} had {more} {_KINDS[condition]} PCIe errors")

    def _compare(self, before: Mapping[str, Counts], address: str, condition: HealthCondition) -> int:
        if address not in before or address not in self._counts:
            return 0
        return self._counts[address][condition] - before[address][condition]
