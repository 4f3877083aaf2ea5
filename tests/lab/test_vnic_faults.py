"""`sriovdp apply` on the software NIC while drivers are slow, busy or in reset, and while cards are pulled out.

Each time another apply, or a reset, then ends where it should.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from sriovdp.config.file import parse
from sriovdp.config.values import Config
from sriovdp.errors import DeviceError, SriovdpError, VerifyError
from sriovdp.kernel import drivers
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs, write_text
from sriovdp.node.inventory import take_snapshot
from sriovdp.node.slow_lists import SlowLists
from sriovdp.provision import change
from sriovdp.provision.apply import apply, survey
from sriovdp.provision.reset import reset
from sriovdp.state.journal import Journal
from sriovdp.state.provisioned import survey_records
from tests.fakes.runtime import CniFailureError, Plugin, make_sandboxes
from tests.lab.vnic_cards import Card, ip, run, wait_for

pytestmark = pytest.mark.lab(pfs=0, vnic="ice:4")
shares_boot = True

_Load = Callable[..., list[Card]]
_SYSFS = Sysfs()
_RESETS = "enable_reset_ms=300/set_reset_ms=100/reset_wait_ms=20/list_waits=0"


def make_config(count: int, driver: str = "kernel", **keys: Any) -> Config:
    """So many VFs of the only card, with VLAN 7 and trust."""
    wishes = {"vlan": 7, "trust": "true", "driver": driver} | keys
    listed = ", ".join(f"{key}: {value}" for key, value in wishes.items())
    vfs = f"vfs: [{{range: 0-{count - 1}, {listed}}}]" if count else "vfs: []"
    return parse(
        f"physicalFunctions: [{{select: {{vendors: ['8086', '14e4', '15b3']}}, numVfs: {count}, {vfs}}}]", "test"
    )


TWO = make_config(2)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    return Journal(tmp_path / "journal")


def check(card: Card, count: int = 2) -> None:
    """The VFs are as TWO says, by `ip` and sysfs; nothing is left over."""
    vfs = wait_for(lambda: len(found := card.listed()) == count and found)
    assert {(vf["vlan_list"][0]["vlan"], vf["trust"]) for vf in vfs.values()} == {(7, True)}
    for index in range(count):
        assert (card.vf(index) / "driver").readlink().name == "iavf"
        mac = Path(f"/sys/class/net/{card.vf_netdev(index)}/address").read_text().strip()
        assert mac == vfs[index]["address"]
        assert (card.vf(index) / "driver_override").read_text().strip() == "(null)"
    assert (card.pf / "sriov_drivers_autoprobe").read_text().strip() == "1"


@contextmanager
def counting(at: int, event: Callable[[], None]) -> Iterator[Callable[[], int]]:
    """Let `event` happen right before the change of that number; gives how many changes came from then on."""
    left = [at]

    def guard(function: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **keywords: Any) -> Any:
            left[0] -= 1
            if left[0] == -1:
                event()
            return function(*arguments, **keywords)

        return guarded

    places: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
        (change, "write_text", write_text),
        (drivers, "write_text", write_text),
        (Journal, "write_pf", Journal.write_pf),
        (Netlink, "set_vf", Netlink.set_vf),
        (Netlink, "set_link", Netlink.set_link),
    )
    with ExitStack() as stack:
        for place, name, function in places:
            stack.enter_context(mock.patch.object(place, name, guard(function)))
        yield lambda: max(0, -left[0])


def _apply_and_die(journal: Journal, at: int) -> bool:
    """Whether it was killed before the end."""
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"apply failed: {status}"
        return os.WIFSIGNALED(status)
    with suppress(BaseException), counting(at, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        apply(TWO, _SYSFS, journal)
        os._exit(0)
    os._exit(1)


def test_a_kill_at_any_change_while_vfs_are_in_reset(vnic: _Load, journal: Journal) -> None:
    """VFs are in reset after they were made and after each setting, and the list leaves them out meanwhile."""
    (card,) = vnic(f"ice:4/{_RESETS}")
    for at in range(60):
        killed = _apply_and_die(journal, at)
        apply(TWO, _SYSFS, journal)
        check(card)
        reset(_SYSFS, journal)
        assert card.numvfs() == 0
        if not killed:
            assert at > 12
            return
    pytest.fail("there are more changes than were thought of")


def test_a_card_that_is_pulled_at_any_change(vnic: _Load, journal: Journal) -> None:
    """The first error is reported, and nothing is claimed of a PF that is gone. Its record serves when it is back."""
    (card,) = vnic("ice:4")
    for at in range(60):
        errors: list[str] = []
        with counting(at, card.pull) as happened:
            try:
                apply(TWO, _SYSFS, journal)
            except SriovdpError as error:
                errors.append(str(error))
        if not happened():
            assert at > 12
            check(card)
            break
        if errors:
            assert "as it was" not in errors[0], errors[0]
            gone = "is gone, and nothing was undone; its record is kept", "this PF is gone"
            assert any(text in errors[0] for text in gone), errors[0]
        else:  # all was read back, and only the record's end was left to be written
            [record] = survey_records(journal)[0].values()
            assert (happened(), record.phase) == (1, "done"), f"pulled before change {at}: apply says that all is well"
        card.plug()
        assert card.netdev
        apply(TWO, _SYSFS, journal)
        check(card)
        card.pull()
        card.plug()
        assert card.netdev
    else:
        pytest.fail("there are more changes than were thought of")
    reset(_SYSFS, journal)
    assert (card.numvfs(), survey_records(journal)[0]) == (0, {})


def test_a_card_that_is_pulled_while_it_is_brought_back(vnic: _Load, journal: Journal) -> None:
    """By undo and by reset: the record is kept, and `reset --force` removes that of a card that never comes back."""
    (card,) = vnic("ice:4/trust_errno=22")
    done = 0
    for at in range(8, 40, 2):
        with counting(at, card.pull) as happened, pytest.raises(SriovdpError) as caught:
            apply(TWO, _SYSFS, journal)
        if not happened():
            break
        done += 1
        assert "trust" not in str(caught.value) or "is gone" in str(caught.value)
        assert "as it was" not in str(caught.value)
        card.plug()
        assert card.netdev
        reset(_SYSFS, journal)
    assert done
    card.set_habits(trust_errno=0)
    apply(TWO, _SYSFS, journal)
    with counting(1, card.pull), pytest.raises(SriovdpError, match=r"the record of .* is kept"):
        reset(_SYSFS, journal)
    told: list[str] = []
    reset(_SYSFS, journal, told.append)
    assert any("this PF is gone; its record is kept" in line for line in told)
    reset(_SYSFS, journal, told.append, force=True, only=[card.address])
    assert survey_records(journal)[0] == {}
    card.plug()


def test_a_netdev_that_never_comes(vnic: _Load, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this apply made is not used by another network namespace: it is removed again."""
    monkeypatch.setattr(change, "_NETDEV_PATIENCE", 1.0)
    (card,) = vnic("ice:4/netdev_never=1")
    with pytest.raises(DeviceError, match=r"VF 0 \(.*\): no netdev 1 s after .* was brought back") as caught:
        apply(TWO, _SYSFS, journal)
    assert "network namespace" not in str(caught.value)
    assert (card.numvfs(), survey_records(journal)[0]) == (0, {})


