"""Recorded nodes: what a snapshot has of them, what explain says of them, and how recordings are made."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from sriovdp.config.file import parse
from sriovdp.errors import DeviceError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import Eswitch, Node, PhysicalFunction, RdmaDevice, VdpaDevice, VfSettings, VirtualFunction
from sriovdp.node.inventory import take_snapshot
from sriovdp.node.recording import FACTS, read_facts, record
from sriovdp.node.sources import collect_facts, list_known_drivers
from sriovdp.pools.assignment import assign
from sriovdp.pools.candidates import list_candidates
from sriovdp.pools.explanation import describe, explain, write
from sriovdp.provision.plan import plan
from sriovdp.provision.settings import make_stable_guid
from tests.fakes.sysfs import PF, Tree, connect, vf_address
from tests.recordings.nodes import NAMES, build

POOLS = """
resourceList:
- {resourceName: net, selectors: [{drivers: [iavf], pfNames: [zz]}, {drivers: [iavf, mlx5_core, ixgbevf]}]}
- {resourceName: dpdk, selectors: {drivers: [vfio-pci]}}
- {resourceName: acc, deviceType: accelerator, selectors: {devices: ["0d5d"]}}
- {resourceName: sf, deviceType: auxNetDevice, selectors: {auxTypes: [sf]}}
"""


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All recorded nodes as trees; no test writes into them."""
    folder = tmp_path_factory.mktemp("nodes")
    for name in NAMES:
        build(name, folder / name)
    return folder


def look(name: str, trees: Path) -> Node:
    """A snapshot of a recorded node."""
    return take_snapshot(Sysfs(trees / name))


def find_vf(node: Node, address: str) -> VirtualFunction:
    """A VF of it."""
    return node.find_vf(address)[1]


def find_pf(node: Node, name: str) -> PhysicalFunction:
    """A PF of it."""
    return next(pf for pf in node.pfs if pf.name == name)


@pytest.mark.parametrize("name", NAMES)
def test_explain_and_assign_agree(name: str, trees: Path) -> None:
    """On every recorded node: a device is explained to be in the pool that it is given to, and nowhere else."""
    node, pools = look(name, trees), parse(POOLS, "x").pools
    given = {id_: pool.resource for pool, offers in zip(pools, assign(pools, node), strict=True) for id_ in offers}
    verdicts = list(explain(pools, node))
    assert {v.candidate.id: v.resource for v in verdicts if v.resource} == given
    assert len(verdicts) == len({v.candidate.id for v in verdicts}) == len(list(list_candidates(node)))
    for verdict in verdicts:
        assert verdict.resource or verdict.candidate.obstacle or verdict.rejections
        assert list(write(verdict))
        assert json.loads(json.dumps(describe(verdict)))["resource"] == verdict.resource


@pytest.mark.parametrize("name", [name for name in NAMES if name != "large"])
def test_a_recording_of_a_recording_is_the_same_node(name: str, trees: Path, tmp_path: Path) -> None:
    """Nothing that a snapshot looks at is lost, but for MACs."""
    node = look(name, trees)
    sysfs = Sysfs(trees / name)
    record(sysfs.root, node, collect_facts(sysfs, node), tmp_path / "again")
    again = take_snapshot(Sysfs(tmp_path / "again"))
    assert without_macs(again) == without_macs(node)
    assert list_known_drivers(Sysfs(tmp_path / "again")) == list_known_drivers(sysfs)


def without_macs(node: Node) -> str:
    """A node as text with all MACs and GUIDs alike, but for those of zeros."""
    return re.sub(
        r"(?:[0-9a-f]{2}:){5,}[0-9a-f]{2}", lambda found: found[0] if is_zero(found[0]) else "MAC", repr(node)
    )


def is_zero(mac: str) -> bool:
    """Whether a MAC or GUID has nothing but zeros."""
    return set(mac) == {"0", ":"}


