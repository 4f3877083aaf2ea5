"""Whether a device is fit to be given to a pod, by the conditions that its pool sets. Pure.

What Allocate would refuse is never healthy without being doubtful: the kubelet gives doubtful devices last.
"""

from dataclasses import dataclass

from sriovdp.config.values import Pool
from sriovdp.errors import DeviceError
from sriovdp.pools.allocation import Access, Host, find_access
from sriovdp.pools.assignment import Offer


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a device takes to be used, None when not all of it is there: then the device is doubtful.

    `fault` is what keeps it from being healthy, empty when nothing does.
    """

    access: Access | None
    fault: str


def judge(pool: Pool, offer: Offer, host: Host, *, in_use: bool) -> Verdict:
    """Judge a device. `in_use` says that a pod has it, or may have it, as far as the kubelet and the journal know.

    A pod that has a function can have its RDMA device in its own network namespace, where it is not seen.
    """
    if offer.selector.is_rdma and not offer.candidate.traits.rdma and in_use:
        return Verdict(None, _find_link_fault(pool, offer))
    try:
        access = find_access(pool, offer, host)
    except DeviceError as error:
        away = offer.selector.is_rdma and not offer.candidate.traits.rdma
        return Verdict(None, error.reason if away or "deviceNodes" in pool.health else "")
    return Verdict(access, _find_link_fault(pool, offer))


def _find_link_fault(pool: Pool, offer: Offer) -> str:
    """A PF without a netdev here, like that of a VF in a virtual machine, has no link to judge."""
    netdev = offer.candidate.pf.netdev
    if netdev and "pfUp" in pool.health and not netdev.up:
        return f"its PF {netdev.name} is down"
    if netdev and "pfCarrier" in pool.health and not netdev.carrier:
        return f"its PF {netdev.name} has no link"
    return ""
