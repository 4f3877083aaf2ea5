"""Inventory: what a snapshot has of a node, on trees and on this machine."""

import json
import platform
import re
import shutil
import struct
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sriovdp.kernel import devlink, devlink_info
from sriovdp.kernel.devlink import list_ddp_profiles
from sriovdp.kernel.modules import list_loadable
from sriovdp.kernel.netdevs import find_netdev
from sriovdp.kernel.routes import list_default_routes, list_stack
from sriovdp.kernel.sysfs import Folder, Sysfs, read_text
from sriovdp.model import NetDevice, Node, PciAddress, VfSettings
from sriovdp.node.inventory import take_snapshot
from sriovdp.node.pci_names import name_ids
from tests.fakes.sysfs import PF, PF_MAC, Tree, connect, vf_address


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty tree."""
    return Tree(tmp_path / "sys")


def test_pf_and_vfs_are_read_with_all_their_attributes(tree: Tree) -> None:
    """One PF with a netdev VF and a UIO VF: every field that sysfs knows."""
    tree.add_pf(vfs=2)
    tree.bind(vf_address(PF, 0), "igbvf")
    tree.bind(vf_address(PF, 1), "igb_uio")
    (pf,) = take_snapshot(tree.sysfs).pfs
    assert (pf.address, pf.vendor, pf.device, pf.driver, pf.numa_node) == (PF, "8086", "10c9", "igb", 0)
    assert (pf.total_vfs, pf.autoprobe, len(pf.vfs)) == (7, True, 2)
    assert pf.netdev == NetDevice("enp1s0", 2, PF_MAC, 1500, up=True, carrier=True)
    first, second = pf.vfs
    assert (first.address, first.index, first.pf_address, first.device) == ("0000:01:10.0", 0, PF, "10ca")
    assert (first.driver, first.iommu_group, first.numa_node, first.uio) == ("igbvf", 10, 0, None)
    assert first.netdev == NetDevice("v0110f0", 3, "02:00:00:00:00:99", 1500, up=False, carrier=None)
    assert (second.driver, second.netdev, second.uio, second.settings) == ("igb_uio", None, "uio2", None)
    assert isinstance(first.address, PciAddress)


def test_vfs_are_in_order_of_their_index(tree: Tree) -> None:
    """virtfn10 comes after virtfn2, unlike in a directory listing."""
    tree.add_pf(total=12, vfs=12)
    assert [vf.index for vf in take_snapshot(tree.sysfs).pfs[0].vfs] == list(range(12))


def test_odd_functions_are_read_too(tree: Tree) -> None:
    """No netdev, no IOMMU, numa_node -1, no SR-IOV, other classes: no error, and nothing invented."""
    tree.add_function("0000:00:01.0", **{"class": "0x060400"})
    tree.add_function("0000:00:02.0", vendor="0x15B3", device="0x101D")
    tree.add_pf(netdev=None, vfs=1)
    vf = tree.pci(vf_address(PF, 0))
    (vf / "iommu_group").unlink()
    (vf / "numa_node").write_text("-1\n")
    plain, pf = take_snapshot(tree.sysfs).pfs
    assert (plain.address, plain.vendor, plain.device) == ("0000:00:02.0", "15b3", "101d")
    assert (plain.driver, plain.netdev, plain.numa_node, plain.total_vfs, plain.vfs) == (None, None, None, 0, ())
    assert pf.name == PF
    assert (pf.vfs[0].iommu_group, pf.vfs[0].numa_node, pf.vfs[0].driver) == (None, None, None)


def test_a_function_that_vanishes_while_reading_is_left_out(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listing still has a PF and a VF that are gone when they are read."""
    tree.add_pf(vfs=2)
    tree.add_pf("0000:02:00.0", "enp2s0")
    shutil.rmtree(tree.pci(vf_address(PF, 0)))
    shutil.rmtree(tree.pci("0000:02:00.0"))
    assert "0000:02:00.0" in tree.sysfs.addresses()
    (pf,) = take_snapshot(tree.sysfs).pfs
    assert [vf.index for vf in pf.vfs] == [1]


