"""Each habit of the software NIC, as `tests/lab/vnic/habits.h` describes it with the driver that it comes from."""

import errno
import os
import threading
import time
from collections.abc import Callable

import pytest

from tests.lab.vnic_cards import Card, carrier, ip, netdevs_of, run, wait_for

pytestmark = pytest.mark.lab(pfs=0, vnic="ice:4")

_Load = Callable[..., list[Card]]
_LONG = 1000000  # ms; the test ends it
_MAC = "02:00:00:00:00:0a"


def _make(vnic: _Load, cards: str, count: int = 2) -> Card:
    (card,) = vnic(cards)
    card.up()
    card.write_numvfs(count)
    return card


def _errors(card: Card, *settings: str) -> list[str]:
    """How the kernel answers settings of VF 0: its word for the error, "" for success."""
    return [card.set_vf(0, setting).partition("answers: ")[2] for setting in settings]


def _word(number: int) -> str:
    return os.strerror(number)


def test_a_write_of_numvfs_takes_long(vnic: _Load) -> None:
    """As long as it is on, sysfs has no VFs."""
    (card,) = vnic(f"mlx5:2/numvfs_ms={_LONG}")
    writer = threading.Thread(target=card.write_numvfs, args=(2,))
    writer.start()
    time.sleep(0.5)
    assert writer.is_alive()
    assert not (card.pf / "virtfn0").exists()
    card.set_habits(numvfs_ms=0)
    writer.join()
    assert card.numvfs() == 2


def test_a_write_of_numvfs_fails(vnic: _Load) -> None:
    """With the driver's error."""
    (card,) = vnic(f"ice:2/numvfs_errno={errno.EOPNOTSUPP}")
    with pytest.raises(OSError, match=_word(errno.EOPNOTSUPP)):
        card.write_numvfs(2)
    card.set_habits(numvfs_errno=0)
    card.write_numvfs(2)
    assert card.numvfs() == 2


def test_bnxt_ignores_numvfs_while_its_pf_is_down(vnic: _Load) -> None:
    """The write succeeds and nothing happens, for 0 as well."""
    (card,) = vnic("bnxt:2")
    card.write_numvfs(2)
    assert card.numvfs() == 0
    card.up()
    card.write_numvfs(2)
    assert card.numvfs() == 2
    ip(f"link set dev {card.netdev} down")
    card.write_numvfs(0)
    assert card.numvfs() == 2


def test_numvfs_is_ignored_or_not_met(vnic: _Load) -> None:
    """Firmware in reset, too few resources, VFs that are in use."""
    (card,) = vnic("ice:4")
    with card.with_habits(numvfs_ignored=1):
        card.write_numvfs(4)
        assert card.numvfs() == 0
    with card.with_habits(numvfs_at_most=3):
        card.write_numvfs(4)
        assert card.numvfs() == 3
    with card.with_habits(keep_vfs=1):
        card.write_numvfs(0)
        assert card.numvfs() == 3


def test_the_pf_loses_its_link_when_vfs_are_made(vnic: _Load) -> None:
    """And finds it again."""
    card = _make(vnic, f"ice:2/carrier_loss_ms={_LONG}")
    assert not carrier(card.netdev)
    card.set_habits(carrier_loss_ms=0)
    wait_for(lambda: carrier(card.netdev))


def test_vfs_are_in_reset_when_they_are_made(vnic: _Load) -> None:
    """They are neither listed nor set, until it is over."""
    card = _make(vnic, f"ice:2/enable_reset_ms={_LONG}/reset_wait_ms=0")
    assert card.listed() == {}
    assert _errors(card, "trust on") == [_word(errno.EBUSY)]
    card.set_habits(enable_reset_ms=0)
    assert set(card.listed()) == {0, 1}
    assert _errors(card, "trust on") == [""]


def test_the_netdev_of_a_vf_is_late(vnic: _Load) -> None:
    """Its driver is bound meanwhile."""
    card = _make(vnic, f"mlx5:1/netdev_ms={_LONG}", 1)
    assert (card.vf(0) / "driver").exists()
    assert netdevs_of(card.vf(0)) == {}
    card.set_habits(netdev_ms=0)
    assert card.vf_netdev(0)


def test_a_vf_has_two_netdevs(vnic: _Load) -> None:
    """Told from each other by their `dev_port`."""
    card = _make(vnic, "mlx5:1/netdevs=2", 1)
    assert set(netdevs_of(card.vf(0))) == {"0", "1"}


