"""Whether a device is fit to be given to a pod, by the conditions that its pool sets. Pure."""

from sriovdp.config.values import Pool
from sriovdp.errors import DeviceError
from sriovdp.pools.allocation import Access, Host, find_access
from sriovdp.pools.assignment import Offer


def find_fault(pool: Pool, offer: Offer) -> str:
    """What keeps a device from being healthy, beside what it takes to be used; empty when nothing does.

    A PF without a netdev here, like that of a VF in a virtual machine, has no link to judge.
    """
    netdev = offer.candidate.pf.netdev
    if netdev and "pfUp" in pool.health and not netdev.up:
        return f"its PF {netdev.name} is down"
    if netdev and "pfCarrier" in pool.health and not netdev.carrier:
        return f"its PF {netdev.name} has no link"
    return ""


def judge(pool: Pool, offer: Offer, host: Host) -> tuple[Access | None, str]:
    """What a device takes to be used, None when that is not there; and what keeps it from being healthy, or nothing.

    An RDMA device that a pod has in its own network namespace is not seen here, which is no fault of the function's.
    """
    if offer.selector.is_rdma and not offer.candidate.traits.rdma:
        return None, find_fault(pool, offer)
    try:
        access = find_access(pool, offer, host)
    except DeviceError as error:
        return None, str(error) if "deviceNodes" in pool.health else ""
    return access, find_fault(pool, offer)