def test_the_guids_of_infiniband_are_read_and_hidden(trees: Path, tmp_path: Path) -> None:
    """The port's is the end of its netdev's address; a recording has others in their place, none twice."""
    sysfs = Sysfs(trees / "connectx")
    node = take_snapshot(sysfs)
    guid = node.pfs[2].traits.guid
    assert guid
    assert (guid[:17], node.pfs[0].traits.guid) == ("08:c0:02:00:00:00", None)
    record(sysfs.root, node, collect_facts(sysfs, node), tmp_path / "again")
    again = take_snapshot(Sysfs(tmp_path / "again"))
    first, second = again.pfs[2].vfs
    assert first.settings
    assert second.settings
    assert is_zero(first.settings.node_guid or "")
    assert second.settings.node_guid == second.settings.port_guid
    hidden = {again.pfs[2].traits.guid, second.settings.node_guid}
    assert len(hidden) == 2
    assert all(re.fullmatch(r"02:00:00:00:00:00:00:[0-9a-f]{2}", found or "") for found in hidden)
    wanted = parse("physicalFunctions: [{select: {pciAddresses: ['0000:5e:00.0']}, numVfs: 2}]", "x")
    steps = [str(step) for step in plan(wanted, node).steps]
    assert steps == [
        f"ibs2 VF 0 (0000:5e:00.1): set GUID {make_stable_guid(guid, 0)}",
        "ibs2 VF 0 (0000:5e:00.1): bind to mlx5_core again",
    ]


def test_connectx_has_rdma_vdpa_representors_and_subfunctions(trees: Path) -> None:
    """What the mlx5 drivers make of two ports, one in legacy and one in switchdev mode, and of an InfiniBand port."""
    node = look("connectx", trees)
    legacy, switchdev, infiniband = node.pfs
    assert [pf.switchdev for pf in node.pfs] == [False, True, False]
    assert (switchdev.name, infiniband.traits.link_type, legacy.bridges) == (
        "ens1f1np1",
        "infiniband",
        ("0000:3a:00.0",),
    )
    own, away, plain, _ = legacy.vfs
    uverbs, umad, issm = (f"/dev/infiniband/{name}" for name in ("uverbs1", "umad1", "issm1"))
    assert own.traits.rdma == (RdmaDevice("mlx5_1", uverbs, umad, issm, None, "/dev/infiniband/rdma_cm"),)
    assert (away.traits.is_rdma, away.traits.rdma, plain.traits.is_rdma) == (True, (), False)
    assert (away.netdev, away.traits.link_type) == (None, "ether")
    assert [vf.representor for vf in switchdev.vfs] == [f"ens1f1npf0vf{n}" for n in range(4)]
    assert switchdev.vfs[2].traits.vdpa == (VdpaDevice("vdpa0", "vhost", "/dev/vhost-vdpa-0"),)
    assert switchdev.vfs[3].traits.vdpa == (VdpaDevice("vdpa1", "virtio"),)
    assert [(sf.name, sf.kind, sf.index, sf.driver) for sf in switchdev.sfs] == [
        ("mlx5_core.sf.4", "sf", 88, "mlx5_core.sf"),
        ("mlx5_core.sf.5", "sf", 99, None),
    ]
    assert [vf.traits.p_key for vf in infiniband.vfs] == ["0x8001", "0xffff"]


def test_intel_nodes_have_ddp_acpi_index_uio_and_noiommu(trees: Path) -> None:
    """What ice and i40e show; VFs have the DDP profile of their PF, and settings come from the recording."""
    comms, default = look("e810", trees).pfs
    assert {vf.traits.ddp_profile for vf in comms.vfs} == {"ICE COMMS Package"}
    assert default.traits.ddp_profile == "ICE OS Default Package"
    assert (comms.traits.is_rdma, default.traits.is_rdma) == (True, False)
    split, idle = look("x710", trees).pfs
    assert (split.traits.acpi_index, idle.vfs, idle.vf_device, idle.vf_offset) == ("1", (), "154c", 79)
    assert [vf.traits.noiommu for vf in split.vfs] == [False] * 4 + [True, False, False]
    assert split.vfs[5].uio == "uio0"
    assert split.vfs[1].settings == VfSettings(
        "02:00:00:00:00:11", vlan=100, spoofchk=True, trust=True, link_state="auto"
    )


