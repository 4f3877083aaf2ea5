"""Health: each condition of a pool, and what is no fault of the device."""

from dataclasses import replace

import pytest

from sriovdp.config.terms import HealthCondition
from sriovdp.config.values import HealthRule
from sriovdp.model import NetDevice, Traits
from sriovdp.pools.faults import Lack, find_pf_lacks, write_lack
from sriovdp.pools.health import judge
from sriovdp.pools.pcie_errors import PcieErrors
from tests.nodes import PF, FakeHost, make_pool, offer

UP = NetDevice("enp59s0", 2, "52:54:00:aa:00:01", 1500, up=True, carrier=True)
VF = "0000:3b:02.1"


def rules(*conditions: HealthCondition) -> tuple[HealthRule, ...]:
    """Each of these, as a word alone means it."""
    return tuple(map(HealthRule, conditions))


def find_offer(netdev: NetDevice | None, *health: HealthRule) -> tuple[list[str], bool]:
    """What is said of a VF on vfio-pci whose PF has this netdev; and whether what it takes is known."""
    pool = make_pool(VF, health=health)
    [found] = offer(pool).values()
    pf = replace(found.candidate.pf, netdev=netdev)
    verdict = judge(pool, replace(found, candidate=replace(found.candidate, pf=pf)), FakeHost(), in_use=False)
    return [lack.reason for lack in verdict.lacks], verdict.access is not None


@pytest.mark.parametrize(
    ("netdev", "health", "faults"),
    [
        (UP, rules("pfPresent", "pfUp", "pfCarrier"), []),
        (replace(UP, up=False, carrier=None), rules("pfUp"), ["its PF enp59s0 is down"]),
        (replace(UP, up=False, carrier=None), rules("pfCarrier"), ["its PF enp59s0 has no link"]),
        (replace(UP, carrier=False), rules("pfUp", "pfCarrier"), ["its PF enp59s0 has no link"]),
        (replace(UP, carrier=False), rules("pfUp"), []),
        (replace(UP, carrier=False), (HealthRule("pfCarrier", "warn"),), ["its PF enp59s0 has no link"]),
        (replace(UP, carrier=False), (HealthRule("pfCarrier", "ignore"),), []),
        (replace(UP, up=False), (), []),
        (None, rules("pfUp", "pfCarrier"), []),
        (None, rules("pfPresent"), [f"its PF {PF} has no netdev on this host"]),
    ],
)
def test_the_pf_counts_where_the_pool_wants_it(
    netdev: NetDevice | None, health: tuple[HealthRule, ...], faults: list[str]
) -> None:
    """A PF without a link still switches between its VFs: only the pool knows whether that is enough."""
    assert find_offer(netdev, *health) == (faults, True)


def test_a_function_without_a_pf_here_has_none_to_miss() -> None:
    """As a VF in a virtual machine, which is what its host gave, or an accelerator."""
    pool = make_pool("0000:5e:00.0", device_type="accelerator", health=rules("pfPresent", "pfUp", "pfCarrier"))
    [found] = offer(pool).values()
    assert list(find_pf_lacks(pool, found.candidate)) == []


@pytest.mark.parametrize(("health", "told"), [(rules("deviceNodes"), True), ((), False)])
def test_missing_nodes_count_where_the_pool_wants_it(health: tuple[HealthRule, ...], told: bool) -> None:
    """What a device takes is not known then, and the fault says what is missing."""
    pool = make_pool(VF, health=health)
    [found] = offer(pool).values()
    verdict = judge(pool, found, FakeHost({"/dev/vfio/101"}), in_use=False)
    assert verdict.access is None
    assert any("/dev/vfio/101 is not there" in lack.reason for lack in verdict.lacks) == told


@pytest.mark.parametrize(
    ("in_use", "health", "told"),
    [(True, (), False), (False, (), True), (False, (HealthRule("rdmaDevice", "ignore"),), 0)],
)
def test_an_rdma_device_elsewhere_is_a_fault_without_a_pod(
    in_use: bool, health: tuple[HealthRule, ...], told: bool
) -> None:
    """Where each namespace has its own RDMA devices, those of pods are not seen; one that leaked cannot be given.

    It counts if the pool does not say otherwise.
    """
    pool = make_pool("0000:3b:02.5", selector={"is_rdma": True}, health=health)
    [found] = offer(pool).values()
    function = replace(found.candidate.function, traits=Traits(is_rdma=True))
    away = replace(found, candidate=replace(found.candidate, function=function))
    verdict = judge(pool, away, FakeHost(), in_use=in_use)
    assert verdict.access is None
    assert any("has no RDMA device that can be seen here" in lack.reason for lack in verdict.lacks) == told


@pytest.mark.parametrize(
    ("id_", "health", "faults"),
    [
        (VF, rules("iommuGroup"), ["its IOMMU group 101 cannot be opened: eth9 is in it"]),
        (VF, (), []),
        ("0000:3b:02.2", rules("iommuGroup"), []),  # no IOMMU, no group to share
        ("0000:3b:02.0", rules("iommuGroup"), []),  # the kernel drives it
    ],
)
def test_an_iommu_group_that_cannot_be_opened(id_: str, health: tuple[HealthRule, ...], faults: list[str]) -> None:
    """Only of functions that a program opens by their group."""
    pool = make_pool(id_, health=health)
    [found] = offer(pool).values()
    intruders = {100 + index: "eth9 is in it" for index in range(8)}
    verdict = judge(pool, found, FakeHost(intruders=intruders), in_use=False)
    assert [lack.reason for lack in verdict.lacks] == faults


def test_new_pcie_errors_of_a_device_and_of_its_pf() -> None:
    """What was counted before the first look is old; a counter that falls is one of a device that came back."""
    pool = make_pool(VF, "0000:3b:02.2", health=(HealthRule("pcieErrors", "warn"),))
    offers, errors, host = offer(pool), PcieErrors(), FakeHost()

    def look(own: int, pf: int, correctable: int = 0) -> list[tuple[str, str]]:
        host.pcie_errors[VF] = {"pcieErrors": own, "pcieCorrectableErrors": correctable}
        host.pcie_errors[PF] = {"pcieErrors": pf, "pcieCorrectableErrors": correctable}
        return [(id_, lack.reason) for id_, lack in errors.find_new(pool, offers, host)]

    assert look(5, 5) == []
    assert look(5, 5, correctable=9) == []
    assert look(7, 5) == [(VF, "it has had 2 uncorrectable PCIe errors")]
    assert look(7, 6) == [(id_, "its PF enp59s0 has had 1 uncorrectable PCIe errors") for id_ in offers]
    assert look(0, 0) == []
    assert look(0, 0) == []


def test_a_lack_in_words() -> None:
    """As `explain` has it."""
    lack = Lack("pfCarrier", "its PF eth0 has no link")
    assert [
        write_lack(make_pool(VF, health=(rule,)), lack)
        for rule in (HealthRule("pfCarrier"), HealthRule("pfCarrier", "warn", 10))
    ] == [
        "not healthy: its PF eth0 has no link (pfCarrier)",
        "a warning when this lasts 10 s: its PF eth0 has no link (pfCarrier)",
    ]
