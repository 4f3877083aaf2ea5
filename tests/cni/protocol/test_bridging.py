"""The keys `representor` and `vlanTrunk`: hostile names, ranges, doubles, and what the node allows of them."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.policy import Policy
from cni.protocol.netconf import NetConf, parse_netconf
from cni.protocol.permission import list_refusals
from sriovdp.errors import CniError
from sriovdp.limits import MAX_VLAN
from sriovdp.vlans import VlanIds

_ALLOWING = Policy(bridges=frozenset({"br0"}))


def parse(**keys: Any) -> NetConf:
    """Parse a network that is valid but for the given keys."""
    network = {"cniVersion": "1.0.0", "name": "red", "type": "sriov", "deviceID": "0000:01:10.2"}
    return parse_netconf(json.dumps(network | keys).encode())


def refusals(policy: Policy, **keys: Any) -> str:
    """What a node refuses of it."""
    return "; ".join(f"{one.message} ({one.hint})" for one in list_refusals(parse(**keys), policy))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("br0", "representor is"),
        ({"bridge": "br0", "ovnPort": "x"}, "representor is"),
        ({"vlan": 5}, "representor.bridge is"),
        *(({"bridge": name}, "representor.bridge is") for name in ("..", ".", "a/b", "../../x", "a b", "a" * 16)),
        *(
            ({"bridge": name}, "representor.bridge is")
            for name in ("a:b", "a\n", "a\0b", "\u202ebr0", 7, None, ["br0"])
        ),
        *(({"bridge": "br0", "vlan": vlan}, "representor.vlan is") for vlan in (0, 4095, -1, True, "5", 1.5, [5])),
        *(({"bridge": "br0", "trunk": trunk}, "representor.trunk is") for trunk in ("0-5", "5-", "9-5", "a", "5, 6")),
        *(({"bridge": "br0", "trunk": trunk}, "representor.trunk is") for trunk in (4095, True, {"id": 5}, "1-4095")),
        ({"bridge": "br0", "trunk": [5]}, "representor.trunk is"),
        ({"bridge": "br0", "trunk": [{"minID": 1}]}, "representor.trunk is"),
        ({"bridge": "br0", "trunk": [{"id": 1, "minID": 1, "maxID": 2}]}, "representor.trunk is"),
        ({"bridge": "br0", "trunk": [{"minID": 9, "maxID": 5}]}, "representor.trunk is"),
        ({"bridge": "br0", "trunk": [{"id": 0}]}, "representor.trunk.id is"),
        ({"bridge": "br0", "trunk": [{"minID": 1, "maxID": 4095}]}, "representor.trunk.maxID is"),
        ({"bridge": "br0", "trunk": [{"id": 1}] * 5000}, "representor.trunk is"),
    ],
)
def test_a_fault_names_its_key(value: Any, said: str) -> None:
    """And what is valid; no name of a bridge is a path."""
    with pytest.raises(CniError, match=said) as caught:
        parse(representor=value)
    assert (caught.value.code, bool(caught.value.hint)) == (7, True)


@pytest.mark.parametrize("value", [{}, None, "", []])
def test_nothing_is_no_bridge(value: Any) -> None:
    """So templates render what is not filled in."""
    assert parse(representor=value).bridging is None


def test_spans_may_overlap() -> None:
    """Both ways to write a trunk give one set; the VLAN of frames without a tag may be in it."""
    listed = [{"id": 5}, {"minID": 4, "maxID": 6}, {"minID": 20, "maxID": 29}, {"minID": 25, "maxID": 30}]
    by_list = parse(representor={"bridge": "br0", "vlan": 5, "trunk": listed}).bridging
    assert by_list == parse(representor={"bridge": "br0", "vlan": 5, "trunk": "20-30,4-6,5"}).bridging
    assert by_list is not None
    assert str(by_list.vlans) == "4-6,20-30"


@pytest.mark.parametrize("value", ["0", "0-4094", "4095", "1-4095", "9-5", "1,,2", " 1", "1-2-3", True, [1], {"id": 1}])
def test_a_vlan_trunk_is_a_list_of_vlans(value: Any) -> None:
    """From 1 on: a frame without a tag is in none."""
    with pytest.raises(CniError, match="vlanTrunk is") as caught:
        parse(vlanTrunk=value)
    assert "100-110,200" in caught.value.hint


def test_a_vlan_trunk_is_that_of_the_bridge() -> None:
    """Where there is one; said twice it is refused, and with a port VLAN, which tags what the pod sends."""
    conf = parse(representor={"bridge": "br0"}, vlanTrunk="100-110,200")
    assert (conf.trunk, str(conf.bridging.trunk if conf.bridging else "")) == (None, "100-110,200")
    assert str(parse(vlanTrunk=100).trunk) == "100"
    assert parse(vlanTrunk="").trunk is None
    with pytest.raises(CniError, match="vlanTrunk is"):
        parse(representor={"bridge": "br0", "trunk": "5"}, vlanTrunk="100")
    with pytest.raises(CniError, match="vlanTrunk is"):
        parse(vlan=7, vlanTrunk="100")
    assert parse(vlan=0, vlanTrunk="100").trunk is not None


def test_a_node_allows_no_bridge_by_itself() -> None:
    """Who is in a bridge reaches what the node has there."""
    assert "representor is br0, which this node does not allow (cni.allow.bridges)" in refusals(
        Policy(), representor={"bridge": "br0"}
    )
    assert not refusals(_ALLOWING, representor={"bridge": "br0"})
    assert "is br1" in refusals(_ALLOWING, representor={"bridge": "br1"})


def test_a_node_with_few_vlans_wants_them_named() -> None:
    """A port without a VLAN may pass all of them."""
    few = replace(_ALLOWING, vlans=((0, 0), (10, 20)))
    assert "neither vlan nor trunk" in refusals(few, representor={"bridge": "br0"})
    assert "VLAN 21, 22, 23, 24, 25 and 4 more" in refusals(few, representor={"bridge": "br0", "trunk": "10-29"})
    assert "VLAN 9," in refusals(few, representor={"bridge": "br0", "vlan": 9})
    assert "VLAN 21," in refusals(few, representor={"bridge": "br0"}, vlanTrunk="20-21")
    assert "vlanTrunk is 20-21, which" in refusals(few, vlanTrunk="20-21")
    assert not refusals(few, representor={"bridge": "br0", "vlan": 10, "trunk": "11-20"})


@given(st.sets(st.integers(0, MAX_VLAN), min_size=1, max_size=60))
def test_a_set_survives_being_written(numbers: set[int]) -> None:
    """Whatever is in it."""
    vlans = VlanIds.of(numbers)
    assert VlanIds.parse(str(vlans)) == vlans
    assert (set(vlans), len(vlans)) == (numbers, len(numbers))
    assert set(vlans - VlanIds.parse("0-2000")) == {number for number in numbers if number > 2000}
