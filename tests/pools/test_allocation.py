"""What devices take to be used: all that can be missing is named. Shapes of answers are in golden files."""

from dataclasses import replace

import pytest

from sriovdp.config.values import ExtraNode, Pool, Selector
from sriovdp.errors import DeviceError
from sriovdp.model import PciAddress, Traits
from sriovdp.pools.allocation import find_access
from tests.nodes import FakeHost, make_pool, offer

KERNEL, VFIO, UIO, RDMA, VDPA = (f"0000:3b:02.{n}" for n in (0, 1, 3, 5, 6))


@pytest.mark.parametrize(
    ("pool", "changes", "missing", "reason"),
    [
        (make_pool(VFIO), {"iommu_group": None}, set(), "in no IOMMU group; enable the IOMMU"),
        (
            make_pool(VFIO),
            {},
            {"/dev/vfio/101"},
            "/dev/vfio/101 is not there on this host; load it: `modprobe vfio-pci`",
        ),
        (make_pool(UIO), {"uio": None}, set(), "is on igb_uio but has no UIO device"),
        (make_pool(UIO), {}, {"/dev/uio0"}, "/dev/uio0 is not there"),
        (make_pool(RDMA, selector={"is_rdma": True}), {"traits": Traits(is_rdma=True)}, set(), "has no RDMA device"),
        (make_pool(RDMA, selector={"is_rdma": True}), {}, {"/dev/infiniband/umad3"}, "umad3 is not there.*ib_umad"),
        (make_pool(VDPA, selector={"vdpa_type": "vhost"}), {"traits": Traits()}, set(), "no vDPA device of type vhost"),
        (make_pool(KERNEL, selector={"need_vhost_net": True}), {}, {"/dev/vhost-net"}, "`modprobe vhost_net`"),
        (make_pool(KERNEL, selector={"need_vhost_net": True}), {}, {"/dev/net/tun"}, "`modprobe tun`"),
        (
            make_pool(KERNEL, device_nodes=(ExtraNode("/dev/cxi*", "/dev/cxi*"),)),
            {},
            {"/dev/cxi0", "/dev/cxi1"},
            "cxi",
        ),
        (
            make_pool(KERNEL, device_nodes=(ExtraNode("/dev/hpet", "/dev/hpet"),)),
            {},
            {"/dev/hpet"},
            "/dev/hpet is not",
        ),
    ],
)
def test_what_is_missing_is_reported(pool: Pool, changes: dict[str, object], missing: set[str], reason: str) -> None:
    """Upstream leaves out in silence what is not there, and the program in the container finds out."""
    [found] = offer(pool).values()
    function = replace(found.candidate.function, **changes)  # type: ignore[arg-type]
    changed = replace(found, candidate=replace(found.candidate, function=function))
    find_access(pool, found, FakeHost())
    with pytest.raises(DeviceError, match=f"{found.id}.*{reason}"):
        find_access(pool, changed, FakeHost(missing))


def test_a_variant_of_vfio_needs_what_vfio_needs() -> None:
    """A virtual machine that can be moved has its VF on mlx5_vfio_pci, and opens the same nodes."""
    pool = make_pool(VFIO)
    [found] = offer(pool).values()
    function = replace(found.candidate.function, driver="mlx5_vfio_pci")
    variant = replace(found, candidate=replace(found.candidate, function=function))
    assert find_access(pool, variant, FakeHost()) == find_access(pool, found, FakeHost())


def test_the_selector_that_takes_a_device_decides_what_comes_with_it() -> None:
    """Of two alternatives, only the one that matched counts."""
    other = Selector(drivers=("vfio-pci",), is_rdma=True, need_vhost_net=True)
    pool = Pool("sriov", (other, Selector(pci_addresses=(PciAddress(RDMA),))))
    assert find_access(pool, offer(pool)[RDMA], FakeHost()).nodes == ()


def test_rdma_nodes_are_for_pools_that_ask_for_them() -> None:
    """A VF that can do RDMA gives nothing of it in a pool without `isRdma`."""
    pool = make_pool(RDMA)
    [found] = offer(pool).values()
    access = find_access(pool, found, FakeHost())
    assert access.nodes == ()
    assert access.info == {"generic": {"deviceID": RDMA}}
