"""The software NIC's switch: what it enforces, seen by packets, and the settings as `ip` lists them."""

from collections.abc import Callable

import pytest

from tests.lab.vnic_cards import Card, Station, carrier, ip, stations

pytestmark = pytest.mark.lab(pfs=0, vnic="ice:4")

_Load = Callable[..., list[Card]]
_FRAMES = 5


def _make(vnic: _Load, cards: str = "ice:4/vlan_ad=1") -> Card:
    (card,) = vnic(cards)
    card.up()
    card.write_numvfs(4)
    for index in range(4):
        card.vf_netdev(index)
    return card


def test_vfs_reach_each_other_and_the_pf(vnic: _Load) -> None:
    """Without any setting; counters of the VFs grow in the kernel's list."""
    card = _make(vnic)
    with stations(card.vf_netdev(0), card.vf_netdev(1), card.netdev) as (first, second, pf):
        assert first.reaches(second)
        assert first.reaches(pf)
    assert card.counter(0, "tx", "tx_packets") > 0
    assert card.counter(0, "rx", "packets") > 0
    assert card.counter(3, "tx", "tx_packets") == 0


@pytest.mark.parametrize("proto", ["802.1Q", "802.1ad"])
def test_a_port_vlan_separates(vnic: _Load, proto: str) -> None:
    """VFs of one VLAN reach each other, others do not; the pod sees no tag; its own VLAN lies inside of 802.1ad."""
    card = _make(vnic)
    with stations(card.vf_netdev(0), card.vf_netdev(1)) as (first, second):
        ip(f"link set dev {card.netdev} vf 0 vlan 7 qos 3 proto {proto}")
        assert not first.reaches(second)
        ip(f"link set dev {card.netdev} vf 1 vlan 7 proto {proto}")
        assert first.reaches(second)
        assert _reach_in_vlan(first, second) == (proto == "802.1ad")
        (vlan,) = card.listed()[0]["vlan_list"]
        assert (vlan["vlan"], vlan["qos"]) == (7, 3)
        ip(f"link set dev {card.netdev} vf 1 vlan 8 proto {proto}")
        assert not first.reaches(second)


def test_a_vf_without_port_vlan_is_a_trunk(vnic: _Load) -> None:
    """Its guest's tags go through, and reach the VF in that port VLAN untagged."""
    card = _make(vnic)
    with stations(card.vf_netdev(0), card.vf_netdev(1)) as (first, second):
        assert _reach_in_vlan(first, second)
        ip(f"link set dev {card.netdev} vf 1 vlan 9")
        ip(f"-n {first.name} address flush dev {first.netdev}")
        ip(f"-n {first.name} link add link {first.netdev} name tagged type vlan id 9")
        ip(f"-n {first.name} address add 192.0.2.1/24 dev tagged")
        ip(f"-n {first.name} link set dev tagged up")
        assert first.reaches(second)


def _reach_in_vlan(first: Station, second: Station) -> bool:
    for one in (first, second):
        ip(f"-n {one.name} link add link {one.netdev} name inner type vlan id 42")
        ip(f"-n {one.name} address add 198.51.100.{one.number}/24 dev inner")
        ip(f"-n {one.name} link set dev inner up")
    address = f"198.51.100.{second.number}"
    reached = first.run("ping", "-q", "-c", "3", "-i", "0.2", "-W", "1", address).returncode == 0
    for one in (first, second):
        ip(f"-n {one.name} link delete inner")
    return reached


def test_spoofchk_drops_a_foreign_source(vnic: _Load) -> None:
    """As long as it is on; the VF's counters say so."""
    card = _make(vnic)
    with stations(card.vf_netdev(0), card.vf_netdev(1)) as (first, second):
        destination = second.mac()
        frame = destination + bytes.fromhex("020000000bad") + b"\x88\xb5" + bytes(46)
        first.send(frame, _FRAMES)
        assert card.counter(0, "tx", "dropped") == _FRAMES
        assert card.unicasts(1) == 0
        ip(f"link set dev {card.netdev} vf 0 spoofchk off")
        first.send(frame, _FRAMES)
        assert card.counter(0, "tx", "dropped") == _FRAMES
        assert card.unicasts(1) == _FRAMES


