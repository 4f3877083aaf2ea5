"""Representors on the software NIC: named in the result, set up, put into a Linux bridge, and as before at the end."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni.policy import Policy
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.node.inventory import take_snapshot
from sriovdp.node.recording import record
from sriovdp.node.sources import collect_facts
from tests.fakes.recovering import recover
from tests.fakes.runtime import CniFailureError, Plugin, Sandbox
from tests.lab.switching import representor
from tests.lab.vnic_cards import Card, ip, run, wait_for

pytestmark = pytest.mark.lab(pfs=0, vnic="mlx5:2")
shares_boot = True

_Load = Callable[..., list[Card]]
BRIDGE, TAGGED = "br-pods", "br-pods.10"


@pytest.fixture
def card(vnic: _Load) -> Card:
    """A card in switchdev mode with two VFs."""
    (card,) = vnic("mlx5:2")
    card.up()
    card.write_numvfs(2)
    done = run("devlink", "dev", "eswitch", "set", f"pci/{card.address}", "mode", "switchdev")
    assert done.returncode == 0, done.stderr
    card.vf_netdev(0)
    return card


@pytest.fixture
def bridge() -> Iterator[None]:
    """A bridge that filters VLANs, and an address of the host in VLAN 10 of it."""
    ip(f"link add {BRIDGE} type bridge vlan_filtering 1 forward_delay 0")
    run("bridge", "vlan", "add", "dev", BRIDGE, "vid", "10", "self")
    ip(f"link add link {BRIDGE} name {TAGGED} type vlan id 10")
    ip(f"link set dev {BRIDGE} up")
    ip(f"link set dev {TAGGED} up")
    ip(f"address add 192.0.2.1/24 dev {TAGGED}")
    yield
    run("ip", "link", "delete", BRIDGE)


@pytest.fixture
def allowing(tmp_path: Path) -> Iterator[Plugin]:
    """The plugin on a node that allows the bridge; its journal is empty at the end."""
    plugin = Plugin(tmp_path, policy=Policy((tmp_path,), (tmp_path,), (tmp_path,), bridges=frozenset({BRIDGE})))
    yield plugin
    assert plugin.attachments() == []


def build(card: Card, number: int = 2, **keys: Any) -> dict[str, Any]:
    """A network with one static address for VF 0."""
    ipam = {"type": "static", "addresses": [{"address": f"192.0.2.{number}/24"}]}
    device = card.vf(0).name
    return {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": device, "ipam": ipam} | keys


def vlans(name: str) -> dict[int, list[str]]:
    """What `bridge` says of a port's VLANs, with their flags."""
    shown = json.loads(run("bridge", "-j", "vlan", "show", "dev", name).stdout)
    found: dict[int, list[str]] = {}
    for port in shown:
        for vlan in port["vlans"]:
            for vid in range(vlan["vlan"], vlan.get("vlanEnd", vlan["vlan"]) + 1):
                found[vid] = vlan.get("flags", [])
    return found


def is_plain(card: Card) -> bool:
    """Whether the representor is down and in no bridge, as the driver made it."""
    link = representor(card)
    return "UP" not in link["flags"] and "master" not in link


def test_the_representor_is_in_the_result_and_up(card: Card, allowing: Plugin, sandbox: Any) -> None:
    """As long as the pod is there; without a bridge it is in none."""
    pod, config = sandbox("pod-a"), build(card)
    assert is_plain(card)
    result = allowing.add(pod, config)
    link = representor(card)
    assert [(one["name"], "sandbox" in one) for one in result["interfaces"]] == [
        ("net1", True),
        (link["ifname"], False),
    ]
    assert result["interfaces"][1]["mac"] == link["address"]
    assert "UP" in link["flags"]
    assert result["ips"][0]["interface"] == 0
    allowing.call("CHECK", pod, {**config, "prevResult": result})
    ip(f"link set dev {link['ifname']} down")
    with pytest.raises(CniFailureError, match=r"representor .* is down"):
        allowing.call("CHECK", pod, {**config, "prevResult": result})
    allowing.delete(pod, config)
    assert is_plain(card)


