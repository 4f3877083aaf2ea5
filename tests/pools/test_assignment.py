"""Pools: who gets which device, and why not."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sriovdp.config.file import load
from sriovdp.config.ranges import VfIndices
from sriovdp.config.terms import PfName
from sriovdp.config.values import PfConfig, PfSelect, Pool, Selector
from sriovdp.model import NetDevice, Node, PciAddress, PhysicalFunction, Traits, VirtualFunction
from sriovdp.pools.assignment import assign
from sriovdp.pools.candidates import Candidate, list_candidates
from sriovdp.pools.selectors import Rejection, find_owner, find_selector, judge, reject

DRIVERS = ("igbvf", "igbvf", "vfio-pci", "igb_uio", "uio_pci_generic", None)


def make_pf(
    bus: int, name: str | None, drivers: Sequence[str | None] = DRIVERS, numa: int | None = 0
) -> PhysicalFunction:
    """A PF like the lab's, with one VF for each driver; IOMMU groups are 10 + index, UIO devices uio<index>."""
    pf = PciAddress(f"0000:{bus:02x}:00.0")
    vfs = tuple(
        VirtualFunction(
            address=PciAddress(f"0000:{bus:02x}:10.{index}"),
            pf_address=pf,
            index=index,
            vendor="8086",
            device="10ca",
            driver=driver,
            iommu_group=10 + index,
            numa_node=numa,
            uio=f"uio{index}" if driver in {"igb_uio", "uio_pci_generic"} else None,
        )
        for index, driver in enumerate(drivers)
    )
    netdev = NetDevice(name, bus, "52:54:00:aa:00:01", 1500, up=True, carrier=True) if name else None
    return PhysicalFunction(pf, "8086", "10c9", "igb", numa, netdev, total_vfs=8, vfs=vfs)


def make_pool(name: str, *selectors: Selector) -> Pool:
    """A pool of intel.com."""
    return Pool(name, selectors or (Selector(),))


def select_pf(*entries: str) -> Selector:
    """A selector by `name` or `name#range`."""
    parts = [entry.partition("#") for entry in entries]
    return Selector(pf_names=tuple(PfName(name, VfIndices.parse(rest) if mark else None) for name, mark, rest in parts))


NODE = Node((make_pf(1, "enp1s0"), make_pf(2, "enp2s0", numa=None)))


def list_ids(node: Node, *pools: Pool) -> dict[str, list[str]]:
    """What each pool offers, without domain and function of the PF's bus: `01.0` is bus 1, VF 0."""
    assigned = zip(pools, assign(pools, node), strict=True)
    return {pool.name: [f"{id_[5:7]}.{id_[-1]}" for id_ in offers] for pool, offers in assigned}


def test_the_first_pool_in_file_order_owns_a_device() -> None:
    """A narrow pool before a wide one leaves it the rest; after it, it gets nothing but still has its entry."""
    narrow, wide = make_pool("narrow", Selector(drivers=("vfio-pci",))), make_pool("wide")
    assert list_ids(NODE, narrow, wide) == {
        "narrow": ["01.2", "02.2"],
        "wide": ["01.0", "01.1", "01.3", "01.4", "02.0", "02.1", "02.3", "02.4"],
    }
    assert list_ids(NODE, wide, narrow)["narrow"] == []


def test_an_upstream_file_selects_what_upstream_documents() -> None:
    """Ranges split one PF between pools; the selector without fields takes what no other wanted."""
    pools = load(Path(__file__).parents[1] / "config" / "examples" / "split_pf.json").pools
    node = Node((make_pf(0x3B, "ens1f0", ["iavf", "iavf", "vfio-pci", "iavf", "vfio-pci", "igb_uio", "iavf"]),))
    assert list_ids(node, *pools) == {
        "east_kernel": ["3b.0", "3b.1", "3b.3"],
        "east_dpdk": ["3b.4", "3b.5"],
        "rest": ["3b.2", "3b.6"],
    }


def test_a_vf_without_driver_is_not_offered() -> None:
    """VF 5 has no driver: a pod could not use it."""
    assert "01.5" not in list_ids(NODE, make_pool("all"))["all"]


def find(address: str, node: Node = NODE) -> Candidate:
    """A device of a node as selectors see it."""
    return next(candidate for candidate in list_candidates(node) if candidate.id == address)


def test_a_pf_is_offered_only_while_nobody_else_needs_it() -> None:
    """Upstream offers PFs without VFs; not one that is split, that the config wants split, or that the host needs."""
    idle = make_pf(1, "enp1s0", drivers=())
    everything = make_pool("all")

    def offers(pf: PhysicalFunction, *entries: PfConfig) -> bool:
        return pf.address in assign([everything], Node((pf,)), entries)[0]

    split = PfConfig(PfSelect(vendors=("8086",)), 7)
    uplink = replace(idle, traits=Traits(host_use="enp1s0 carries the default route of this host"))
    assert offers(idle)
    assert not offers(make_pf(1, "enp1s0"))
    assert not offers(replace(idle, driver=None))
    assert not offers(idle, split)
    assert offers(idle, PfConfig(PfSelect(vendors=("15b3",)), 7))
    assert offers(idle, replace(split, num_vfs=0))
    assert not offers(uplink)
    assert not offers(uplink, replace(split, num_vfs=0))
    assert offers(uplink, replace(split, num_vfs=0, allow_host_uplink=True))


def test_a_vf_that_the_host_needs_is_kept_back() -> None:
    """The default route may go through a VF too."""
    pf = NODE.pfs[0]
    uplink = replace(pf.vfs[0], traits=Traits(host_use="it carries the default route of this host"))
    node = Node((replace(pf, vfs=(uplink, *pf.vfs[1:])),))
    assert "01.0" not in list_ids(node, make_pool("all"))["all"]
    allowed = PfConfig(PfSelect(pf_names=("enp1s0",)), 6, allow_host_uplink=True)
    assert "0000:01:10.0" in assign([make_pool("all")], node, [allowed])[0]