def test_the_netdev_of_a_vf_never_appears(vnic: _Load) -> None:
    """The driver is bound all the same."""
    card = _make(vnic, "mlx5:1/netdev_never=1", 1)
    assert (card.vf(0) / "driver").exists()
    assert netdevs_of(card.vf(0)) == {}


def test_the_netdev_of_a_pf_is_late(vnic: _Load) -> None:
    """As that of idpf."""
    (card,) = vnic(f"idpf:2/pf_netdev_ms={_LONG}")
    assert netdevs_of(card.pf) == {}
    card.set_habits(pf_netdev_ms=0)
    assert card.netdev


def test_a_new_netdev_is_busy(vnic: _Load) -> None:
    """It refuses to come up, and takes neither address nor MTU, for a while."""
    card = _make(vnic, f"ice:1/netdev_busy_ms={_LONG}", 1)
    netdev = card.vf_netdev(0)
    for words in ("up", f"address {_MAC}", "mtu 1400"):
        assert _word(errno.EBUSY) in run("ip", "link", "set", "dev", netdev, *words.split()).stderr
    card.set_habits(netdev_busy_ms=0)
    ip(f"link set dev {netdev} up")


def test_a_setting_resets_the_vf(vnic: _Load) -> None:
    """The VF loses its link and is not listed; the next setting waits in the kernel until it is over."""
    card = _make(vnic, f"ice:1/set_reset_ms={_LONG}/reset_wait_ms={_LONG}", 1)
    netdev = card.vf_netdev(0)
    ip(f"link set dev {netdev} up")
    assert _errors(card, "trust on") == [""]
    assert not carrier(netdev)
    answers: list[str] = []
    setter = threading.Thread(target=lambda: answers.extend(_errors(card, "vlan 5")))
    setter.start()
    time.sleep(0.5)
    assert setter.is_alive()
    card.set_habits(set_reset_ms=0)
    setter.join()
    assert answers == [""]
    wait_for(lambda: carrier(netdev))


@pytest.mark.parametrize(("profile", "number", "listed"), [("ice", errno.EBUSY, {1}), ("i40e", errno.EAGAIN, {0, 1})])
def test_a_vf_is_stuck_in_reset(vnic: _Load, profile: str, number: int, listed: set[int]) -> None:
    """Each driver has its own error; ice leaves the VF out of the list, after a wait for each look."""
    card = _make(vnic, f"{profile}:2/stuck_vf=0")
    assert set(card.listed()) == listed
    assert _errors(card, f"mac {_MAC}", "trust on") == [_word(number)] * 2
    card.set_habits(stuck_vf=-1)
    assert _errors(card, f"mac {_MAC}") == [""]
    assert set(card.listed()) == {0, 1}


def test_the_list_of_ice_stalls_for_a_vf_in_reset(vnic: _Load) -> None:
    """800 ms for each such VF, under RTNL."""
    card = _make(vnic, "ice:1/stuck_vf=0", 1)
    started = time.monotonic()
    card.listed()
    assert time.monotonic() - started >= 0.8


def test_other_operations_are_pending(vnic: _Load) -> None:
    """i40e answers EAGAIN to what comes meanwhile, settings and list alike."""
    card = _make(vnic, "i40e:2")
    card.set_habits(pending=1)
    assert _errors(card, "trust on", "trust on") == [_word(errno.EAGAIN), ""]
    card.set_habits(list_pending=1000)  # one alone is missed: `ip` reads the list more than once
    assert set(card.listed()) == set()
    card.set_habits(list_pending=0)
    assert set(card.listed()) == {0, 1}


def test_a_vf_is_left_out_of_the_list(vnic: _Load) -> None:
    """Silently."""
    card = _make(vnic, "mlx5:3/hidden_vf=1", 3)
    assert set(card.listed()) == {0, 2}


def test_the_e_switch_is_another_hosts(vnic: _Load) -> None:
    """EPERM for every setting, and a list without any VF."""
    card = _make(vnic, "mlx5:2/no_manager=1")
    assert card.listed() == {}
    assert _errors(card, f"mac {_MAC}", "vlan 5", "trust on") == [_word(errno.EPERM)] * 3


def test_octeontx2_sets_nothing_while_its_pf_is_down(vnic: _Load) -> None:
    """EAGAIN; and it has neither rate, spoofchk, link state nor a zero MAC."""
    (card,) = vnic("octeontx2:1")
    card.write_numvfs(1)
    assert _errors(card, f"mac {_MAC}", "vlan 5") == [_word(errno.EAGAIN)] * 2
    card.up()
    assert _errors(
        card, f"mac {_MAC}", "vlan 5", "mac 00:00:00:00:00:00", "max_tx_rate 10", "spoofchk on", "state enable"
    ) == ["", "", _word(errno.EINVAL), *[_word(errno.EOPNOTSUPP)] * 3]
    assert "spoofchk" not in card.listed()[0]


