"""Pools: who gets which VF, and what a container gets with it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sriovdp.config.file import load
from sriovdp.config.ranges import VfIndices
from sriovdp.config.values import PfName, Pool, Selector
from sriovdp.errors import DeviceError
from sriovdp.model import DeviceNode, NetDevice, Node, PciAddress, PhysicalFunction, VirtualFunction
from sriovdp.pools import Rejection, allocate, assign, reject, takes

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


def test_pfs_are_never_offered() -> None:
    """A node whose PFs are not split offers nothing, even to the pool that takes everything."""
    assert list_ids(Node((make_pf(1, "enp1s0", drivers=()),)), make_pool("all")) == {"all": []}


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
    pf, vf = NODE.find_vf("0000:01:10.2")
    narrow = Selector(vendors=("8086",), drivers=("igbvf", "iavf"), pf_names=(PfName("enp9s0"),))
    assert reject(narrow, pf, vf) == Rejection("drivers", ("igbvf", "iavf"), "vfio-pci")
    assert str(reject(narrow, pf, vf)) == "drivers wants igbvf or iavf, the device has vfio-pci"
    assert reject(select_pf("enp1s0#3"), pf, vf) == Rejection("pfNames", ("enp1s0#3",), "enp1s0#2")
    assert reject(Selector(), pf, vf) is None


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
    for pf, vf in NODE.vfs():
        takers = [pool for pool in pools if vf.driver and takes(pool, pf, vf)]
        assert dict(owners).get(vf.address) == (takers[0] if takers else None)


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
        (NODE, "0000:09:10.0", "0000:09:10.0 is no VF of this node"),
        (NODE, "0000:01:00.0", "0000:01:00.0 is no VF of this node"),
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