def test_a_guest_has_vfs_without_a_pf(trees: Path) -> None:
    """In a virtual machine a VF is a function like any other; the NIC with the default route is kept back."""
    node = look("guest", trees)
    assert [(pf.name, pf.total_vfs) for pf in node.pfs] == [("enp1s0", 0), ("ens101", 0), ("0000:07:00.0", 0)]
    assert [bool(pf.traits.host_use) for pf in node.pfs] == [True, False, False]


def test_accelerators_are_found_by_their_class(trees: Path) -> None:
    """Class 0x12 only; they are no network functions."""
    node = look("accelerator", trees)
    (accelerator,) = node.accelerators
    assert (accelerator.device, [vf.device for vf in accelerator.vfs]) == ("0d5c", ["0d5d"] * 3)
    assert [pf.name for pf in node.pfs] == ["eno1"]
    assert list(node.vfs()) == []


def test_the_hosts_uplink_is_known_through_bond_and_vlan(trees: Path) -> None:
    """The default route is on a VLAN on a bond: its ports are the host's; so is a PF with an address; VFs are free."""
    node = look("bond", trees)
    route = "carries the default route of this host, through bond0"
    uses = {pf.name: pf.traits.host_use for pf in node.pfs}
    assert uses == {
        "eno1": f"eno1 {route}",
        "eno2": f"eno2 {route}",
        "eno3": "eno3 has an address of this host",
        "eno4": "",
    }
    (offers,) = assign(parse("resourceList: [{resourceName: a, selectors: {}}]", "x").pools, node)
    assert list(offers) == ["0000:18:10.0", "0000:18:10.2", "0000:19:00.1"]


def test_an_interface_on_top_makes_a_port_the_hosts(tmp_path: Path) -> None:
    """A bond without a default route is in use all the same."""
    root = build("bond", tmp_path / "bond")
    (root / FACTS).unlink()
    assert take_snapshot(Sysfs(root)).pfs[0].traits.host_use == "bond0 of this host is on top of eno1"


def test_eight_pfs_with_1024_vfs(trees: Path) -> None:
    """The large node is read whole."""
    node = look("large", trees)
    assert (len(node.pfs), len(list(node.vfs()))) == (8, 1024)
    assert len({vf.address for _, vf in node.vfs()}) == 1024


def test_the_lab_before_and_after_split(trees: Path) -> None:
    """A real igb: seven VFs are possible, then as the sample says, with the settings that rtnetlink reported."""
    before, after = (find_igb(look(f"igb_{when}", trees)) for when in ("before", "after"))
    assert (before.total_vfs, before.vfs, before.vf_device) == (7, (), "10ca")
    assert [vf.driver for vf in after.vfs] == ["igbvf"] * 4 + ["vfio-pci"] * 2 + ["igb_uio"]
    assert [vf.settings.vlan for vf in after.vfs if vf.settings] == [0, 100, 0, 0, 0, 0, 0]
    assert all(vf.settings and vf.settings.mac.startswith("02:00:00:00:") for vf in after.vfs)


def find_igb(node: Node) -> PhysicalFunction:
    """The PF that can be split."""
    return next(pf for pf in node.pfs if pf.total_vfs)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A fake node that passes for this machine: a PF with two VFs, and things that must not be seen elsewhere."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf(netdev="enx5254001234ab", vfs=2)
    tree.bind(vf_address(PF, 0), "igbvf")
    tree.settings[vf_address(PF, 1)] = VfSettings("52:54:00:12:34:ab", vlan=210)
    tree.addresses["enx5254001234ab"] = ("192.0.2.7/24",)
    (tree.pci(PF) / "vpd").write_text("SERIAL")
    (tree.pci(PF) / "net/enx5254001234ab/phys_switch_id").write_text("5254001234ab\n")
    (tree.pci(PF) / "net/enx5254001234ab/address").write_text("52:54:00:12:34:ab\n")
    return tree


