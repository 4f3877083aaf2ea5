"""Pools: who gets which VF, and what a container gets with it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sriovdp.candidates import Candidate, list_candidates
from sriovdp.config.file import load
from sriovdp.config.ranges import VfIndices
from sriovdp.config.values import PfConfig, PfName, PfSelect, Pool, Selector
from sriovdp.errors import DeviceError
from sriovdp.model import (
    DeviceNode,
    Mount,
    NetDevice,
    Node,
    PciAddress,
    PhysicalFunction,
    RdmaDevice,
    Traits,
    VdpaDevice,
    VirtualFunction,
)
from sriovdp.pools import allocate, assign
from sriovdp.selectors import Rejection, find_owner, find_selector, judge, reject

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


def make_pool(name: str, *selectors: Selector, exclude_topology: bool = False) -> Pool:
    """A pool of intel.com."""
    return Pool(name, selectors or (Selector(),), exclude_topology=exclude_topology)


def select_pf(*entries: str) -> Selector:
    """A selector by `name` or `name#range`."""
    parts = [entry.partition("#") for entry in entries]
    return Selector(pf_names=tuple(PfName(name, VfIndices.parse(rest) if mark else None) for name, mark, rest in parts))


NODE = Node((make_pf(1, "enp1s0"), make_pf(2, "enp2s0", numa=None)))


def list_ids(node: Node, *pools: Pool) -> dict[str, list[str]]:
    """What each pool offers, without domain and function of the PF's bus: `01.0` is bus 1, VF 0."""
    return {pool.name: [f"{d.id[5:7]}.{d.id[-1]}" for d in devices] for pool, devices in assign(pools, node)}


def test_the_first_pool_in_file_order_owns_a_device() -> None:
    """A narrow pool before a wide one leaves it the rest; after it, it gets nothing but still has its entry."""
    narrow, wide = make_pool("narrow", Selector(drivers=("vfio-pci",))), make_pool("wide")
    assert list_ids(NODE, narrow, wide) == {
        "narrow": ["01.2", "02.2"],
        "wide": ["01.0", "01.1", "01.3", "01.4", "02.0", "02.1", "02.3", "02.4"],
    }
    assert list_ids(NODE, wide, narrow)["narrow"] == []


def test_an_upstream_file_selects_what_upstream_documents() -> None:
    """Ranges split one PF between pools; the selector without fields takes what nobody else wanted."""
    pools = load(Path(__file__).parent / "config" / "examples" / "split_pf.json").pools
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
        ((_, devices),) = assign([everything], Node((pf,)), entries)
        return pf.address in {device.id for device in devices}

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
    node = change_vf("0000:01:10.0", traits=Traits(host_use="it carries the default route of this host"))
    assert "01.0" not in list_ids(node, make_pool("all"))["all"]
    allowed = PfConfig(PfSelect(pf_names=("enp1s0",)), 6, allow_host_uplink=True)
    ((_, devices),) = assign([make_pool("all")], node, [allowed])
    assert "0000:01:10.0" in {device.id for device in devices}


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


def test_topology_is_told_unless_excluded() -> None:
    """The NUMA node of the device, or nothing: where the pool says so or the node has none."""
    ((_, devices),) = assign([make_pool("a")], NODE)
    assert {device.id: device.numa_node for device in devices}["0000:01:10.0"] == 0
    assert {device.id: device.numa_node for device in devices}["0000:02:10.0"] is None
    ((_, devices),) = assign([make_pool("a", exclude_topology=True)], NODE)
    assert {device.numa_node for device in devices} == {None}
    assert all(device.healthy for device in devices)


def test_a_rejection_names_field_and_values() -> None:
    """The first field that does not hold, in upstream's order, with what was wanted and what is there."""
    vf = find("0000:01:10.2")
    narrow = Selector(vendors=("8086",), drivers=("igbvf", "iavf"), pf_names=(PfName("enp9s0"),))
    assert reject(narrow, vf) == Rejection("drivers", ("igbvf", "iavf"), "vfio-pci")
    assert str(reject(narrow, vf)) == "drivers wants igbvf or iavf, the device has vfio-pci"
    assert reject(select_pf("enp1s0#3"), vf) == Rejection("pfNames", ("enp1s0#3",), "enp1s0#2")
    assert reject(Selector(), vf) is None