def test_whose_netdev_is_elsewhere(vnic: _Load, journal: Journal) -> None:
    """In another namespace it is used; a driver that has not made it yet is no user."""
    (card,) = vnic("ice:4/netdev_never=1")
    card.up()
    card.write_numvfs(2)
    assert (card.vf(0) / "driver").readlink().name == "iavf"
    assert survey(make_config(0), _SYSFS, journal)[1] == {}
    card.write_numvfs(0)
    card.set_habits(netdev_never=0)
    card.write_numvfs(2)
    with make_sandboxes() as create:
        pod = create("pod")
        netdev = card.vf_netdev(1)
        ip(f"link set dev {netdev} netns {pod.name}")
        ((obstacle,),) = survey(make_config(0), _SYSFS, journal)[1].values()
        assert f"{card.netdev} VF 1 ({card.vf(1).name}) is used by another network namespace" in obstacle
        assert pod.run("ip", "link", "set", "dev", netdev, "netns", "1").returncode == 0
    card.write_numvfs(0)


@pytest.mark.parametrize("number", [16, 11])
def test_vfs_that_are_busy_for_long(vnic: _Load, journal: Journal, number: int) -> None:
    """EBUSY and EAGAIN for longer than the 2 s that a setting had once."""
    (card,) = vnic(f"ice:4/enable_reset_ms=4000/reset_wait_ms=0/reset_errno={number}/list_waits=0")
    apply(TWO, _SYSFS, journal)
    check(card)


