"""Representors and Linux bridges, by a tree of sysfs and a kernel that keeps links and VLANs."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, cast

import pytest

from cni.protocol.bridging import Bridging
from cni.vf import representor
from cni.vf.representor import (
    attach_representor,
    compare_representor,
    judge_representor,
    repair_representor,
    restore_representor,
)
from cni.vf.settings import Vf
from cni.vf.trunk import restore_trunk
from sriovdp.errors import CniError, KernelError, VerifyError
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.bridge import UNTAGGED_PVID
from sriovdp.kernel.rtnl.link import Link
from sriovdp.model import PciAddress
from sriovdp.state.journal import Attachment, Original, RepresentorState, read_boot_id
from sriovdp.vlans import VlanIds
from tests.fakes.sysfs import PF, Tree

BRIDGE = 50


@dataclass
class Kernel:
    """Links by their index; a new port of a bridge gets VLAN 1. `refuses` is a word in what it does not do."""

    links: dict[int, Link] = field(default_factory=dict)
    vlans: dict[int, dict[int, int]] = field(default_factory=dict)
    refuses: str = "nothing"
    ignores: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def find(self, key: str | int) -> Link | None:
        """As Netlink has it, altnames too."""
        return next((link for link in self.links.values() if key in (link.ifindex, link.name, *link.altnames)), None)

    def set_link(self, ifindex: int, what: str, *, state: str = "", master: int | None = None) -> None:
        """As Netlink has it."""
        if self.refuses in what:
            raise KernelError(f"{what} failed")
        link = self.links[ifindex]
        if state and not self.ignores:
            link = replace(link, flags=int(state == "up"))
        if master is not None and not self.ignores:
            link = replace(link, master=master)
            self.vlans[ifindex] = {1: UNTAGGED_PVID} if master else {}
        self.links[ifindex] = link

    def port_vlans(self, ifindex: int) -> dict[int, int]:
        """As Netlink has it."""
        return dict(self.vlans.get(ifindex, {}))

    def change_port_vlans(self, ifindex: int, *, remove: dict[int, int], add: dict[int, int]) -> None:
        """As Netlink has it."""
        kept = {vid: flags for vid, flags in self.vlans[ifindex].items() if vid not in remove}
        self.vlans[ifindex] = kept | add


@dataclass
class Node:
    """A PF in switchdev mode with one VF, its representor, and a bridge that filters VLANs."""

    tree: Tree
    kernel: Kernel

    @property
    def netlink(self) -> Netlink:
        """The kernel as the product sees it."""
        return cast("Netlink", self.kernel)

    @property
    def link(self) -> Link:
        """The representor."""
        return self.kernel.links[9]

    def judge(self, wanted: Bridging | None) -> RepresentorState | None:
        """How the representor is before an ADD."""
        return judge_representor(self.tree.sysfs, self.netlink, VF, wanted)

    def attach(self, attachment: Attachment, wanted: Bridging | None) -> Link | None:
        """What an ADD does."""
        return attach_representor(self.tree.sysfs, self.netlink, attachment, wanted)

    def rename(self, name: str) -> None:
        """Somebody gives the representor another name."""
        folder = self.tree.pci(PF) / "net"
        (folder / self.link.name).rename(folder / name)
        self.kernel.links[9] = replace(self.link, name=name)


WANTED = Bridging("br0", 10, VlanIds.parse("20-22"))
VF: Vf


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """The node; `VF` is its VF."""
    global VF  # noqa: PLW0603 - an address that the tree computes
    tree = Tree(tmp_path)
    tree.add_pf(vfs=1)
    (tree.pci(PF) / "net/enp1s0/phys_port_name").write_text("p0\n")
    tree.add_netdev(PF, "rep0", "02:00:00:00:00:09")
    (tree.pci(PF) / "net/rep0/phys_port_name").write_text("pf0vf0\n")
    address = PciAddress((tree.pci(PF) / "virtfn0").readlink().name)
    VF = Vf(address, 0, 2, None, pf="enp1s0")
    bridge = tmp_path / "class/net/br0/bridge"
    bridge.mkdir(parents=True)
    (bridge / "vlan_filtering").write_text("1\n")
    kernel = Kernel({9: _link(9, "rep0"), BRIDGE: replace(_link(BRIDGE, "br0"), altnames=("other",))})
    monkeypatch.setattr(representor, "Netlink", lambda: kernel)
    return Node(tree, kernel)


def _link(ifindex: int, name: str) -> Link:
    return Link(ifindex, name, "02:00:00:00:00:09", 1500, 0, carrier=None, altnames=(), parent="")


def draft(state: RepresentorState | None, boot_id: str = "") -> Attachment:
    """The entry of the journal."""
    original = Original("igbvf", None)
    return Attachment(
        *("pod", "net1", "red", str(VF.address), "kernel", original, "/run/netns/pod", 1, 2),
        boot_id or read_boot_id(),
        representor=state,
    )


def test_a_port_has_its_vlans_and_no_other(node: Node) -> None:
    """Then it is up; at the end it is as before, whatever it is called by then."""
    attachment = draft(node.judge(WANTED))
    assert attachment.representor == RepresentorState(up=False, bridge="br0")
    assert node.attach(attachment, WANTED) == node.link
    assert (node.link.up, node.link.master) == (True, BRIDGE)
    assert node.kernel.vlans[9] == {10: UNTAGGED_PVID, 20: 0, 21: 0, 22: 0}
    assert compare_representor(node.tree.sysfs, attachment, WANTED) == []
    node.rename("strange0")
    restore_representor(node.tree.sysfs, attachment)
    assert (node.link.up, node.link.master) == (False, 0)
    restore_representor(node.tree.sysfs, attachment)


def test_check_says_what_is_another(node: Node) -> None:
    """Its VLANs, its bridge, its state, itself."""
    attachment = draft(node.judge(WANTED))
    node.attach(attachment, WANTED)
    node.kernel.vlans[9][99] = 0
    (found,) = compare_representor(node.tree.sysfs, attachment, WANTED)
    assert found == "VLANs of its representor rep0 are 10 untagged, 20-22,99, 10 untagged, 20-22 were set"
    node.kernel.links[9] = replace(node.link, flags=0, master=7)
    assert compare_representor(node.tree.sysfs, attachment, WANTED) == [
        "its representor rep0 is down",
        "its representor rep0 is not in the bridge br0",
    ]
    repair_representor(node.tree.sysfs, node.netlink, attachment, WANTED)
    assert compare_representor(node.tree.sysfs, attachment, WANTED) == []
    filtering = node.tree.root / "class/net/br0/bridge/vlan_filtering"
    filtering.write_text("0\n")
    (found,) = compare_representor(node.tree.sysfs, attachment, WANTED)
    assert found == "the bridge br0 of its representor does not filter VLANs any more"
    node.kernel.links[9] = replace(node.link, flags=0)
    del node.kernel.links[BRIDGE]
    assert "not in the bridge" in compare_representor(node.tree.sysfs, attachment, WANTED)[1]
    node.rename("gone0")
    (node.tree.pci(PF) / "net/gone0/phys_port_name").unlink()
    assert compare_representor(node.tree.sysfs, attachment, WANTED) == ["its representor is gone"]
    restore_representor(node.tree.sysfs, attachment)


def test_what_cannot_be_is_refused_first(node: Node) -> None:
    """Nothing is changed before."""
    filtering = node.tree.root / "class/net/br0/bridge/vlan_filtering"
    filtering.write_text("0\n")
    with pytest.raises(CniError, match="does not filter VLANs"):
        node.judge(WANTED)
    assert node.judge(Bridging("br0")) == RepresentorState(up=False, bridge="br0")
    node.kernel.links[9] = replace(node.link, master=7)
    with pytest.raises(CniError, match="rep0 is in another interface already") as caught:
        node.judge(Bridging("br0"))
    assert caught.value.hint.endswith("rep0 nomaster")
    with pytest.raises(CniError, match="no Linux bridge of that name; Open vSwitch does not run"):
        node.judge(Bridging("other"))
    (node.tree.pci(PF) / "net/rep0/phys_port_name").unlink()
    with pytest.raises(CniError, match="its PF is not in switchdev mode"):
        node.judge(WANTED)
    assert node.judge(None) is None


def test_the_bridge_vanishes_in_the_middle(node: Node) -> None:
    """Or is another one's altname by then: the ADD fails, and its undoing does not."""
    attachment = draft(node.judge(WANTED))
    node.kernel.links[BRIDGE] = replace(node.kernel.links[BRIDGE], name="br1", altnames=("br0",))
    with pytest.raises(VerifyError, match="the bridge vanished"):
        node.attach(attachment, WANTED)
    del node.kernel.links[BRIDGE]
    with pytest.raises(VerifyError, match="the bridge vanished"):
        node.attach(attachment, WANTED)
    restore_representor(node.tree.sysfs, attachment)
    assert (node.link.up, node.link.master) == (False, 0)