def test_a_node_without_pci_is_empty(tmp_path: Path) -> None:
    """A container without bus/pci gives an empty node."""
    assert take_snapshot(Sysfs(tmp_path)).pfs == ()


def test_virtio_and_switchdev_netdevs_are_found(tree: Tree) -> None:
    """With virtio the netdev is one level down; representors of VFs are not the PF's own netdev."""
    virtio = tree.add_function("0000:00:03.0", vendor="0x1af4", device="0x1041")
    tree.add_netdev("0000:00:03.0", "eth0", "02:00:00:00:00:01")
    (virtio / "virtio0").mkdir()
    (virtio / "net").rename(virtio / "virtio0/net")
    tree.add_pf(netdev=None)
    for name, port in (("eth1", "pf0vf0"), ("eth2", "c1pf0sf88"), ("eth3", "p0")):
        (tree.add_netdev(PF, name, "02:00:00:00:00:02") / "phys_port_name").write_text(port)
    assert [pf.name for pf in take_snapshot(tree.sysfs).pfs] == ["eth0", "eth3"]
    assert find_netdev(tree.sysfs, PF) == "eth3"


def test_a_port_of_open_vswitch_is_the_hosts(tree: Tree) -> None:
    """The kernel's datapath is the master of its ports, as a bond is (net/openvswitch/vport-netdev.c)."""
    netdev = tree.add_pf() / "net/enp1s0"
    (tree.root / "class/net/ovs-system").mkdir()
    (netdev / "upper_ovs-system").symlink_to("../../../../../class/net/ovs-system")
    assert take_snapshot(tree.sysfs).pfs[0].traits.host_use == "ovs-system of this host is on top of enp1s0"


