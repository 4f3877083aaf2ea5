"""Representors on the software NIC as ports of Open vSwitch, whose database and daemon run in the guest."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cni.policy import Policy
from cni.vf.ovsdb import Ovsdb
from sriovdp.kernel.netlink import Netlink
from sriovdp.state.journal import Journal
from tests.fakes.recovering import recover
from tests.fakes.runtime import CniFailureError, Plugin, Sandbox
from tests.lab.open_vswitch import OpenVswitch, open_vswitch
from tests.lab.switching import representor, tag_in
from tests.lab.vnic_cards import Card, ip, run, wait_for

pytestmark = pytest.mark.lab(pfs=0, vnic="mlx5:2")
shares_boot = True

_Load = Callable[..., list[Card]]
BRIDGE = "br-ovs"


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenVswitch]:
    """A running Open vSwitch."""
    with open_vswitch(tmp_path_factory.mktemp("ovs")) as running:
        yield running


@pytest.fixture
def ovs(switch: OpenVswitch) -> Iterator[OpenVswitch]:
    """It with an empty bridge."""
    switch.vsctl("add-br", BRIDGE)
    yield switch
    switch.vsctl("--if-exists", "del-br", BRIDGE)


@pytest.fixture
def card(vnic: _Load) -> Card:
    """A card in switchdev mode with three VFs."""
    (card,) = vnic("mlx5:3")
    card.up()
    card.write_numvfs(3)
    done = run("devlink", "dev", "eswitch", "set", f"pci/{card.address}", "mode", "switchdev")
    assert done.returncode == 0, done.stderr
    for index in range(3):
        card.vf_netdev(index)
    return card


@pytest.fixture
def allowing(tmp_path: Path) -> Iterator[Plugin]:
    """The plugin on a node that allows the bridge; its journal is empty at the end."""
    plugin = Plugin(tmp_path, policy=Policy((tmp_path,), (tmp_path,), (tmp_path,), bridges=frozenset({BRIDGE})))
    yield plugin
    assert plugin.attachments() == []


def build(card: Card, index: int = 0, **keys: Any) -> dict[str, Any]:
    """A network with one static address for a VF."""
    ipam = {"type": "static", "addresses": [{"address": f"192.0.2.{index + 1}/24"}]}
    device = card.vf(index).name
    given = {"representor": {"bridge": BRIDGE, "vlan": 10}, **keys}
    return {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": device, "ipam": ipam} | given


def is_plain(card: Card, ovs: OpenVswitch) -> bool:
    """Whether the representor is down and no port, as the driver made it."""
    link = representor(card)
    return "UP" not in link["flags"] and "master" not in link and not ovs.port(link["ifname"])


def settle(plugin: Plugin) -> None:
    """Let the recovery work until nothing is owed."""
    wait_for(lambda: not (recover(plugin.recovery), plugin.attachments())[1])


def test_pods_reach_each_other_by_vlan_and_trunk(
    card: Card, ovs: OpenVswitch, allowing: Plugin, sandbox: Callable[[str], Sandbox]
) -> None:
    """Untagged in VLAN 10, tagged in what the trunk has, and in no other VLAN."""
    one, two, three = sandbox("pod-1"), sandbox("pod-2"), sandbox("pod-3")
    configs = [
        build(card, 0),
        build(card, 1, representor={"bridge": BRIDGE, "vlan": 10, "trunk": "20-22"}),
        build(card, 2, representor={"bridge": BRIDGE}, vlanTrunk="20,30"),
    ]
    result = allowing.add(one, configs[0])
    for pod, config in zip((two, three), configs[1:], strict=True):
        allowing.add(pod, config)
    name = representor(card)["ifname"]
    assert [interface["name"] for interface in result["interfaces"]] == ["net1", name]
    assert ovs.ports(BRIDGE) == sorted(representor(card, index)["ifname"] for index in range(3))
    row = ovs.port(representor(card, 1)["ifname"])
    assert (row["tag"], row["vlan_mode"], row["trunks"]) == (10, "native-untagged", ["set", [20, 21, 22]])
    ids = dict(row["external_ids"][1])
    assert (ids["owner"], ids["contIface"], ids["contNetns"], ids["pod"]) == (
        "sriovdp",
        "net1",
        two.path,
        "default/pod-2",
    )
    wait_for(lambda: one.ping("192.0.2.2"))
    assert not one.ping("192.0.2.3", count=2)
    for vlan in (20, 30):
        tag_in(two, vlan, f"198.51.{vlan}.2/24")
        tag_in(three, vlan, f"198.51.{vlan}.3/24")
    wait_for(lambda: two.ping("198.51.20.3"))
    assert not two.ping("198.51.30.3", count=2)
    for pod, config in zip((one, two, three), configs, strict=True):
        allowing.delete(pod, config)
    assert ovs.ports(BRIDGE) == []
    assert is_plain(card, ovs)


def test_check_finds_what_somebody_changed(card: Card, ovs: OpenVswitch, allowing: Plugin, sandbox: Any) -> None:
    """A tag, and the port itself; DEL of a port that is gone has nothing left to do there."""
    pod, config = sandbox("pod-a"), build(card)
    checked = {**config, "prevResult": allowing.add(pod, config)}
    name = representor(card)["ifname"]
    allowing.call("CHECK", pod, checked)
    ovs.vsctl("set", "Port", name, "tag=11")
    with pytest.raises(CniFailureError, match=r"VLANs of its representor .* are 11 untagged .*, 10 untagged"):
        allowing.call("CHECK", pod, checked)
    ovs.vsctl("del-port", name)
    with pytest.raises(CniFailureError, match="is not in the bridge br-ovs"):
        allowing.call("CHECK", pod, checked)
    allowing.delete(pod, config)
    assert is_plain(card, ovs)


def test_a_renamed_representor_stays_in_the_datapath(
    card: Card, ovs: OpenVswitch, allowing: Plugin, sandbox: Any
) -> None:
    """Open vSwitch knows ports by their names: the VF is nobody's until its daemon is restarted."""
    pod, config = sandbox("pod-a"), build(card)
    allowing.add(pod, config)
    name = representor(card)["ifname"]
    ip(f"link set dev {name} down")
    ip(f"link set dev {name} name strange0")
    allowing.delete(pod, config)
    assert ovs.ports(BRIDGE) == []
    (reason,) = recover(allowing.recovery).values()
    assert "strange0 is still in Open vSwitch's datapath; restart ovs-vswitchd" in reason
    ovs.kill("ovs-vswitchd")
    ovs.start_vswitchd()
    settle(allowing)
    assert is_plain(card, ovs)