def test_every_entry_for_one_pf_counts() -> None:
    """Upstream uses only the first entry of a PF and loses the rest."""
    assert list_ids(NODE, make_pool("a", select_pf("enp1s0#0", "enp1s0#3-4")))["a"] == ["01.0", "01.3", "01.4"]


def test_pf_names_are_matched_exactly() -> None:
    """Neither another case nor a beginning of the name matches, and a PF without netdev has no name."""
    assert list_ids(NODE, make_pool("a", select_pf("ENP1S0", "enp1s", "enp1s00")))["a"] == []
    nameless = Node((make_pf(1, None),))
    assert list_ids(nameless, make_pool("a", select_pf("enp1s0")), make_pool("b"))["a"] == []


def test_fields_all_hold_values_and_selectors_are_alternatives() -> None:
    """AND between the fields of a selector, OR between values of a field and between selectors of a list."""
    uio = Selector(drivers=("igb_uio", "uio_pci_generic"), pf_names=(PfName("enp2s0"),))
    one = Selector(vendors=("8086",), devices=("10ca", "ffff"), pci_addresses=(PciAddress("0000:01:10.0"),))
    none = Selector(vendors=("15b3",), pci_addresses=(PciAddress("0000:01:10.1"),))
    assert list_ids(NODE, make_pool("a", uio, one, none))["a"] == ["01.0", "02.3", "02.4"]


def test_a_rejection_names_field_and_values() -> None:
    """The first field that does not hold, in upstream's order, with what was wanted and what is there."""
    vf = find("0000:01:10.2")
    narrow = Selector(vendors=("8086",), drivers=("igbvf", "iavf"), pf_names=(PfName("enp9s0"),))
    assert reject(narrow, vf) == Rejection("drivers", ("igbvf", "iavf"), "vfio-pci")
    assert str(reject(narrow, vf)) == "drivers wants igbvf or iavf, the device has vfio-pci"
    assert reject(select_pf("enp1s0#3"), vf) == Rejection("pfNames", ("enp1s0#3",), "enp1s0#2")
    assert reject(Selector(), vf) is None


def test_a_rejection_names_the_likely_mistake() -> None:
    """The PF's id for the VF's, a PF that is selected by its name."""
    vf, pf = find("0000:01:10.2"), find("0000:01:00.0")
    assert str(reject(Selector(devices=("10c9",)), vf)).endswith("has 10ca (10c9 is the id of the PF)")
    assert str(reject(select_pf("enp1s0"), pf)).endswith("(it is not a VF of a PF on this node; use pciAddresses)")
    nameless = Node((make_pf(1, None),))
    assert str(reject(select_pf("enp1s0"), find("0000:01:10.2", nameless))).endswith("0000:01:00.0 has no netdev here)")
    accelerators = replace(make_pool("acc"), device_type="accelerator")
    assert judge(accelerators, vf) == (Rejection("deviceType", ("accelerator",), "netDevice"),)


SELECTORS = st.builds(
    Selector,
    devices=st.sampled_from([(), ("10ca",), ("1520",)]),
    drivers=st.lists(st.sampled_from(["igbvf", "vfio-pci", "igb_uio"]), max_size=2).map(tuple),
    pf_names=st.lists(
        st.builds(PfName, st.sampled_from(["enp1s0", "enp2s0"]), st.sampled_from([None, VfIndices.parse("0,2-3")])),
        max_size=2,
    ).map(tuple),
)
POOLS = st.lists(st.lists(SELECTORS, min_size=1, max_size=2), max_size=5).map(
    lambda lists: [make_pool(f"pool{n}", *selectors) for n, selectors in enumerate(lists)]
)


@given(POOLS)
def test_a_device_is_in_at_most_one_pool_the_first_that_takes_it(pools: list[Pool]) -> None:
    """For any pools: no device twice, none before its turn, none left that somebody wants."""
    assigned = zip(pools, assign(pools, NODE), strict=True)
    owners = [(id_, pool) for pool, offers in assigned for id_ in offers]
    assert len(dict(owners)) == len(owners)
    for candidate in list_candidates(NODE):
        takers = [n for n, pool in enumerate(pools) if find_selector(pool, candidate) is not None]
        owner = None if candidate.obstacle or not takers else pools[takers[0]]
        assert dict(owners).get(candidate.id) == owner
        found = find_owner(pools, candidate)
        assert (found and found[0]) == (takers[0] if takers else None)
        if found:
            assert reject(pools[found[0]].selectors[found[1]], candidate) is None
            earlier = pools[found[0]].selectors[: found[1]]
            assert all(reject(selector, candidate) for selector in earlier)


def test_soft_roce_is_no_rdma_device() -> None:
    """The kernel removes it when the netdev goes into a pod; a device of the driver's own is one."""
    pf = make_pf(1, "enp1s0", ("igbvf", "igbvf"))
    traits = (Traits(soft_rdma=("rxe0", "rxe1")), Traits(is_rdma=True, soft_rdma=("rxe2",)))
    vfs = tuple(replace(vf, traits=own) for vf, own in zip(pf.vfs, traits, strict=True))
    node = Node((replace(pf, vfs=vfs),))
    pool = make_pool("roce", Selector(is_rdma=True))
    assert list_ids(node, pool) == {"roce": ["01.1"]}
    rejection = reject(pool.selectors[0], find("0000:01:10.0", node))
    assert rejection is not None
    assert (
        rejection.note == "it has soft RoCE only (rxe0, rxe1), which the kernel removes when its netdev goes into a pod"
    )
