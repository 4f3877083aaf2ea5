"""Health: each condition of a pool, and what is no fault of the device."""

from dataclasses import replace

import pytest

from sriovdp.config.terms import HealthCondition
from sriovdp.model import NetDevice, Traits
from sriovdp.pools.health import judge
from tests.nodes import FakeHost, make_pool, offer

UP = NetDevice("enp59s0", 2, "52:54:00:aa:00:01", 1500, up=True, carrier=True)


def find_offer(netdev: NetDevice | None, *health: HealthCondition) -> tuple[str, bool]:
    """What is said of a VF on vfio-pci whose PF has this netdev; and whether what it takes is known."""
    pool = make_pool("0000:3b:02.1", health=health)
    [found] = offer(pool).values()
    pf = replace(found.candidate.pf, netdev=netdev)
    verdict = judge(pool, replace(found, candidate=replace(found.candidate, pf=pf)), FakeHost(), in_use=False)
    return verdict.fault, verdict.access is not None


@pytest.mark.parametrize(
    ("netdev", "health", "fault"),
    [
        (UP, ("pfUp", "pfCarrier"), ""),
        (replace(UP, up=False, carrier=None), ("pfUp",), "its PF enp59s0 is down"),
        (replace(UP, up=False, carrier=None), ("pfCarrier",), "its PF enp59s0 has no link"),
        (replace(UP, carrier=False), ("pfUp", "pfCarrier"), "its PF enp59s0 has no link"),
        (replace(UP, carrier=False), ("pfUp",), ""),
        (replace(UP, up=False), (), ""),
        (None, ("pfUp", "pfCarrier"), ""),
    ],
)
def test_the_pf_counts_where_the_pool_wants_it(
    netdev: NetDevice | None, health: tuple[HealthCondition, ...], fault: str
) -> None:
    """A PF without a link still switches between its VFs: only the pool knows whether that is enough."""
    assert find_offer(netdev, *health) == (fault, True)


@pytest.mark.parametrize(("health", "told"), [(("deviceNodes",), True), ((), False)])
def test_missing_nodes_count_where_the_pool_wants_it(health: tuple[HealthCondition, ...], told: bool) -> None:
    """What a device takes is not known then, and the fault says what is missing."""
    pool = make_pool("0000:3b:02.1", health=health)
    [found] = offer(pool).values()
    verdict = judge(pool, found, FakeHost({"/dev/vfio/101"}), in_use=False)
    assert verdict.access is None
    assert ("/dev/vfio/101 is not there" in verdict.fault) == told


@pytest.mark.parametrize("in_use", [True, False])
def test_an_rdma_device_elsewhere_is_a_fault_without_a_pod(in_use: bool) -> None:
    """Where each namespace has its own RDMA devices, those of pods are not seen; one that leaked cannot be given."""
    pool = make_pool("0000:3b:02.5", selector={"is_rdma": True}, health=())
    [found] = offer(pool).values()
    function = replace(found.candidate.function, traits=Traits(is_rdma=True))
    away = replace(found, candidate=replace(found.candidate, function=function))
    verdict = judge(pool, away, FakeHost(), in_use=in_use)
    assert verdict.access is None
    assert ("has no RDMA device that can be seen here" in verdict.fault) == (not in_use)
