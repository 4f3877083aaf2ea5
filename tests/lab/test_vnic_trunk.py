"""VLANs that a pod may tag with, and MACs by devlink: on the software NIC, with the files of vendors' drivers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cni.policy import Policy
from sriovdp.kernel.netlink import Netlink
from tests.fakes.recovering import recover
from tests.fakes.runtime import CniFailureError, Plugin, Sandbox
from tests.lab.switching import tag_in
from tests.lab.vnic_cards import Card, run, wait_for

pytestmark = pytest.mark.lab(pfs=0, vnic="mlx5:2")
shares_boot = True

_Load = Callable[..., list[Card]]


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    """The plugin; its journal is empty at the end."""
    plugin = Plugin(tmp_path, policy=Policy((tmp_path,), (tmp_path,), (tmp_path,)))
    yield plugin
    assert plugin.attachments() == []


def make(vnic: _Load, card: str) -> Card:
    """A card with two VFs, in legacy mode."""
    (made,) = vnic(card)
    made.up()
    made.write_numvfs(2)
    for index in range(2):
        made.vf_netdev(index)
    return made


def build(card: Card, index: int = 0, **keys: Any) -> dict[str, Any]:
    """A network with one static address for a VF."""
    ipam = {"type": "static", "addresses": [{"address": f"192.0.2.{index + 1}/24"}]}
    device = card.vf(index).name
    return {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": device, "ipam": ipam, **keys}


def trunk(card: Card, index: int = 0) -> Path:
    """The driver's file."""
    return card.pf / "sriov" / str(index) / "trunk"


@pytest.mark.parametrize(
    ("profile", "shown", "before"),
    [
        ("mlx5", "Allowed 802.1Q VLANs: 20 21 22 30\n", "Allowed 802.1Q VLANs: 7 21\n"),
        ("i40e", "20-22,30\n", "7,21\n"),
        ("ice", "20-22,30\n", "7,21\n"),
    ],
)
def test_a_pod_tags_with_what_it_may(
    vnic: _Load, plugin: Plugin, sandbox: Callable[[str], Sandbox], profile: str, shown: str, before: str
) -> None:
    """And with no other VLAN; the list is as before at the end, whatever stood there."""
    card = make(vnic, f"{profile}:2/vlan_trunk=1")
    for words in ("add 7 7", "add 21 21") if profile == "mlx5" else ("add 7,21",):
        trunk(card).write_text(words)
    one, two = sandbox("pod-1"), sandbox("pod-2")
    config = build(card, vlanTrunk="20-22,30")
    checked = {**config, "prevResult": plugin.add(one, config)}
    plugin.add(two, build(card, 1))
    assert trunk(card).read_text() == shown
    plugin.call("CHECK", one, checked)
    for vlan in (20, 7):
        for pod, number in ((one, 1), (two, 2)):
            tag_in(pod, vlan, f"198.51.{vlan}.{number}/24")
    wait_for(lambda: one.ping("198.51.20.2"))
    assert not one.ping("198.51.7.2", count=2)
    trunk(card).write_text("rem 30 30" if profile == "mlx5" else "rem 30")
    with pytest.raises(CniFailureError, match="VLANs that it may use are 20-22, 20-22,30 were set"):
        plugin.call("CHECK", one, checked)
    plugin.delete(one, config)
    plugin.delete(two, build(card, 1))
    assert trunk(card).read_text() == before


@pytest.mark.parametrize("profile", ["mlx5", "ice"])
def test_every_second_vlan(vnic: _Load, plugin: Plugin, sandbox: Any, profile: str) -> None:
    """More spans than one write takes, and more numbers than the file shows."""
    card = make(vnic, f"{profile}:2/vlan_trunk=1")
    pod, config = sandbox("pod-a"), build(card, vlanTrunk=",".join(map(str, range(2, 4095, 2))))
    plugin.add(pod, config)
    assert len(trunk(card).read_text()) > 4000
    plugin.delete(pod, config)
    assert trunk(card).read_text().strip() == ""


def test_a_driver_without_a_list_is_named(vnic: _Load, plugin: Plugin, sandbox: Any) -> None:
    """As Linux's own drivers are: nothing would keep the pod out of other VLANs."""
    card = make(vnic, "ice:2")
    with pytest.raises(CniFailureError, match=r"setting vlanTrunk failed: its PF's driver, ice, has no list of VLANs"):
        plugin.add(sandbox("pod-a"), build(card, vlanTrunk="20", onUnsupported="warn"))


def test_killed_between_the_steps(vnic: _Load, plugin: Plugin, sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recovery sets the list back, whatever the ADD came to."""
    card = make(vnic, "ice:2/vlan_trunk=1")
    pod, config = sandbox("pod-a"), build(card, vlanTrunk="20-22,30", trust="on")
    for number in range(1, 4):
        left = [number]

        def die(self: Netlink, *arguments: Any, real: Any = Netlink._change, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise SystemExit  # nothing catches it on the way
            real(self, *arguments)

        with monkeypatch.context() as patched, pytest.raises(SystemExit):
            patched.setattr(Netlink, "_change", die)
            plugin.add(pod, config)
        recover(plugin.recovery)
        assert trunk(card).read_text() == "\n", number
        assert plugin.attachments() == []


def test_a_mac_goes_by_devlink_where_the_pf_takes_none(vnic: _Load, plugin: Plugin, sandbox: Any) -> None:
    """In switchdev mode, where each VF has a port; its MAC of before comes back the same way."""
    card = make(vnic, "mlx5:2/mac_errno=95")
    config = build(card, mac="02:00:00:00:00:77")
    pod = sandbox("pod-a")
    done = run("devlink", "dev", "eswitch", "set", f"pci/{card.address}", "mode", "switchdev")
    assert done.returncode == 0, done.stderr
    card.vf_netdev(0)
    before = card.listed()[0]["address"]
    result = plugin.add(pod, config)
    assert result["interfaces"][0]["mac"] == "02:00:00:00:00:77"
    assert card.listed()[0]["address"] == "02:00:00:00:00:77"
    checked = {**config, "prevResult": result}
    plugin.call("CHECK", pod, checked)
    plugin.delete(pod, config)
    assert card.listed()[0]["address"] == before
