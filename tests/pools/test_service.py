"""One pool's service on a live host of files: what it reports of its devices, and what it leaves on disk."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sriovdp.config.terms import Order, Placement
from sriovdp.config.values import Pool
from sriovdp.errors import InUseError, SriovdpError
from sriovdp.model import Node
from sriovdp.node.inventory import take_snapshot
from sriovdp.pools import service as pool_service
from sriovdp.pools.assignment import assign
from sriovdp.pools.cdi import CdiSpecs
from sriovdp.pools.device_info import DeviceInfoFiles
from sriovdp.pools.grants import Grants
from sriovdp.pools.host import LiveHost
from sriovdp.pools.service import PoolService
from tests.fakes.sysfs import PF, Tree, connect, vf_address
from tests.nodes import make_pool

VF = vf_address(PF, 0)
POOL = make_pool(VF)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A node with one VF on vfio-pci, and the device node of its group."""
    monkeypatch.setattr(pool_service, "_GRACE", 0.0)
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf(vfs=1)
    tree.bind(VF, "vfio-pci")
    for name in ("vfio", "10", "16"):
        (tmp_path / "dev/vfio" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev/vfio" / name).touch()
    return tree


def serve(
    tree: Tree, pool: Pool = POOL, *, cdi: bool = False, owner: str = "", owners: Mapping[str, str] | None = None
) -> tuple[PoolService, Node]:
    """The service of a pool after its first look at the node."""
    folder = tree.root.parent
    service = PoolService(
        pool,
        LiveHost(tree.sysfs, folder / "dev"),
        Grants(folder / "grants"),
        DeviceInfoFiles(folder / "devinfo"),
        CdiSpecs(folder / "cdi", enabled=cdi),
        lambda id_: (owners or {}).get(id_, owner),
    )
    node = take_snapshot(tree.sysfs)
    service.update(assign([pool], node)[0], node, {})
    return service, node


def list_nodes(tree: Tree) -> list[str]:
    """The device nodes of the VF in the pool's CDI spec."""
    spec = json.loads((tree.root.parent / "cdi/sriovdp-intel.com-net-pci-sriov.json").read_text())
    return [node["path"] for node in spec["devices"][0]["containerEdits"]["deviceNodes"]]


@pytest.mark.parametrize(("exclude", "reported"), [(False, 0), (True, None)])
def test_topology_is_reported_unless_excluded(tree: Tree, exclude: bool, reported: int | None) -> None:
    """The NUMA node of the device, or nothing where the pool says so."""
    pool = replace(POOL, exclude_topology=exclude)
    service, node = serve(tree, pool)
    (device,) = service.update(assign([pool], node)[0], node, {})
    assert (device.id, device.numa_node, device.healthy) == (VF, reported, True)


def test_a_device_that_the_host_uses_leaves_with_its_reason(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    """The log has what the host needs it for, and the entry that offers it all the same."""
    service, node = serve(tree)
    (pf,) = node.pfs
    used = replace(pf.vfs[0], traits=replace(pf.vfs[0].traits, host_use="eth7 has an address of this host"))
    changed = Node((replace(pf, vfs=(used,)),))
    assert service.update(assign([POOL], changed)[0], changed, {}) == []
    assert (
        f"intel.com/sriov: enp1s0 VF 0 ({VF}): no longer offered: eth7 has an address of this host; to offer it"
        in caplog.text
    )
    assert "allowHostUplink: true" in caplog.text


def test_what_somebody_has_is_not_given(tree: Tree) -> None:
    """The refusal names the owner, and nothing is written."""
    service, _ = serve(tree, owner="pod default/red")
    with pytest.raises(InUseError, match=rf"{VF}\): it is in use by pod default/red"):
        service.allocate([VF])
    assert list((tree.root.parent / "grants").iterdir()) == []


def test_a_full_disk_refuses_one_pod(tree: Tree) -> None:
    """Without its grant a container could be started again with another VF. From then on no VF is healthy."""
    service, node = serve(tree)
    grants = tree.root.parent / "grants"
    grants.rmdir()
    grants.touch()
    with pytest.raises(SriovdpError, match=r"writing .*grants.* failed"):
        service.allocate([VF])
    (device,) = service.update(assign([POOL], node)[0], node, {})
    assert not device.healthy
    assert device.reason == f"writing below {grants} failed: File exists"
    grants.unlink()
    (device,) = service.update(assign([POOL], node)[0], node, {})
    assert device.healthy


@pytest.mark.parametrize("place", ["grants/intel.com_sriov/{}.json", "devinfo/intel.com-sriov-{}-device.json"])
def test_a_folder_in_place_of_a_file_concerns_one_device(tree: Tree, place: str) -> None:
    """Its device is preferred last, and the others stay healthy."""
    ids = [vf_address(PF, index) for index in range(2)]
    for count in ("0", "2"):
        tree.write(tree.pci(PF) / "sriov_numvfs", count)
    (tree.root.parent / "dev/vfio/11").touch()
    for id_ in ids:
        tree.unbind(id_)
        tree.bind(id_, "vfio-pci")
    pool = make_pool(*ids)
    service, node = serve(tree, pool)
    (tree.root.parent / place.format(ids[0])).mkdir(parents=True)
    with pytest.raises(SriovdpError, match=r"writing .* failed"):
        service.allocate([ids[0]])
    assert all(device.healthy for device in service.update(assign([pool], node)[0], node, {}))
    assert service.prefer(ids, [], 1) == [ids[1]]
    service.allocate([ids[1]])


def test_a_pool_that_cdi_cannot_give_is_not_healthy(tree: Tree) -> None:
    """Its pods stay pending in place of failing one after the other."""
    pool = replace(POOL, prefix="3com.com")
    service, node = serve(tree, pool, cdi=True)
    (device,) = service.update(assign([pool], node)[0], node, {})
    assert not device.healthy
    assert "cannot be given through CDI" in device.reason.replace("cannot", "cannot")


@pytest.mark.parametrize("order", ["packed", "spread", "samePF", "distinctPF"])
def test_a_device_that_cannot_be_given_is_preferred_last(tree: Tree, order: Order) -> None:
    """Neither one that lacks a device node, where the pool does not call that ill, nor one that was just refused."""
    ids = [vf_address(PF, index) for index in range(4)]
    for count in ("0", "4"):
        tree.write(tree.pci(PF) / "sriov_numvfs", count)
    for id_ in ids:
        tree.unbind(id_)
        tree.bind(id_, "vfio-pci")
    for group in (11, 12, 13):
        (tree.root.parent / f"dev/vfio/{group}").touch()
    pool = replace(make_pool(*ids), health=(), allocation=Placement(order=order))
    owners = {ids[1]: "pod default/red"}
    service, _ = serve(tree, pool, owners=owners)
    (tree.root.parent / "dev/vfio/10").unlink()
    node = take_snapshot(tree.sysfs)
    assert all(device.healthy for device in service.update(assign([pool], node)[0], node, {}))
    with pytest.raises(InUseError):
        service.allocate([ids[1]])
    assert set(service.prefer(ids, [], 2)) == set(ids[2:])
    assert set(service.prefer(ids, [], 3)) > set(ids[2:])
    assert set(service.prefer(ids, ids[:1], 2)) - set(ids[2:]) == {ids[0]}


def test_containers_from_before_a_change_of_cdi_go_on(tree: Tree) -> None:
    """A spec that pods were given lives and stays true without `cdi`, until none of them has a device of it."""
    first, _ = serve(tree, cdi=True)
    assert first.allocate([VF]).cdi_devices == (f"intel.com/net-pci={VF}",)
    tree.write(tree.pci(VF) / "driver_override", "")
    (tree.pci(VF) / "iommu_group").unlink()
    (tree.pci(VF) / "iommu_group").symlink_to(tree.root / "kernel/iommu_groups/16")
    later, _ = serve(tree)
    later.tidy({VF})
    later.verify([VF])
    assert list_nodes(tree) == ["/dev/vfio/vfio", "/dev/vfio/16"]
    assert later.allocate([VF]).cdi_devices == ()
    later.tidy(())
    assert list((tree.root.parent / "cdi").iterdir()) == []
    serve(tree)
    assert list((tree.root.parent / "cdi").iterdir()) == []


def test_a_container_with_nodes_is_still_held_against_them_with_cdi(tree: Tree) -> None:
    """It was given a group's node, not a name, so that a new spec does not help it."""
    first, _ = serve(tree)
    first.allocate([VF])
    (tree.pci(VF) / "iommu_group").unlink()
    (tree.pci(VF) / "iommu_group").symlink_to(tree.root / "kernel/iommu_groups/16")
    later, _ = serve(tree, cdi=True)
    with pytest.raises(SriovdpError, match="container has node /dev/vfio/10, and needs /dev/vfio/16"):
        later.verify([VF])


def test_a_look_that_began_earlier_does_not_undo_the_start_of_a_container(tree: Tree) -> None:
    """The runtime reads the spec after PreStartContainer, and a slow look may end between the two."""
    service, node = serve(tree, cdi=True)
    service.allocate([VF])
    (tree.pci(VF) / "iommu_group").unlink()
    (tree.pci(VF) / "iommu_group").symlink_to(tree.root / "kernel/iommu_groups/16")
    service.verify([VF])
    service.update(assign([POOL], node)[0], node, {})
    assert list_nodes(tree) == ["/dev/vfio/vfio", "/dev/vfio/16"]
    (tree.pci(VF) / "iommu_group").unlink()
    (tree.pci(VF) / "iommu_group").symlink_to(tree.root / "kernel/iommu_groups/10")
    later = take_snapshot(tree.sysfs)
    service.update(assign([POOL], later)[0], later, {})
    assert list_nodes(tree) == ["/dev/vfio/vfio", "/dev/vfio/10"]
