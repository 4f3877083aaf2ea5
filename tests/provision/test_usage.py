"""Who is in the way of which step."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sriovdp.errors import InUseError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import NetDevice, Node, PciAddress, PhysicalFunction, Traits, VirtualFunction
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision import usage
from sriovdp.provision.apply import apply
from sriovdp.provision.reset import reset
from sriovdp.provision.steps import BindDriver, SetLink, SetMtu, SetNumVfs, Step
from sriovdp.provision.usage import find_obstacles, list_attached, list_unknown
from sriovdp.state.journal import Attachment, Journal, Original, read_boot_id
from sriovdp.state.provisioned import claim_provisioning
from tests.fakes.sysfs import Tree, connect
from tests.provision.test_apply import make_config

PF = PciAddress("0000:01:00.0")
VF = PciAddress("0000:01:10.0")
ROUTE = Traits(host_use="enp1s0 carries the default route of this host")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A PF without VFs."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf()
    return tree


def make_node(pf_use: Traits, vf_use: Traits | None = None) -> Node:
    """A PF with a netdev and, with `vf_use`, one VF."""
    netdev = NetDevice("v0", 3, "02:00:00:00:00:01", 1500, up=False, carrier=None)
    vf = VirtualFunction(VF, PF, 0, "8086", "10ca", "igbvf", netdev=netdev, traits=vf_use or Traits())
    own = NetDevice("enp1s0", 2, "02:00:00:00:00:00", 1500, up=True, carrier=True)
    return Node(
        (PhysicalFunction(PF, "8086", "10c9", "igb", None, own, 7, vfs=(vf,) if vf_use else (), traits=pf_use),)
    )


RESIZE = SetNumVfs(PF, "enp1s0", "why", 1, 2)
CASES: dict[str, tuple[Step, bool]] = {
    "creating VFs where there are none is normal": (SetNumVfs(PF, "enp1s0", "why", 0, 4), False),
    "another number resets the PF": (RESIZE, True),
    "another MTU resets the PF": (SetMtu(PF, "enp1s0", "why", 1500, 9000), True),
    "down is down": (SetLink(PF, "enp1s0", "why", up=False), True),
    "up hurts nobody": (SetLink(PF, "enp1s0", "why", up=True), False),
}


@pytest.mark.parametrize(("step", "refused"), CASES.values(), ids=CASES.keys())
def test_the_hosts_uplink_is_not_reset(step: Step, refused: bool, tmp_path: Path) -> None:
    """What would take the host's link is an obstacle, unless the config allows it for this PF."""
    node, sysfs = make_node(ROUTE), Sysfs(tmp_path)
    found = find_obstacles([step], node, sysfs, {})
    assert bool(found) == refused
    if refused:
        assert "the host needs enp1s0 (enp1s0 carries the default route" in found[PF][0]
        assert "allowHostUplink: true" in found[PF][0]
    assert not find_obstacles([step], node, sysfs, {}, {PF})
    assert not find_obstacles([step], make_node(Traits()), sysfs, {})


def test_a_vf_of_the_host_is_in_use_even_where_the_uplink_may_be_reset(tmp_path: Path) -> None:
    """A VF in a bond of the host; and one with an address, which is looked for on the live system only."""
    node = make_node(Traits(), Traits(host_use="bond0 of this host is on top of v0"))
    (obstacle,) = find_obstacles([RESIZE], node, Sysfs(tmp_path), {}, {PF})[PF]
    assert "VF 0 (0000:01:10.0) is used by the host: bond0 of this host is on top of v0" in obstacle
    bind = BindDriver(PF, "enp1s0", "why", 0, VF, "igbvf", "vfio-pci")
    assert find_obstacles([bind], node, Sysfs(tmp_path), {}, {PF})


def test_an_address_on_a_vf_makes_it_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of rtnetlink when the tree is the machine's own."""
    node = make_node(Traits(), Traits())
    monkeypatch.setattr(usage, "_LIVE_ROOT", tmp_path)
    monkeypatch.setattr(usage, "_find_host_use", lambda _, netdev: f"{netdev.name} has address 10.0.0.1/8")
    assert "the host: v0 has address 10.0.0.1/8" in find_obstacles([RESIZE], node, Sysfs(tmp_path), {})[PF][0]


def test_whoever_the_kubelet_names_is_in_the_way(tmp_path: Path) -> None:
    """Only of steps that touch that VF."""
    node = make_node(Traits(), Traits())
    assert "used by pod a/b" in find_obstacles([RESIZE], node, Sysfs(tmp_path), {VF: "pod a/b"})[PF][0]
    other = replace(RESIZE, pf=PciAddress("0000:02:00.0"))
    assert not find_obstacles([other], node, Sysfs(tmp_path), {VF: "pod a/b"})


def attach(journal: Journal, boot_id: str) -> None:
    """A pod has the VF."""
    record: dict[str, Any] = {"netns": "/run/netns/x", "netns_dev": 1, "netns_ino": 2, "boot_id": boot_id}
    journal.write_attachment(Attachment("c1", "net1", "net", VF, "kernel", Original("igbvf", None), **record))


def test_pods_of_an_earlier_boot_have_nothing(tmp_path: Path) -> None:
    """Their entries wait for their DEL, and must not keep the node from being set up at boot."""
    journal = Journal(tmp_path)
    attach(journal, "0" * 36)
    assert list_attached(journal) == {}
    attach(journal, read_boot_id())
    assert list_attached(journal) == {VF: "container c1 (net1)"}


def test_a_damaged_entry_keeps_its_vf(tmp_path: Path) -> None:
    """One that names no VF keeps none: the kernel and the kubelet say which are in use. It is reported."""
    path = tmp_path / "attachment-c1-net1.json"
    path.write_text(f'{{"device": "{VF}", "ver')
    journal = Journal(tmp_path)
    assert "cannot be understood" in list_attached(journal)[VF]
    assert list_unknown(journal) == []
    path.write_text("{")
    assert list_attached(journal) == {}
    (reported,) = list_unknown(journal)
    assert str(path) in reported


@pytest.mark.parametrize("content", [b"", b"\0" * 400, b"[" * 9000, b'{"device": 7}', b"\xff\xfe", b"null"])
def test_a_damaged_entry_stops_no_apply(tree: Tree, tmp_path: Path, content: bytes) -> None:
    """It is a warning; every PF is made as the config says, and given back."""
    (tmp_path / "attachment-c1-net1.json").write_bytes(content)
    journal, reported = Journal(tmp_path), list[str]()
    outcome = apply(make_config(2), tree.sysfs, journal, reported.append)
    assert [len(pf.vfs) for pf in take_snapshot(tree.sysfs).pfs] == [2]
    assert any("attachment-c1-net1.json" in warning for warning in outcome.warnings)
    reset(tree.sysfs, journal, reported.append)
    assert [len(pf.vfs) for pf in take_snapshot(tree.sysfs).pfs] == [0]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_serves_as_the_lock(tree: Tree, tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A FIFO is not waited for, and a folder can be locked too."""
    make(tmp_path / "provision.lock")
    journal = Journal(tmp_path)
    apply(make_config(2), tree.sysfs, journal)
    assert [len(pf.vfs) for pf in take_snapshot(tree.sysfs).pfs] == [2]
    with claim_provisioning(journal), pytest.raises(InUseError, match="another apply or reset is at work"):
        apply(make_config(1), tree.sysfs, journal)