def test_a_port_of_somebody_else_is_left_alone(card: Card, ovs: OpenVswitch, allowing: Plugin, sandbox: Any) -> None:
    """One that ovs-cni left behind, or we, is taken over; a bridge that is not there is named."""
    pod, config = sandbox("pod-a"), build(card)
    name = representor(card)["ifname"]
    ovs.vsctl("add-port", BRIDGE, name)
    with pytest.raises(CniFailureError, match=r"is a port of Open vSwitch already.*del-port"):
        allowing.add(pod, config)
    owner = "external_ids:owner=ovs-cni.network.kubevirt.io"
    ovs.vsctl("set", "Port", name, owner, f"external_ids:contNetns={pod.path}")
    with pytest.raises(CniFailureError, match="made by 'ovs-cni"):
        allowing.add(pod, config)
    ovs.vsctl("set", "Port", name, "external_ids:contNetns=/run/netns/gone")
    allowing.add(pod, config)
    assert ovs.port(name)["tag"] == 10
    allowing.delete(pod, config)
    ovs.vsctl("add-port", BRIDGE, name, "--", "set", "Port", name, "external_ids:owner=sriovdp")
    allowing.add(pod, config)
    allowing.delete(pod, config)
    ovs.vsctl("del-br", BRIDGE)
    with pytest.raises(CniFailureError, match=r"no Open vSwitch bridge either.*add-br br-ovs"):
        allowing.add(pod, config)
    assert is_plain(card, ovs)


