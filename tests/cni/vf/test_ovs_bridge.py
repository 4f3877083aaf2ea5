"""Ports of Open vSwitch: whose they are, and what becomes of them, with a database in memory."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from cni.protocol.bridging import Bridging
from cni.verbs.owed import without_lost_vf
from cni.vf import ovs_bridge
from cni.vf.ovs_bridge import clear_port, compare_port, join_bridge, leave_bridge, wait_until_free
from cni.vf.ovsdb import Row, read_map, write_map
from cni.vf.representor import restore_representor
from cni.vf.settings import Vf
from sriovdp.errors import CniError, DeviceError, VerifyError
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import PciAddress
from sriovdp.state.journal import Attachment, Original, RepresentorState, read_boot_id
from sriovdp.vlans import VlanIds

VF = Vf(PciAddress("0000:01:10.0"), 0, 2, None, pf="eth0")
WANTED = Bridging("br0", 10, VlanIds.parse("20-22"))
REPRESENTOR = Link(9, "rep0", "02:00:00:00:00:09", 1500, 0, carrier=None, altnames=(), parent="")


@dataclass
class Switch:
    """The database, and the daemon that does what it says. `error` is what the daemon says of each new port."""

    bridges: dict[str, list[Any]] = field(default_factory=lambda: {"br0": [], "br1": []})
    ports: dict[str, Row] = field(default_factory=dict)
    error: str = ""
    works: bool = True

    def __enter__(self) -> "Switch":  # noqa: PYI034 - a fake
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def select(self, table: str, where: list[list[Any]], *_: str) -> list[Row]:
        """As Ovsdb has it, for what is asked here."""
        [[column, _, value]] = where
        if table == "Bridge":
            return [{"name": name, "ports": ["set", ports]} for name, ports in self.bridges.items() if name == value]
        live = [
            port for uuid, port in self.ports.items() if any(["uuid", uuid] in one for one in self.bridges.values())
        ]
        if column == "external_ids":
            wanted = read_map(value).items()
            return [port for port in live if wanted <= read_map(port["external_ids"]).items()]
        found = [port for port in live if port["name"] == value]
        if table == "Interface":
            number: Any = -1 if self.error else 3 if self.works else ["set", []]
            return [{"ofport": number, "error": self.error or ["set", []]} for _ in found]
        return found

    def transact(self, *operations: Row) -> list[Row]:
        """As Ovsdb has it: a port is put into a bridge, or taken out of all."""
        *inserts, mutate = operations
        [[column, verb, uuid]] = mutate["mutations"]
        assert (mutate["table"], column) == ("Bridge", "ports")
        if verb == "delete":
            for members in self.bridges.values():
                members[:] = [member for member in members if member != uuid]
            return [{"count": 1}]
        name = mutate["where"][0][2]
        number = f"port{len(self.ports)}"
        self.ports[number] = {**inserts[1]["row"], "_uuid": ["uuid", number]}
        if name in self.bridges:
            self.bridges[name].append(["uuid", number])
        return [{}, {}, {"count": int(name in self.bridges)}]

    def find(self, ifindex: int) -> Link:
        """As Netlink has it: the datapath is the representor's master while it is a port."""
        assert ifindex == REPRESENTOR.ifindex
        return replace(REPRESENTOR, master=7 if self.works and any(self.bridges.values()) else 0)

    def put(self, name: str, **ids: str) -> None:
        """A port of somebody."""
        self.ports[name] = {"name": name, "_uuid": ["uuid", name], "external_ids": write_map(ids)}
        self.bridges["br1"].append(["uuid", name])

    def holds(self, uuid: str) -> bool:
        """Whether a port is in a bridge; other rows are collected."""
        return any(["uuid", uuid] in members for members in self.bridges.values())

    @property
    def netlink(self) -> Netlink:
        """The kernel as the product sees it."""
        return cast("Netlink", self)


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Switch:
    """One that answers at once."""
    made = Switch()
    monkeypatch.setattr(ovs_bridge, "Ovsdb", lambda: made)
    monkeypatch.setattr(ovs_bridge, "_PATIENCE", 0.05)
    return made


def draft(container: str = "pod", boot_id: str = "") -> Attachment:
    """The entry of the journal."""
    return Attachment(
        *(container, "net1", "red", str(VF.address), "kernel", Original("igbvf", None), "/run/netns/pod", 1, 2),
        boot_id or read_boot_id(),
        representor=RepresentorState(up=False, bridge="br0", switch="ovs"),
    )