def test_a_rejection_tells_what_is_likely_behind_it() -> None:
    """The usual mistakes: the PF's id for the VF's, another case, a PF that is asked for by its name."""
    vf, pf = find("0000:01:10.2"), find("0000:01:00.0")
    assert str(reject(Selector(devices=("10c9",)), vf)).endswith("has 10ca (10c9 is the id of the PF)")
    assert str(reject(select_pf("ENP1S0"), vf)).endswith("has enp1s0#2 (upper and lower case differ)")
    assert str(reject(select_pf("enp1s0"), pf)).endswith("(it is no VF of a PF on this node; use pciAddresses)")
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
    assigned = assign(pools, NODE)
    assert [pool for pool, _ in assigned] == pools
    owners = [(device.id, pool) for pool, devices in assigned for device in devices]
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


def test_kernel_vfs_need_no_device_nodes() -> None:
    """A container with netdev VFs gets their addresses in request order and nothing to open."""
    allocation = allocate(make_pool("sriov"), ["0000:02:10.1", "0000:01:10.0"], NODE)
    assert allocation.nodes == ()
    assert dict(allocation.envs) == {
        "PCIDEVICE_INTEL_COM_SRIOV": "0000:02:10.1,0000:01:10.0",
        "PCIDEVICE_INTEL_COM_SRIOV_INFO": (
            '{"0000:01:10.0":{"generic":{"deviceID":"0000:01:10.0"}},"0000:02:10.1":{"generic":{"deviceID":"0000:02:10.1"}}}'
        ),
    }


def test_vfio_vfs_come_with_the_container_and_each_group_once() -> None:
    """/dev/vfio/vfio is shared, one group file for each VF; the INFO text is upstream's to the letter."""
    allocation = allocate(make_pool("sriov_dpdk"), ["0000:01:10.2", "0000:02:10.2"], NODE)
    assert allocation.nodes == (
        DeviceNode("/dev/vfio/vfio", "/dev/vfio/vfio", "rw"),
        DeviceNode("/dev/vfio/12", "/dev/vfio/12", "rw"),
    )
    assert allocation.envs["PCIDEVICE_INTEL_COM_SRIOV_DPDK_INFO"].startswith(
        '{"0000:01:10.2":{"generic":{"deviceID":"0000:01:10.2"},'
        '"vfio":{"dev-mount":"/dev/vfio/12","mount":"/dev/vfio/vfio"}},'
    )


@pytest.mark.parametrize(("vf", "path"), [("0000:01:10.3", "/dev/uio3"), ("0000:01:10.4", "/dev/uio4")])
def test_uio_vfs_come_with_their_uio_device(vf: str, path: str) -> None:
    """igb_uio and, unlike upstream, uio_pci_generic give /dev/uioN, in the first INFO too."""
    allocation = allocate(make_pool("uio"), [vf], NODE)
    assert allocation.nodes == (DeviceNode(path, path, "rw"),)
    info = json.loads(allocation.envs["PCIDEVICE_INTEL_COM_UIO_INFO"])
    assert info == {vf: {"generic": {"deviceID": vf}, "uio": {"mount": path}}}


def test_a_hyphen_gives_a_second_spelling_for_shells() -> None:
    """Upstream's name stays as it is; the alias has the same values."""
    pool = Pool("mlnx-sriov.fast", (Selector(),), prefix="my-corp.com")
    envs = allocate(pool, ["0000:01:10.0"], NODE).envs
    assert list(envs) == [
        "PCIDEVICE_MY-CORP_COM_MLNX-SRIOV_FAST",
        "PCIDEVICE_MY-CORP_COM_MLNX-SRIOV_FAST_INFO",
        "PCIDEVICE_MY_CORP_COM_MLNX_SRIOV_FAST",
        "PCIDEVICE_MY_CORP_COM_MLNX_SRIOV_FAST_INFO",
    ]
    assert envs["PCIDEVICE_MY_CORP_COM_MLNX_SRIOV_FAST"] == "0000:01:10.0"