@pytest.mark.parametrize(
    ("habit", "setting"),
    [
        ("mac_errno", f"mac {_MAC}"),
        ("vlan_errno", "vlan 5"),
        ("rate_errno", "max_tx_rate 10"),
        ("min_rate_errno", "min_tx_rate 10"),
        ("spoofchk_errno", "spoofchk off"),
        ("trust_errno", "trust on"),
        ("link_errno", "state enable"),
    ],
)
def test_a_setting_is_refused(vnic: _Load, habit: str, setting: str) -> None:
    """Each with the error that it is given."""
    card = _make(vnic, f"ice:1/{habit}={errno.EPERM}", 1)
    assert _errors(card, setting) == [_word(errno.EPERM)]
    card.set_habits(**{habit: 0})
    assert _errors(card, setting) == [""]


def test_idpf_has_no_settings(vnic: _Load) -> None:
    """No list, and EOPNOTSUPP for each setting."""
    card = _make(vnic, "idpf:2")
    assert card.listed() == {}
    assert _errors(card, f"mac {_MAC}", "vlan 5", "trust on") == [_word(errno.EOPNOTSUPP)] * 3


def test_limits_of_vlans_and_rates(vnic: _Load) -> None:
    """802.1ad, a priority without VLAN, a rate without link, a minimum: by driver."""
    card = _make(vnic, "bnxt:1", 1)
    assert _errors(card, "vlan 5 proto 802.1ad", "vlan 0 qos 3", "max_tx_rate 10") == [
        _word(errno.EPROTONOSUPPORT), _word(errno.EINVAL), "",
    ]  # fmt: skip
    card.set_habits(cable=0, vlan_ad=1)
    assert _errors(card, "vlan 5 proto 802.1ad", "max_tx_rate 20") == ["", _word(errno.EINVAL)]
    assert _errors(_make(vnic, "i40e:1", 1), "min_tx_rate 10", "vlan 0 qos 3") == [_word(errno.EINVAL), ""]


@pytest.mark.parametrize(
    ("profile", "at_once", "when_up"), [("ice", True, True), ("bnxt", False, True), ("mlx5", False, False)]
)
def test_when_a_bound_vf_takes_its_mac(vnic: _Load, profile: str, at_once: bool, when_up: bool) -> None:
    """At once, when it comes up, or when its driver is bound."""
    card = _make(vnic, f"{profile}:1", 1)
    netdev = card.vf_netdev(0)
    assert _errors(card, f"mac {_MAC}") == [""]
    assert (_mac(netdev) == _MAC) == at_once
    ip(f"link set dev {netdev} up")
    assert (_mac(netdev) == _MAC) == when_up
    vf = card.vf(0)
    (vf / "driver/unbind").write_text(vf.name)
    run("sh", "-c", f"echo {vf.name} >/sys/bus/pci/drivers_probe")
    assert _mac(card.vf_netdev(0)) == _MAC


@pytest.mark.parametrize(("profile", "number"), [("ice", errno.EACCES), ("bnxt", errno.EADDRNOTAVAIL), ("mlx5", 0)])
def test_a_vf_chooses_its_own_mac(vnic: _Load, profile: str, number: int) -> None:
    """As long as the PF gave it none, or it is trusted; mlx5 always may."""
    card = _make(vnic, f"{profile}:1", 1)
    netdev, own = card.vf_netdev(0), "02:00:00:00:00:0b"
    assert run("ip", "link", "set", "dev", netdev, "address", own).returncode == 0
    assert card.listed()[0]["address"] == ("00:00:00:00:00:00" if profile == "mlx5" else own)
    assert _errors(card, f"mac {_MAC}") == [""]
    done = run("ip", "link", "set", "dev", netdev, "address", "02:00:00:00:00:0c")
    assert (done.returncode == 0) == (number == 0)
    assert number == 0 or _word(number) in done.stderr
    assert _errors(card, "trust on") == [""]
    assert run("ip", "link", "set", "dev", netdev, "address", "02:00:00:00:00:0d").returncode == 0


def _mac(netdev: str) -> str:
    return run("cat", f"/sys/class/net/{netdev}/address").stdout.strip()