def test_a_port_is_known_by_its_container(switch: Switch) -> None:
    """By whatever name, in whatever bridge; that of another pod stays."""
    join_bridge(switch.netlink, REPRESENTOR, WANTED, draft())
    (port,) = switch.ports.values()
    assert (port["tag"], port["vlan_mode"], port["trunks"]) == (10, "native-untagged", ["set", [20, 21, 22]])
    assert compare_port(switch.find(9), WANTED, draft()) == []
    assert compare_port(switch.find(9), WANTED, draft("other")) == ["its representor rep0 is not in the bridge br0"]
    switch.bridges["br1"].append(switch.bridges["br0"].pop())
    assert "not in the bridge" in compare_port(switch.find(9), WANTED, draft())[0]
    port["name"] = "strange0"
    switch.put("rep1", owner="sriovdp", contId="other", contIface="net1")
    leave_bridge(draft())
    assert switch.bridges == {"br0": [], "br1": [["uuid", "rep1"]]}
    leave_bridge(draft())


@pytest.mark.parametrize(
    ("wanted", "row"),
    [
        (Bridging("br0"), {}),
        (Bridging("br0", 10), {"vlan_mode": "access", "tag": 10}),
        (Bridging("br0", None, VlanIds.parse("5")), {"vlan_mode": "trunk", "trunks": ["set", [5]]}),
    ],
)
def test_vlans_are_columns(switch: Switch, wanted: Bridging, row: Row) -> None:
    """And what somebody changes of them is seen."""
    join_bridge(switch.netlink, REPRESENTOR, wanted, draft())
    (port,) = switch.ports.values()
    assert {key: port[key] for key in ("vlan_mode", "tag", "trunks") if key in port} == row
    assert compare_port(switch.find(9), wanted, draft()) == []
    port["tag"] = 11
    assert "11 untagged" in compare_port(switch.find(9), wanted, draft())[0]


@pytest.mark.parametrize(
    ("ids", "is_left"),
    [
        ({"owner": "sriovdp"}, True),
        ({"owner": "ovs-cni.network.kubevirt.io", "contNetns": "/nowhere/at/all"}, True),
        ({"owner": "ovs-cni.network.kubevirt.io", "contNetns": "/proc/self/ns/net"}, False),
        ({"owner": "ovs-cni.network.kubevirt.io"}, False),
        ({"owner": "ovs-cni.network.kubevirt.io", "contNetns": "nowhere"}, False),
        ({"owner": "x" * 5000}, False),
        ({}, False),
    ],
)
def test_only_what_was_left_behind_is_removed(switch: Switch, ids: dict[str, str], is_left: bool) -> None:
    """A port of somebody who may use it is named, in few words."""
    switch.put("rep0", **ids)
    if is_left:
        assert clear_port(VF, "rep0")
        assert switch.bridges["br1"] == []
        assert not clear_port(VF, "rep0")
        return
    with pytest.raises(CniError, match="rep0 is a port of Open vSwitch already") as caught:
        clear_port(VF, "rep0")
    assert len(caught.value.message) < 250
    assert caught.value.hint.endswith("ovs-vsctl del-port rep0")
    assert switch.bridges["br1"]


def test_what_the_daemon_says_is_the_error(switch: Switch) -> None:
    """Its own words, or that it does not say anything."""
    switch.error = "could not open network device rep0"
    with pytest.raises(DeviceError, match="bridge br0 failed: could not open network device rep0"):
        join_bridge(switch.netlink, REPRESENTOR, WANTED, draft())
    leave_bridge(draft())
    switch.error, switch.works = "", False
    with pytest.raises(DeviceError, match="ovs-vswitchd did not take it"):
        join_bridge(switch.netlink, REPRESENTOR, WANTED, draft())
    leave_bridge(draft())
    with pytest.raises(VerifyError, match="the bridge vanished"):
        join_bridge(switch.netlink, REPRESENTOR, Bridging("br9"), draft())
    assert not any(switch.bridges.values())


def test_a_datapath_that_keeps_the_representor(switch: Switch) -> None:
    """The release is owed, and the hint says what to do."""
    switch.put("other")
    with pytest.raises(VerifyError, match="rep0 is still in Open vSwitch's datapath") as caught:
        wait_until_free(switch.netlink, REPRESENTOR)
    assert "restart ovs-vswitchd" in caught.value.hint


def test_after_a_reboot_only_the_database_remembers(switch: Switch, tmp_path: Path) -> None:
    """So the release is owed until the port is out; the VF is another one, and left alone."""
    old = draft(boot_id="another")
    assert not without_lost_vf(old).released
    assert without_lost_vf(replace(old, representor=RepresentorState(up=False, bridge="br0"))).released
    switch.put("rep0", owner="sriovdp", contId="pod", contIface="net1")
    restore_representor(Sysfs(tmp_path), old)
    assert switch.bridges["br1"] == []
