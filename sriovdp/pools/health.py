"""Whether a device is fit to be given to a pod, by the conditions that its pool sets. Pure.

What Allocate would refuse is never healthy without being doubtful: the kubelet gives doubtful devices last.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from sriovdp.config.terms import HealthCondition
from sriovdp.config.values import Pool
from sriovdp.errors import DeviceError
from sriovdp.model import Subfunction, is_vfio
from sriovdp.pools import allocation
from sriovdp.pools.allocation import Access, find_access
from sriovdp.pools.assignment import Offer
from sriovdp.pools.faults import Lack, find_pf_lacks, wants


class Host(allocation.Host, Protocol):
    """What this host has; see `sriovdp.pools.host`."""

    def find_intruder(self, group: int) -> str:
        """What keeps a program from opening an IOMMU group; empty when nothing does."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a device takes to be used, None when not all of it is there: then the device is doubtful.

    `lacks` are the conditions of its pool that it does not meet now.
    """

    access: Access | None
    lacks: tuple[Lack, ...]


def judge(pool: Pool, offer: Offer, host: Host, *, in_use: bool) -> Verdict:
    """Judge a device. `in_use` says that a pod has it, or may have it, as far as the kubelet and the journal know.

    A pod that has a function can have its RDMA device in its own network namespace, where it is not seen.
    """
    away = offer.selector.is_rdma and not offer.candidate.traits.rdma
    rest = (*find_pf_lacks(pool, offer.candidate), *_find_group_lack(pool, offer, host))
    if away and in_use:
        return Verdict(None, rest)
    try:
        access = find_access(pool, offer, host)
    except DeviceError as error:
        condition: HealthCondition = "rdmaDevice" if away else "deviceNodes"
        own = (Lack(condition, error.reason),) if wants(pool, condition) else ()
        return Verdict(None, own + rest)
    return Verdict(access, rest)


def _find_group_lack(pool: Pool, offer: Offer, host: Host) -> Iterator[Lack]:
    """Whether the kernel would refuse to open the group of a function on vfio-pci, as it is not viable."""
    function = offer.candidate.function
    if isinstance(function, Subfunction) or function.iommu_group is None or not is_vfio(function.driver):
        return
    if function.traits.noiommu or not wants(pool, "iommuGroup"):
        return
    intruder = host.find_intruder(function.iommu_group)
    if intruder:
        yield Lack("iommuGroup", f"its IOMMU group {function.iommu_group} cannot be opened: {intruder}")
