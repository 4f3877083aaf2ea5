"""Who holds a device node, and who has the default route: on this machine's own /proc and on texts of it."""

import errno
import os
import socket
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from sriovdp.provision.uplinks import carries_route, default_route_devices
from sriovdp.provision.usage import _find_holder, _is_busy

ROUTE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
ROUTE6 = f"""{"0" * 32} 00 {"0" * 32} 00 fd{"0" * 29}1 00000400 00000001 00000000 00000003     eth2
{"0" * 32} 00 {"0" * 32} 00 {"0" * 32} ffffffff 00000001 00000000 00200200       lo
fe80{"0" * 28} 40 {"0" * 32} 00 {"0" * 32} 00000100 00000001 00000000 00000001     eth3
"""


def test_default_routes_of_both_families_are_found(tmp_path: Path) -> None:
    """v4 and v6, neither other routes nor the reject route on lo."""
    (tmp_path / "route").write_text(ROUTE)
    (tmp_path / "ipv6_route").write_text(ROUTE6)
    assert default_route_devices(tmp_path) == {"eth0", "eth2"}
    assert default_route_devices(tmp_path / "none") == frozenset()


def test_default_routes_of_this_machine_are_those_of_rtnetlink() -> None:
    """The files of /proc/net say the same as a route dump."""
    with IPRoute() as route:
        indices = {entry.get("RTA_OIF") for entry in route.get_default_routes(table=254)}
    assert default_route_devices() == {socket.if_indextoname(index) for index in indices if index}


def test_a_route_over_a_bond_or_vlan_counts_for_the_nic(tmp_path: Path) -> None:
    """enp1s0 is in bond0, and VLAN bond0.5 has the route."""
    (tmp_path / "enp1s0/upper_bond0").mkdir(parents=True)
    (tmp_path / "bond0/upper_bond0.5").mkdir(parents=True)
    assert carries_route(tmp_path, "enp1s0", frozenset({"bond0.5"}))
    assert not carries_route(tmp_path, "enp2s0", frozenset({"bond0.5"}))


def test_the_process_that_has_a_device_open_is_named() -> None:
    """By the device's number: another path to the same device is the same device."""
    master, slave = os.openpty()
    try:
        assert (
            _find_holder(Path(os.ttyname(slave)))
            == f"process {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"
        )
    finally:
        os.close(master)
        os.close(slave)
    assert _find_holder(Path("/dev/there-is-no-such-device")) is None


def test_a_group_that_nobody_has_is_free(tmp_path: Path) -> None:
    """A file that can be opened, and one that is not there, are not busy."""
    (tmp_path / "12").touch()
    assert not _is_busy(tmp_path / "12")
    assert not _is_busy(tmp_path / "13")


def test_a_group_that_answers_ebusy_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that error means a user; without the right to open it, nothing is known."""
    for number, busy in ((errno.EBUSY, True), (errno.EACCES, False), (errno.ENODEV, False)):
        monkeypatch.setattr(os, "open", lambda *_, number=number: _raise(OSError(number, "no")))
        assert _is_busy(Path("/dev/vfio/12")) is busy


def _raise(error: OSError) -> None:
    raise error
