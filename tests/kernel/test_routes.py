"""Which interfaces carry the host's default route: on this machine's own /proc and on texts of it."""

import socket
from pathlib import Path

from pyroute2 import IPRoute

from sriovdp.kernel.routes import is_of_host, list_default_routes, list_stack
from sriovdp.kernel.sysfs import Folder

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
    assert list_default_routes(tmp_path) == {"eth0", "eth2"}
    assert list_default_routes(tmp_path / "none") == frozenset()


def test_default_routes_of_this_machine_are_those_of_rtnetlink() -> None:
    """The files of /proc/net say the same as a route dump."""
    with IPRoute() as route:
        indices = {entry.get("RTA_OIF") for entry in route.get_default_routes(table=254)}
    assert list_default_routes() == {socket.if_indextoname(index) for index in indices if index}


def test_bonds_and_vlans_are_on_top_of_the_nic(tmp_path: Path) -> None:
    """enp1s0 is in bond0, and VLAN bond0.5 is on that."""
    (tmp_path / "enp1s0/upper_bond0").mkdir(parents=True)
    (tmp_path / "bond0/upper_bond0.5").mkdir(parents=True)
    assert list(list_stack(Folder(str(tmp_path)), "enp1s0")) == ["enp1s0", "bond0", "bond0.5"]
    assert list(list_stack(Folder(str(tmp_path)), "enp2s0")) == ["enp2s0"]


def test_a_link_local_address_is_nobodys_choice() -> None:
    """The kernel gives every interface one that is up."""
    assert not is_of_host(["fe80::1/64", "169.254.3.4/16"])
    assert is_of_host(["fe80::1/64", "10.0.0.2/24"])