def test_a_rate_is_held(vnic: _Load) -> None:
    """Of 3 MB sent at once over 1 Mbit/s not all pass, over no bound all do."""
    card = _make(vnic)
    with stations(card.vf_netdev(0), card.vf_netdev(1)) as (first, _):
        own = first.mac()
        frame = b"\xff" * 6 + own + b"\x88\xb5" + bytes(1400)
        first.send(frame, 2000)
        assert card.counter(0, "tx", "dropped") == 0
        ip(f"link set dev {card.netdev} vf 0 max_tx_rate 1")
        first.send(frame, 2000)
        assert card.counter(0, "tx", "dropped") > 0
    assert card.listed()[0]["rate"]["max_tx"] == 1


def test_link_states(vnic: _Load) -> None:
    """`auto` follows the cable, `enable` and `disable` do not; the PF's own link does."""
    card = _make(vnic)
    netdev = card.vf_netdev(0)
    ip(f"link set dev {netdev} up")
    assert carrier(netdev)
    ip(f"link set dev {card.netdev} vf 0 state disable")
    assert not carrier(netdev)
    ip(f"link set dev {card.netdev} vf 0 state auto")
    with card.with_habits(cable=0):
        assert not carrier(netdev)
        assert not carrier(card.netdev)
        ip(f"link set dev {card.netdev} vf 0 state enable")
        assert carrier(netdev)
    assert card.listed()[0]["link_state"] == "enable"


def test_a_trusted_vf_hears_all(vnic: _Load) -> None:
    """A promiscuous VF gets frames for a foreign address with trust only."""
    card = _make(vnic)
    with stations(card.vf_netdev(0), card.vf_netdev(1)) as (first, second):
        ip(f"-n {second.name} link set dev {second.netdev} promisc on")
        own = first.mac()
        frame = bytes.fromhex("020000000bad") + own + b"\x88\xb5" + bytes(46)
        first.send(frame, _FRAMES)
        assert card.unicasts(1) == 0
        ip(f"link set dev {card.netdev} vf 1 trust on")
        first.send(frame, _FRAMES)
        assert card.unicasts(1) == _FRAMES


def test_a_wire_joins_cards(vnic: _Load) -> None:
    """VFs of one card reach VFs of another over it; an untagged one not those in a port VLAN."""
    first_card, second_card = vnic("ice:1,bnxt:1", wire=1)
    for card in (first_card, second_card):
        card.up()
        card.write_numvfs(1)
    with stations(first_card.vf_netdev(0), second_card.vf_netdev(0)) as (first, second):
        assert first.reaches(second)
        ip(f"link set dev {second_card.netdev} vf 0 vlan 5")
        assert not first.reaches(second)
        ip(f"link set dev {first_card.netdev} vf 0 vlan 5")
        assert first.reaches(second)
        ip(f"link set dev {first_card.netdev} vf 0 state enable")
        first_card.set_habits(cable=0)
        assert not first.reaches(second)


def test_a_frame_longer_than_the_mtu_is_dropped(vnic: _Load) -> None:
    """On arrival, as by a NIC."""
    card = _make(vnic)
    with stations(card.vf_netdev(0), card.vf_netdev(1)) as (first, second):
        ip(f"-n {first.name} link set dev {first.netdev} mtu 9000")
        ping = ["ping", "-q", "-c", "2", "-i", "0.2", "-W", "1", "-M", "do", "-s", "4000", "192.0.2.2"]
        assert first.run(*ping).returncode != 0
        ip(f"-n {second.name} link set dev {second.netdev} mtu 9000")
        assert first.run(*ping).returncode == 0