def test_a_recording_reports_nothing_of_people_and_pieces(tree: Tree, tmp_path: Path) -> None:
    """No MAC, not even in a name, no IP address, no serial number; what was equal stays equal."""
    node = take_snapshot(tree.sysfs)
    record(tree.root, node, collect_facts(tree.sysfs, node), tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and not path.is_symlink()]
    text = " ".join(str(path.relative_to(tmp_path)) + path.read_text() for path in files).lower()
    for secret in ("52:54:00", "525400", "192.0.2", "serial"):
        assert secret not in text
    pf = take_snapshot(Sysfs(tmp_path / "out")).pfs[0]
    assert pf.netdev
    assert pf.netdev.name.startswith("enx0200000000")
    assert pf.vfs[1].settings == VfSettings(pf.netdev.mac, vlan=210)
    assert pf.traits.host_use == f"{pf.netdev.name} has an address of this host"
    assert [replace(vf, netdev=None, settings=None) for vf in pf.vfs] == [
        replace(vf, netdev=None, settings=None) for vf in node.pfs[0].vfs
    ]


@pytest.mark.parametrize("hidden", [(1,), (0, 1)])
def test_a_recording_keeps_what_could_not_be_read_apart(tree: Tree, tmp_path: Path, hidden: tuple[int, ...]) -> None:
    """A VF that the kernel left out, and all of them; and a driver without settings of VFs."""
    tree.hidden |= {vf_address(PF, index): 1 for index in hidden}
    for number, sets_vfs in enumerate([True, False]):
        tree.sets_vfs = sets_vfs
        node = take_snapshot(tree.sysfs)
        record(tree.root, node, collect_facts(tree.sysfs, node), tmp_path / str(number))
        (pf,) = take_snapshot(Sysfs(tmp_path / str(number))).pfs
        assert pf.sets_vfs == sets_vfs
        assert [vf.index for vf in pf.unread] == (list(hidden) if sets_vfs else [])


def test_the_rdma_mode_is_recorded(tree: Tree, tmp_path: Path) -> None:
    """And none, where the node has no RDMA."""
    for number, text in enumerate(("", "N\n")):
        if text:
            (tree.root / "module/ib_core/parameters").mkdir(parents=True)
            (tree.root / "module/ib_core/parameters/netns_mode").write_text(text)
        node = take_snapshot(tree.sysfs)
        record(tree.root, node, collect_facts(tree.sysfs, node), tmp_path / str(number))
    again = [take_snapshot(Sysfs(tmp_path / str(number))).rdma_mode for number in range(2)]
    assert again == [None, "exclusive"]


def test_recording_does_not_write_over_anything(tree: Tree, tmp_path: Path) -> None:
    """A folder with something in it, and one that cannot be made, are refused."""
    node = take_snapshot(tree.sysfs)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("")
    with pytest.raises(DeviceError, match="folder is not empty"):
        record(tree.root, node, collect_facts(tree.sysfs, node), tmp_path / "full")
    with pytest.raises(DeviceError, match=r"recording into .* failed"):
        record(tree.root, node, collect_facts(tree.sysfs, node), tmp_path / "full/x/y")


@pytest.mark.parametrize(
    "junk", ["", "[]", '{"vf_settings": {"a": {"b": {}}}}', '{"vf_settings": {"a": {"0": {"x": 1}}}}']
)
def test_a_broken_recording_is_reported(junk: str, tmp_path: Path) -> None:
    """Whatever is in netlink.json, nothing but our own error comes out."""
    (tmp_path / FACTS).write_text(junk)
    with pytest.raises(DeviceError, match="is not as written"):
        read_facts(tmp_path)


def test_the_mode_of_an_eswitch_is_recorded(trees: Path, tmp_path: Path) -> None:
    """And planned from a recording as on the node itself."""
    sysfs = Sysfs(trees / "connectx")
    node = take_snapshot(sysfs)
    pf = node.pfs[1]
    eswitch = Eswitch("switchdev", 1, 1)
    facts = replace(collect_facts(sysfs, node), eswitches={pf.address: eswitch})
    record(sysfs.root, node, facts, tmp_path / "again")
    again = take_snapshot(Sysfs(tmp_path / "again"))
    assert [one.eswitch for one in again.pfs] == [None, eswitch, None]
    wanted = parse(f"physicalFunctions: [{{select: {{pfNames: [{pf.name}]}}, numVfs: 4, eSwitchMode: legacy}}]", "x")
    steps = [str(step) for step in plan(wanted, again).steps]
    assert f"{pf.name}: set e-switch mode legacy" in steps