def test_the_live_tree_is_completed_by_rtnetlink(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """VF settings come from the PF, and a netdev that rtnetlink does not show is in another namespace."""
    connect(tree, monkeypatch).add_pf(vfs=2)
    tree.settings[vf_address(PF, 1)] = VfSettings("02:00:00:00:00:07", vlan=210)
    (pf,) = take_snapshot(tree.sysfs).pfs
    assert [vf.settings.vlan if vf.settings else None for vf in pf.vfs] == [0, 210]
    monkeypatch.setattr("tests.fakes.sysfs.Netlink.links", lambda _: ())
    assert take_snapshot(tree.sysfs).pfs[0].netdev is None


def test_a_vf_that_the_kernel_leaves_out_is_unread(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlike one whose driver has no settings of VFs at all, which is known before there is a VF."""
    connect(tree, monkeypatch).add_pf(vfs=2)
    tree.hidden[vf_address(PF, 1)] = 1
    (pf,) = take_snapshot(tree.sysfs).pfs
    assert (pf.sets_vfs, pf.unread) == (True, pf.vfs[1:])
    (pf,) = take_snapshot(tree.sysfs).pfs
    assert (pf.sets_vfs, pf.unread) == (True, ())
    tree.sets_vfs = False
    (pf,) = take_snapshot(tree.sysfs).pfs
    assert (pf.sets_vfs, pf.unread, [vf.settings for vf in pf.vfs]) == (False, (), [None, None])
    tree._set_num_vfs(PF, 0, autoprobe=False)
    assert not take_snapshot(tree.sysfs).pfs[0].sets_vfs


def test_this_machine_can_be_read_and_the_fake_has_its_shape(tree: Tree) -> None:
    """Real sysfs and rtnetlink: every network function of this machine, and attributes in the fake's form."""
    node = take_snapshot(Sysfs())
    addresses = {str(pf.address) for pf in node.pfs} | {str(vf.address) for _, vf in node.vfs()}
    expected = {name for name in Sysfs().addresses() if (read_text(Sysfs().pci(name) / "class") or "")[:4] == "0x02"}
    assert addresses == expected
    recorded = {pf.address: pf.netdev for pf in _read_recorded().pfs}
    # sysfs has no permanent MAC
    told = {pf.address: replace(pf.netdev, permanent_mac="") if pf.netdev else None for pf in node.pfs}
    assert told == recorded
    tree.add_pf(vfs=1)
    forms = {"class": r"0x[0-9a-f]{6}", "vendor": r"0x[0-9a-f]{4}", "modalias": r"pci:v[0-9A-F]{8}d[0-9A-F]{8}sv.*"}
    for sysfs in (Sysfs(), tree.sysfs):
        for address in sysfs.addresses():
            assert (sysfs.root / "bus/pci/devices" / address).is_symlink()
            for name, form in forms.items():
                assert re.fullmatch(form, read_text(sysfs.pci(address) / name) or ""), (address, name)


def _read_recorded() -> Node:
    """This machine's tree read as a recorded one, without rtnetlink."""
    return take_snapshot(Sysfs(Path("/sys/.") / ".." / "sys"))


def test_ids_have_names_and_unknown_ones_none() -> None:
    """pci.ids by way of pypci; a device goes by its vendor."""
    assert name_ids("8086", "10ca") == ("Intel Corporation", "82576 Virtual Function")
    assert name_ids("8086", "zzzz") == ("Intel Corporation", None)
    assert name_ids("zzzz", "10ca") == (None, None)


def test_a_snapshot_is_plain_data(tree: Tree) -> None:
    """Everything in it can be written as JSON."""
    tree.add_pf(vfs=1)
    assert json.loads(json.dumps(asdict(take_snapshot(tree.sysfs))))["pfs"][0]["vfs"][0]["index"] == 0


def test_what_the_host_needs_is_reported_of_the_live_node(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address on a PF, and a default route through what is on top of it; link-local addresses do not count."""
    connect(tree, monkeypatch).add_pf(vfs=1)
    tree.bind(vf_address(PF, 0), "igbvf")
    tree.addresses["enp1s0"] = ("fe80::1/64", "169.254.0.1/16")

    def uses() -> list[str]:
        (pf,) = take_snapshot(tree.sysfs).pfs
        return [pf.traits.host_use, pf.vfs[0].traits.host_use]

    assert uses() == ["", ""]
    tree.addresses["enp1s0"] = ("fe80::1/64", "2001:db8::1/64")
    tree.addresses["v0110f0"] = ("192.0.2.1/24",)
    assert uses() == ["enp1s0 has an address of this host", ""]
    (tree.root / "class/net/br0").mkdir()
    (tree.pci(PF) / "net/enp1s0/upper_br0").mkdir()
    assert uses() == ["br0 of this host is on top of enp1s0", ""]
    monkeypatch.setattr("sriovdp.node.sources.list_default_routes", lambda: frozenset({"br0", "v0110f0"}))
    assert uses() == [
        "enp1s0 carries the default route of this host, through br0",
        "v0110f0 carries the default route of this host",
    ]


def test_default_routes_are_read_from_proc(tmp_path: Path) -> None:
    """IPv4 and IPv6, of the main table; a default route has no mask, and the IPv6 one of `lo` is the kernel's own."""
    (tmp_path / "route").write_text(
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n"
        "eth1 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
    )
    anywhere = "0" * 32
    (tmp_path / "ipv6_route").write_text(
        f"{anywhere} 00 {anywhere} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth2\n"
        f"{anywhere} 00 {anywhere} 00 {anywhere} ffffffff 00000001 00000000 00200200 lo\n"
        f"20010db8{'0' * 24} 40 {anywhere} 00 {anywhere} 00000100 00000001 00000000 00000001 eth3\n"
    )
    assert list_default_routes(tmp_path) == {"eth0", "eth2"}
    assert list_default_routes(tmp_path / "none") == frozenset()


def test_interfaces_stacked_in_a_ring_end(tmp_path: Path) -> None:
    """A recorded tree may say anything."""
    for name, upper in (("a", "b"), ("b", "a")):
        (tmp_path / name / f"upper_{upper}").mkdir(parents=True)
    assert set(list_stack(Folder(str(tmp_path)), "a")) == {"a", "b"}


def test_ddp_profiles_are_read_from_devlink(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ice answers to DEVLINK_CMD_INFO_GET, in the numbers of linux/devlink.h; other devices are left out."""

    def attribute(number: int, value: bytes) -> bytes:
        return struct.pack("HH", 4 + len(value), number) + value + bytes(-len(value) % 4)

    def version(number: int, name: str, value: str) -> bytes:
        parts = attribute(103, name.encode() + b"\0") + attribute(104, value.encode() + b"\0")
        return attribute(number | 0x8000, parts)

    def answer(bus: str, device: str, *versions: bytes) -> Any:
        body = attribute(1, bus.encode() + b"\0") + attribute(2, device.encode() + b"\0") + b"".join(versions)
        message = devlink_info._Info(struct.pack("IHHIIBBH", 20 + len(body), 21, 0, 1, 0, 51, 1, 0) + body)
        message.decode()
        return message

    ddp = version(101, "fw.app.name", "ICE COMMS Package")
    answers = [
        answer("pci", "0000:17:00.0", version(100, "board.id", "K1"), version(101, "fw.mgmt", "7.1"), ddp),
        answer("pci", "0000:3b:00.0", version(101, "fw.version", "22.1")),
        answer("auxiliary", "x.1", ddp),
    ]
    monkeypatch.setattr(devlink_info, "_dump", lambda: answers)
    monkeypatch.setattr(devlink, "_DDP_DRIVER", Path("/"))  # this machine may have no ice
    assert list_ddp_profiles() == {"0000:17:00.0": "ICE COMMS Package"}


def test_devlink_of_this_machine_is_no_error() -> None:
    """Whether this kernel has devlink or not."""
    assert all(PciAddress.parse(address) for address in list_ddp_profiles())


def test_drivers_that_can_be_loaded_are_found_by_their_modules(tmp_path: Path) -> None:
    """Built in or not, packed or not, with - or _ in the name; other modules are left out."""
    folder = tmp_path / platform.release()
    folder.mkdir()
    (folder / "modules.dep").write_text("extra/igb_uio.ko.xz: kernel/uio.ko.xz\nkernel/igb.ko.xz:\nmlx5-vfio-pci.ko:\n")
    (folder / "modules.builtin").write_text("kernel/drivers/vfio/pci/vfio-pci.ko\n")
    assert list_loadable(tmp_path) == {"igb_uio", "vfio-pci", "mlx5_vfio_pci"}
    assert list_loadable(tmp_path / "none") == frozenset()


def test_soft_roce_on_a_vf_is_no_rdma_device_of_it(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies below no PCI function, names the netdev, and cannot go into a pod with it."""
    connect(tree, monkeypatch)
    tree.add_pf(vfs=2)
    for index in range(2):
        tree.bind(vf_address(PF, index), "igbvf")
    for path, text in (("infiniband/rxe0/parent", "v0110f2"), ("infiniband_verbs/uverbs3/ibdev", "rxe0")):
        (tree.root / "class" / path).parent.mkdir(parents=True)
        (tree.root / "class" / path).write_text(f"{text}\n")
    vfs = take_snapshot(tree.sysfs).pfs[0].vfs
    assert [(vf.traits.is_rdma, vf.traits.rdma) for vf in vfs] == [(False, ()), (False, ())]
    assert [vf.traits.soft_rdma for vf in vfs] == [(), ("rxe0",)]


@pytest.mark.parametrize(("text", "mode"), [("Y\n", "shared"), ("N\n", "exclusive"), ("?\n", None), (None, None)])
def test_mode_of_the_rdma_subsystem(tree: Tree, text: str | None, mode: str | None) -> None:
    """A parameter of the module, which is not there where nothing has loaded it."""
    path = tree.root / "module/ib_core/parameters/netns_mode"
    if text:
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert take_snapshot(tree.sysfs).rdma_mode == mode