def test_a_stuck_vf_is_said_and_does_not_stop_the_others(
    vnic: _Load, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other card is done; the error has the VF and the kernel's reason. Then the VF is well again."""
    monkeypatch.setattr(change, "_BUSY_PATIENCE", 2.0)
    stuck, other = vnic("ice:4/stuck_vf=1/reset_wait_ms=20,ice:4")
    with pytest.raises(SriovdpError, match=r"VF 1 .*EBUSY.*tried for .* was brought back"):
        apply(TWO, _SYSFS, journal)
    check(other)
    assert stuck.numvfs() == 0
    stuck.set_habits(stuck_vf=-1)
    apply(TWO, _SYSFS, journal)
    check(stuck)


def test_a_slow_list_is_not_read_again_and_again(vnic: _Load) -> None:
    """A look waits for ice once; the next ones take what was there, and RTNL is free."""
    (card,) = vnic("ice:4/reset_wait_ms=800")
    card.up()
    card.write_numvfs(3)
    lists = SlowLists()
    take_snapshot(_SYSFS, lists)
    with card.with_habits(stuck_vf=1):
        assert [vf.settings is None for vf in take_snapshot(_SYSFS, lists).pfs[0].vfs] == [False, True, False]
        with mock.patch.object(Netlink, "vf_settings", side_effect=AssertionError):
            take_snapshot(_SYSFS, lists)
    lists.forget()
    assert [vf.settings is None for vf in take_snapshot(_SYSFS, lists).pfs[0].vfs] == [False] * 3
    card.write_numvfs(0)


def test_a_pf_that_is_down(vnic: _Load, journal: Journal) -> None:
    """bnxt_en then ignores the number, and says success: removing VFs is an error with what to do."""
    (card,) = vnic("bnxt:4")
    apply(make_config(2, "none"), _SYSFS, journal)
    ip(f"link set dev {card.netdev} down")
    said = rf"accepted sriov_numvfs 0, but there are 2 VFs: {card.netdev} is down.*ip link set {card.netdev} up"
    with pytest.raises(VerifyError, match=said):
        apply(make_config(0), _SYSFS, journal)
    with pytest.raises(VerifyError, match=said):
        reset(_SYSFS, journal)
    ip(f"link set dev {card.netdev} up")
    reset(_SYSFS, journal)
    assert card.numvfs() == 0


def test_a_number_that_is_ignored(vnic: _Load, journal: Journal) -> None:
    """Of the VFs that a virtual machine has, for one: each write of the number is read back."""
    (card,) = vnic("ice:4/keep_vfs=1")
    apply(make_config(2, "none"), _SYSFS, journal)
    for count in (3, 0):
        with pytest.raises(VerifyError, match="accepted sriov_numvfs 0, but there are 2 VFs"):
            apply(make_config(count, "none"), _SYSFS, journal)
    card.set_habits(keep_vfs=0)
    apply(make_config(3, "none"), _SYSFS, journal)
    assert card.numvfs() == 3


def test_a_vf_in_reset_is_not_attached(vnic: _Load, tmp_path: Path) -> None:
    """Its settings would not be set back at DEL: the runtime is to try again. Then all is as on any day."""
    (card,) = vnic("ice:4")
    card.up()
    card.write_numvfs(2)
    assert card.set_vf(1, "vlan 5") == ""
    plugin = Plugin(tmp_path)
    network = {"cniVersion": "1.0.0", "name": "a", "type": "sriov", "deviceID": card.vf(1).name}
    before = card.listed()
    with make_sandboxes() as create:
        pod = create("pod")
        for keys in ({}, {"vlan": 7}):
            with (
                card.with_habits(hidden_vf=1),
                pytest.raises(CniFailureError, match=r"VF 1 .*cannot be read") as caught,
            ):
                plugin.add(pod, network | keys)
            assert (caught.value.code, plugin.attachments()) == (11, [])
        plugin.add(pod, network | {"vlan": 7})
        with card.with_habits(hidden_vf=1), suppress(CniFailureError):
            plugin.delete(pod, network | {"vlan": 7})
            assert plugin.attachments() != []
        plugin.delete(pod, network | {"vlan": 7})
    assert (card.listed(), plugin.attachments()) == (before, [])
    card.write_numvfs(0)


def test_128_vfs_with_vlans_are_read_whole(vnic: _Load, journal: Journal) -> None:
    """Settings of each, as `ip` has them."""
    (card,) = vnic("ice:128")
    apply(make_config(128, "none"), _SYSFS, journal)
    vfs = take_snapshot(_SYSFS).pfs[0].vfs
    assert [(vf.settings.vlan, vf.settings.trust) if vf.settings else None for vf in vfs] == [(7, True)] * 128
    listed = {index: vf["address"] for index, vf in card.listed().items()}
    assert {vf.index: vf.settings.mac for vf in vfs if vf.settings} == listed
    assert run("ip", "link", "show", "dev", card.netdev).returncode == 0
    reset(_SYSFS, journal)