def change_vf(address: str, **changes: object) -> Node:
    """The node after something happened to one VF."""
    pf, vf = NODE.find_vf(address)
    index = pf.vfs.index(vf)
    vfs = (*pf.vfs[:index], replace(vf, **changes), *pf.vfs[index + 1 :])  # type: ignore[arg-type]
    return Node(tuple(replace(pf, vfs=vfs) if other is pf else other for other in NODE.pfs))


@pytest.mark.parametrize(
    ("node", "device", "reason"),
    [
        (NODE, "0000:09:10.0", "0000:09:10.0 is no device of this node"),
        (NODE, "0000:01:00.0", "0000:01:00.0 of intel.com/a can not be given to a pod: it is split into 6 VFs"),
        (NODE, "0000:01:10.0", "0000:01:10.0 is no device of intel.com/a: drivers wants vfio-pci or igb_uio"),
        (change_vf("0000:01:10.2", driver=None), "0000:01:10.2", "0000:01:10.2 of intel.com/a has lost its driver"),
        (change_vf("0000:01:10.2", driver="igbvf"), "0000:01:10.2", "the device has igbvf"),
        (change_vf("0000:01:10.2", iommu_group=None), "0000:01:10.2", "is on vfio-pci but in no IOMMU group"),
        (change_vf("0000:01:10.3", uio=None), "0000:01:10.3", "0000:01:10.3 is on igb_uio but has no UIO device"),
    ],
)
def test_a_device_that_can_not_be_given_is_an_error(node: Node, device: str, reason: str) -> None:
    """The whole request fails with the id and the cause; upstream leaves such devices out in silence."""
    pool = make_pool("a", Selector(drivers=("vfio-pci", "igb_uio")))
    with pytest.raises(DeviceError, match=reason):
        allocate(pool, ["0000:02:10.2", device], node)


def find_nodes(pool: Pool, node: Node, *there: str) -> list[tuple[str, str, str]]:
    """Device nodes for VF 0 of bus 1; `there` are the paths that exist on the host."""
    given = allocate(pool, ["0000:01:10.0"], node, lambda path: [p for p in there if p.startswith(path.rstrip("*"))])
    return [(found.host_path, found.container_path, found.permissions) for found in given.nodes]


def read_info(pool: Pool, node: Node) -> dict[str, dict[str, str]]:
    """What the container is told of VF 0 of bus 1."""
    envs = allocate(pool, ["0000:01:10.0"], node).envs
    info: dict[str, dict[str, dict[str, str]]] = json.loads(envs["PCIDEVICE_INTEL_COM_A_INFO"])
    return info["0000:01:10.0"]


def test_rdma_nodes_come_with_a_selector_that_asks_for_them() -> None:
    """All nodes of the device once, upstream's keys; without `isRdma` nothing."""
    device = RdmaDevice(
        "mlx5_3",
        "/dev/infiniband/uverbs3",
        "/dev/infiniband/umad3",
        "/dev/infiniband/issm3",
        None,
        "/dev/infiniband/rdma_cm",
    )
    node = change_vf("0000:01:10.0", traits=Traits(is_rdma=True, rdma=(device,)))
    pool = make_pool("a", Selector(is_rdma=True))
    names = ("issm3", "umad3", "uverbs3", "rdma_cm")
    assert [path for path, _, _ in find_nodes(pool, node)] == [f"/dev/infiniband/{name}" for name in names]
    assert read_info(pool, node)["rdma"] == {
        "rdma_dev": "mlx5_3",
        "uverbs": "/dev/infiniband/uverbs3",
        "umad": "/dev/infiniband/umad3",
        "issm": "/dev/infiniband/issm3",
        "rdma_cm": "/dev/infiniband/rdma_cm",
    }
    assert find_nodes(make_pool("a"), node) == []