@pytest.mark.usefixtures("bridge")
def test_a_pod_reaches_a_vlan_of_the_bridge(card: Card, allowing: Plugin, sandbox: Any) -> None:
    """Its frames have no tag, and are of VLAN 10 in the bridge; CHECK sees what somebody changes."""
    pod = sandbox("pod-a")
    config = build(card, representor={"bridge": BRIDGE, "vlan": 10, "trunk": [{"id": 5}, {"minID": 20, "maxID": 22}]})
    result = allowing.add(pod, config)
    link = representor(card)
    assert link["master"] == BRIDGE
    assert vlans(link["ifname"]) == {10: ["PVID", "Egress Untagged"], 5: [], 20: [], 21: [], 22: []}
    wait_for(lambda: pod.ping("192.0.2.1"))
    allowing.call("CHECK", pod, {**config, "prevResult": result})
    run("bridge", "vlan", "add", "dev", link["ifname"], "vid", "99")
    with pytest.raises(CniFailureError, match="VLANs of its representor"):
        allowing.call("CHECK", pod, {**config, "prevResult": result})
    ip(f"link set dev {link['ifname']} nomaster")
    with pytest.raises(CniFailureError, match="not in the bridge"):
        allowing.call("CHECK", pod, {**config, "prevResult": result})
    allowing.delete(pod, config)
    assert is_plain(card)


@pytest.mark.usefixtures("bridge")
def test_another_vlan_does_not_reach_it(card: Card, allowing: Plugin, sandbox: Any) -> None:
    """The bridge keeps them apart; a renamed representor and a renamed bridge hinder no DEL."""
    pod = sandbox("pod-a")
    config = build(card, representor={"bridge": BRIDGE, "vlan": 11})
    allowing.add(pod, config)
    assert not pod.ping("192.0.2.1", count=2)
    name = representor(card)["ifname"]
    ip(f"link set dev {name} down")
    ip(f"link set dev {name} name strange0")
    ip(f"link set dev {BRIDGE} down")
    ip(f"link set dev {BRIDGE} name br-other")
    allowing.delete(pod, config)
    assert is_plain(card)
    ip(f"link set dev br-other name {BRIDGE}")


@pytest.mark.usefixtures("bridge")
def test_what_cannot_be_is_refused(card: Card, allowing: Plugin, sandbox: Any) -> None:
    """Before anything is changed; hostile names are no paths."""
    pod = sandbox("pod-a")
    wished: tuple[tuple[Any, str], ...] = (
        ({"bridge": "br-else"}, "does not allow .cni.allow.bridges"),
        ({"bridge": "../../x"}, "the name of a Linux bridge|representor.bridge is"),
        ({"bridge": ".."}, "representor.bridge is"),
        ({"bridge": BRIDGE, "vlan": 0}, "representor.vlan is 0"),
        ({"bridge": BRIDGE, "trunk": [{"minID": 1}]}, "representor.trunk is"),
        ({"bridge": BRIDGE, "ovs": "x"}, "representor is"),
        ({"vlan": 5}, "representor.bridge is"),
    )
    for value, words in wished:
        with pytest.raises(CniFailureError, match=words):
            allowing.add(pod, build(card, representor=value))
    with pytest.raises(CniFailureError, match=r"VLAN 7.*cni\.allow\.vlans"):
        policy = replace(allowing.policy or Policy(), vlans=((10, 20),))
        replace(allowing, policy=policy).add(pod, build(card, representor={"bridge": BRIDGE, "vlan": 7}))
    ip(f"link set dev {BRIDGE} type bridge vlan_filtering 0")
    with pytest.raises(CniFailureError, match="does not filter VLANs"):
        allowing.add(pod, build(card, representor={"bridge": BRIDGE, "vlan": 7}))
    name = representor(card)["ifname"]
    ip(f"link set dev {name} master {BRIDGE}")
    with pytest.raises(CniFailureError, match="in another interface already"):
        allowing.add(pod, build(card, representor={"bridge": BRIDGE}))
    ip(f"link set dev {name} nomaster")
    ip(f"link delete {BRIDGE}")
    with pytest.raises(CniFailureError, match="no Linux bridge of that name"):
        allowing.add(pod, build(card, representor={"bridge": BRIDGE}))
    assert is_plain(card)