def test_the_bridge_goes_while_the_pod_lives(card: Card, ovs: OpenVswitch, allowing: Plugin, sandbox: Any) -> None:
    """A repair puts the port into the new one; without any, DEL has nothing left to do there."""
    pod, config = sandbox("pod-a"), build(card)
    allowing.add(pod, config)
    ovs.vsctl("del-br", BRIDGE)
    ovs.vsctl("add-br", BRIDGE)
    (attachment,) = Journal(allowing.root / "journal").attachments()
    assert allowing.recovery.verify(attachment) == [
        f"its representor {representor(card)['ifname']} is not in the bridge {BRIDGE}"
    ]
    allowing.recovery.repair(attachment)
    assert allowing.recovery.verify(attachment) == []
    ovs.vsctl("del-br", BRIDGE)
    allowing.delete(pod, config)
    assert is_plain(card, ovs)


def test_the_vf_goes_while_the_pod_lives(card: Card, ovs: OpenVswitch, allowing: Plugin, sandbox: Any) -> None:
    """Its port is removed all the same: Open vSwitch would take the next representor of that name."""
    pod, config = sandbox("pod-a"), build(card)
    allowing.add(pod, config)
    card.write_numvfs(0)
    assert len(ovs.ports(BRIDGE)) == 1
    allowing.delete(pod, config)
    assert ovs.ports(BRIDGE) == []


def test_without_its_daemon(card: Card, ovs: OpenVswitch, allowing: Plugin, sandbox: Any) -> None:
    """A DEL succeeds and is finished later; an ADD fails in the daemon's name, and leaves nothing behind."""
    pod, config = sandbox("pod-a"), build(card)
    allowing.add(pod, config)
    ovs.kill("ovs-vswitchd")
    allowing.delete(pod, config)
    assert allowing.attachments(), "the datapath still has the representor"
    assert ovs.ports(BRIDGE) == []
    ovs.start_vswitchd()
    settle(allowing)
    assert is_plain(card, ovs)
    ovs.kill("ovs-vswitchd")
    with pytest.raises(CniFailureError, match=r"ovs-vswitchd did not take it.*start ovs-vswitchd"):
        allowing.add(pod, config)
    assert ovs.ports(BRIDGE) == []
    ovs.start_vswitchd()
    settle(allowing)


def test_without_its_database(card: Card, ovs: OpenVswitch, allowing: Plugin, sandbox: Any) -> None:
    """It remembers the port: the release is owed until it can be asked, after a reboot too."""
    pod, config = sandbox("pod-a"), build(card)
    allowing.add(pod, config)
    ovs.kill("ovs-vswitchd")
    ovs.kill("ovsdb-server")
    allowing.delete(pod, config)
    (entry,) = (allowing.root / "journal").glob("attachment-*.json")
    document = json.loads(entry.read_text())
    entry.write_text(json.dumps({**document, "boot_id": "another"}))
    recover(allowing.recovery)
    assert allowing.attachments()
    ovs.start()
    assert ovs.ports(BRIDGE) == [representor(card)["ifname"]]
    settle(allowing)
    assert ovs.ports(BRIDGE) == []
    wait_for(lambda: "master" not in representor(card))


def test_killed_between_the_steps(
    card: Card, ovs: OpenVswitch, allowing: Plugin, sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change of the kernel and each transaction may be the last one of an ADD, and of a DEL."""
    pod, config = sandbox("pod-a"), build(card)
    for is_delete in (False, True):
        for number in range(40):
            if is_delete:
                allowing.add(pod, config)
            if not _dies(allowing, "DEL" if is_delete else "ADD", pod, config, number, monkeypatch):
                break
            recover(allowing.recovery)
            if allowing.attachments():
                allowing.delete(pod, config)
            assert ovs.ports(BRIDGE) == [], number
            wait_for(lambda: "master" not in representor(card))
        assert number > 3, "the steps were counted wrongly"
        allowing.delete(pod, config)


def _dies(
    plugin: Plugin, verb: str, pod: Sandbox, config: dict[str, Any], number: int, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Whether a verb comes to its change `number`, before which it is killed."""
    left = [number]

    def count(real: Any) -> Any:
        def die(self: Any, *arguments: Any) -> Any:
            if left[0] == 0:
                raise SystemExit  # nothing catches it on the way
            left[0] -= 1
            return real(self, *arguments)

        return die

    with monkeypatch.context() as patched:
        patched.setattr(Netlink, "_change", count(Netlink._change))
        patched.setattr(Ovsdb, "transact", count(Ovsdb.transact))
        try:
            plugin.call(verb, pod, config)
        except SystemExit:
            return True
    return False