def test_the_selector_that_takes_a_device_decides_what_comes_with_it() -> None:
    """Of two alternatives, only the one that matched counts."""
    node = change_vf(
        "0000:01:10.0", traits=Traits(is_rdma=True, rdma=(RdmaDevice("mlx5_0", "/dev/infiniband/uverbs0"),))
    )
    pool = make_pool("a", Selector(drivers=("vfio-pci",), is_rdma=True), Selector())
    assert find_nodes(pool, node) == []


def test_vdpa_and_vhost_net_nodes() -> None:
    """A vhost device has a node, a virtio one has none; vhost-net is refused where it is not there."""
    node = change_vf(
        "0000:01:10.0",
        traits=Traits(vdpa=(VdpaDevice("vdpa0", "virtio"), VdpaDevice("vdpa1", "vhost", "/dev/vhost-vdpa-1"))),
    )
    vhost, virtio = (make_pool("a", Selector(vdpa_type=kind)) for kind in ("vhost", "virtio"))
    assert find_nodes(vhost, node) == [("/dev/vhost-vdpa-1", "/dev/vhost-vdpa-1", "rw")]
    assert read_info(vhost, node)["vdpa"] == {"mount": "/dev/vhost-vdpa-1"}
    assert find_nodes(virtio, node) == []
    net = make_pool("a", Selector(need_vhost_net=True))
    both = ("/dev/vhost-net", "/dev/net/tun")
    assert find_nodes(net, NODE, *both) == [(path, path, "rw") for path in both]
    assert read_info(net, NODE)["vhost"] == {"net-mount": "/dev/vhost-net", "tun-mount": "/dev/net/tun"}
    with pytest.raises(DeviceError, match="/dev/vhost-net is not there"):
        find_nodes(net, NODE, "/dev/net/tun")


def test_a_group_without_iommu_has_another_path_on_the_host() -> None:
    """The container sees the path that DPDK expects."""
    node = change_vf("0000:01:10.0", driver="vfio-pci", traits=Traits(noiommu=True))
    assert find_nodes(make_pool("a"), node)[1] == ("/dev/vfio/noiommu-10", "/dev/vfio/10", "rw")
    assert read_info(make_pool("a"), node)["vfio"]["dev-mount"] == "/dev/vfio/10"


def test_what_a_pool_adds_comes_once() -> None:
    """Device nodes by path and by pattern, mounts, environment and additional information."""
    pool = replace(
        make_pool("a"),
        device_nodes=(DeviceNode("/dev/cxi*", "/dev/cxi*", "rwm"), DeviceNode("/dev/a", "/dev/b", "r")),
        mounts=(Mount("/etc/x", "/x"),),
        env={"A": "1"},
        additional_info={"*": {"token": "all", "k": "v"}, "0000:01:10.0": {"token": "own"}},
    )
    assert find_nodes(pool, NODE, "/dev/cxi0", "/dev/cxi1", "/dev/a") == [
        ("/dev/cxi0", "/dev/cxi0", "rwm"),
        ("/dev/cxi1", "/dev/cxi1", "rwm"),
        ("/dev/a", "/dev/b", "r"),
    ]
    given = allocate(pool, ["0000:01:10.0", "0000:02:10.0"], NODE)
    assert (given.envs["A"], given.mounts) == ("1", (Mount("/etc/x", "/x"),))
    info = json.loads(given.envs["PCIDEVICE_INTEL_COM_A_INFO"])
    assert info["0000:01:10.0"]["extra"] == {"token": "own", "k": "v"}
    assert info["0000:02:10.0"]["extra"] == {"token": "all", "k": "v"}
    with pytest.raises(DeviceError, match=r"/dev/cxi\* is not there, but the pool's deviceNodes name it"):
        find_nodes(pool, NODE, "/dev/a")