@pytest.mark.parametrize("word", ["into the bridge", "down", "up"])
def test_a_refusal_is_undone(node: Node, word: str) -> None:
    """Whatever step it is."""
    attachment = draft(node.judge(WANTED))
    node.kernel.refuses = word
    with pytest.raises(KernelError):
        node.attach(attachment, WANTED)
    node.kernel.refuses = "nothing"
    restore_representor(node.tree.sysfs, attachment)
    assert (node.link.up, node.link.master) == (False, 0)


def test_what_does_not_come_back_is_an_error(node: Node) -> None:
    """So the VF is owed, and no pod gets it."""
    attachment = draft(node.judge(WANTED))
    node.attach(attachment, WANTED)
    node.kernel.ignores = True
    with pytest.raises(VerifyError, match="rep0 is not as it was"):
        restore_representor(node.tree.sysfs, attachment)


def test_of_another_boot_nothing_is_left(node: Node) -> None:
    """The representor is another one, and may be somebody else's."""
    node.kernel.links[9] = replace(node.link, flags=1, master=BRIDGE)
    restore_representor(node.tree.sysfs, draft(RepresentorState(up=False, bridge="br0"), boot_id="another"))
    assert (node.link.up, node.link.master) == (True, BRIDGE)


def test_a_vf_that_is_gone_owes_nothing(node: Node) -> None:
    """Its representor and its list of VLANs went with it, also when another one has its name by now."""
    attachment = replace(draft(node.judge(WANTED)), trunk="5")
    node.attach(attachment, WANTED)
    node.tree.remove(VF.address)
    (node.tree.pci(PF) / "virtfn0").unlink()
    restore_representor(node.tree.sysfs, attachment)
    restore_trunk(node.tree.sysfs, attachment)
    assert node.link.up
    assert compare_representor(node.tree.sysfs, attachment, WANTED) == ["its representor is gone"]


def test_without_a_bridge_it_is_set_up_and_down(node: Node) -> None:
    """One that the node has in a bridge of its own stays there."""
    node.kernel.links[9] = replace(node.link, master=7)
    attachment = draft(node.judge(None))
    found: Any = node.attach(attachment, None)
    assert (found.up, found.master) == (True, 7)
    restore_representor(node.tree.sysfs, attachment)
    assert (node.link.up, node.link.master) == (False, 7)