@pytest.mark.usefixtures("bridge")
def test_killed_between_the_steps(card: Card, allowing: Plugin, sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recovery takes the representor out again, whatever the ADD came to; a bridge may have vanished meanwhile."""
    pod, config = sandbox("pod-a"), build(card, representor={"bridge": BRIDGE, "vlan": 10})
    for number in range(1, 6):
        left = [number]

        def die(self: Netlink, *arguments: Any, real: Any = Netlink._change, left: list[int] = left) -> None:
            if left[0] == 0:
                raise SystemExit  # nothing catches it on the way
            left[0] -= 1
            real(self, *arguments)

        with monkeypatch.context() as patched, pytest.raises((SystemExit, CniFailureError)):
            patched.setattr(Netlink, "_change", die)
            allowing.add(pod, config)
            raise SystemExit
        recover(allowing.recovery)
        if allowing.attachments():
            allowing.delete(pod, config)
        assert is_plain(card), number


def test_legacy_mode_has_no_representor(vnic: _Load, allowing: Plugin, sandbox: Any) -> None:
    """A network that wants one is refused with what to do; another one has the pod's interface alone."""
    (card,) = vnic("mlx5:2")
    card.up()
    card.write_numvfs(1)
    card.vf_netdev(0)
    ip(f"link add {BRIDGE} type bridge")
    pod = sandbox("pod-a")
    try:
        with pytest.raises(CniFailureError, match="not in switchdev mode"):
            allowing.add(pod, build(card, representor={"bridge": BRIDGE}))
        assert len(allowing.add(pod, build(card))["interfaces"]) == 1
        allowing.delete(pod, build(card))
    finally:
        ip(f"link delete {BRIDGE}")


@pytest.mark.usefixtures("bridge")
def test_in_dpdk_mode_too(card: Card, allowing: Plugin, sandbox: Any) -> None:
    """Where the VF has no netdev at all."""
    pod: Sandbox = sandbox("pod-a")
    subprocess.run(["modprobe", "vfio-pci"], check=True)
    config = build(card, driver="vfio-pci", representor={"bridge": BRIDGE, "vlan": 10})
    result = allowing.add(pod, config)
    link = representor(card)
    assert (link["master"], vlans(link["ifname"])) == (BRIDGE, {10: ["PVID", "Egress Untagged"]})
    assert [one["name"] for one in result["interfaces"]] == ["net1", link["ifname"]]
    allowing.call("CHECK", pod, {**config, "prevResult": result})
    allowing.delete(pod, config)
    assert is_plain(card)
    assert (Sysfs().pci(card.vf(0).name) / "driver").resolve().name == "mlx5_core"


def test_a_recorded_node_has_the_mode(card: Card, tmp_path: Path) -> None:
    """As devlink reports it, with inline and encap mode."""
    node = take_snapshot(Sysfs())
    (eswitch,) = (pf.eswitch for pf in node.pfs if pf.address == card.address)
    assert eswitch
    assert eswitch.mode == "switchdev"
    record(Path("/sys"), node, collect_facts(Sysfs(), node), tmp_path / "node")
    again = take_snapshot(Sysfs(tmp_path / "node"))
    assert [pf.eswitch for pf in again.pfs if pf.address == card.address] == [eswitch]
