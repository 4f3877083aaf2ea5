"""The rtnetlink client in network namespaces of this machine, with pyroute2, `ip` and C as oracles."""

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from pyroute2 import IPRoute

from sriovdp.errors import KernelError
from sriovdp.kernel import netns
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.requests import Requests

pytestmark = pytest.mark.netns
T = TypeVar("T")
NAMES = (f"rtnl-a-{os.getpid()}", f"rtnl-b-{os.getpid()}")


@pytest.fixture
def inside() -> Iterator[Callable[[Callable[[], T]], T]]:
    """Runs a function in a namespace with the bridge `br1`; another one is there to move it to."""
    for name in NAMES:
        subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(
        ["ip", "-n", NAMES[0], "link", "add", "br1", "address", "02:00:00:00:00:01", "type", "bridge"], check=True
    )
    fd = os.open(f"/run/netns/{NAMES[0]}", os.O_RDONLY)
    yield lambda function: netns.run_in(fd, function)
    os.close(fd)
    for name in NAMES:
        subprocess.run(["ip", "netns", "del", name], check=True)


def look(name: str, namespace: str = NAMES[0]) -> Any:
    """What `ip` says of an interface."""
    command = ["ip", "-n", namespace, "-j", "address", "show", "dev", name]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]


def test_links_are_those_of_pyroute2(inside: Any) -> None:
    """Each field of each interface."""
    subprocess.run(["ip", "-n", NAMES[0], "link", "property", "add", "dev", "br1", "altname", "other"], check=True)

    def compare() -> None:
        with Netlink() as netlink, IPRoute() as oracle:
            links = {link.ifindex: link for link in netlink.links()}
            expected = {link["index"]: link for link in oracle.get_links()}
            assert links.keys() == expected.keys()
            for index, link in links.items():
                attributes = {name: expected[index].get(f"IFLA_{name}") for name in ("IFNAME", "ADDRESS", "MTU")}
                assert attributes == {"IFNAME": link.name, "ADDRESS": link.mac, "MTU": link.mtu}
                assert link.flags == expected[index]["flags"]
                assert link == netlink.find(index) == netlink.find(link.name)
            assert netlink.find("other") == netlink.find("br1")
            found = netlink.find("br1")
            assert found
            assert (found.altnames, found.up, found.carrier, found.parent) == (("other",), False, None, "")

    inside(compare)


def test_missing_interface_is_none(inside: Any) -> None:
    """By name and by index; and it has no VFs."""

    def ask() -> tuple[object, ...]:
        with Netlink() as netlink:
            return netlink.find("nowhere"), netlink.find(4711), netlink.vf_settings(4711), netlink.find_with_vf(4711, 0)

    assert inside(ask) == (None, None, {}, None)


def test_interface_is_changed_in_one_request(inside: Any) -> None:
    """MTU, MAC and up; then down again."""

    def change(**attributes: Any) -> None:
        with Netlink() as netlink:
            link = netlink.find("br1")
            assert link
            netlink.set_link(link.ifindex, "changing br1", **attributes)

    inside(lambda: change(mtu=1400, address="02:00:00:00:00:02", state="up"))
    link = look("br1")
    assert (link["mtu"], link["address"], "UP" in link["flags"]) == (1400, "02:00:00:00:00:02", True)
    inside(lambda: change(state="down", flags=0x200, change=0x200))
    flags = look("br1")["flags"]
    assert ("UP" in flags, "ALLMULTI" in flags) == (False, True)


def test_interface_is_moved_and_renamed_in_one_request(inside: Any) -> None:
    """Out of one namespace, into the other under another name, also while it is up."""
    subprocess.run(["ip", "-n", NAMES[0], "link", "add", "v1", "type", "veth", "peer", "name", "v2"], check=True)
    subprocess.run(["ip", "-n", NAMES[0], "link", "set", "v1", "up"], check=True)
    target = os.open(f"/run/netns/{NAMES[1]}", os.O_RDONLY)

    def move() -> None:
        with Netlink() as netlink:
            link = netlink.find("v1")
            assert link
            netlink.set_link(link.ifindex, "moving v1", net_ns_fd=target, ifname="net1")

    inside(move)
    os.close(target)

    assert look("net1", NAMES[1])["ifname"] == "net1"


@pytest.mark.parametrize(("address", "prefix"), [("10.0.0.2/24", 24), ("fd00::2/64", 64)])
def test_address_is_added(inside: Any, address: str, prefix: int) -> None:
    """Both families; a second time is an error that says so."""

    def add() -> None:
        with Netlink() as netlink:
            link = netlink.find("br1")
            assert link
            netlink.add_address(link.ifindex, address, dad=False)

    inside(add)
    found = [(entry["local"], entry["prefixlen"]) for entry in look("br1")["addr_info"]]
    assert found == [(address.partition("/")[0], prefix)]
    with pytest.raises(KernelError, match=f"adding address {address} to br1 failed: File exists"):
        inside(add)


def test_addresses_are_those_of_pyroute2(inside: Any) -> None:
    """Of both families, with their flags, and of that interface only."""
    for address in ("10.0.0.2/24", "10.0.0.3/32", "fd00::2/64"):
        subprocess.run(["ip", "-n", NAMES[0], "address", "add", address, "dev", "br1"], check=True)
    peer = ["10.0.1.1", "peer", "10.0.1.2/32"]
    subprocess.run(["ip", "-n", NAMES[0], "address", "add", *peer, "dev", "br1"], check=True)
    subprocess.run(["ip", "-n", NAMES[0], "link", "set", "lo", "up"], check=True)

    def compare() -> None:
        with Netlink() as netlink, IPRoute() as oracle:
            for name, least in (("br1", 4), ("lo", 2)):
                link = netlink.find(name)
                assert link
                expected = [
                    f"{entry.get('IFA_LOCAL') or entry.get('IFA_ADDRESS')}/{entry['prefixlen']}"
                    for entry in oracle.get_addr(index=link.ifindex)
                ]
                assert list(netlink.addresses(link.ifindex)) == expected
                assert len(expected) >= least

    inside(compare)


def test_refusal_carries_the_errno_and_the_kernels_words(inside: Any) -> None:
    """What was tried, and the text of the extended acknowledgement where there is one."""

    def refuse() -> None:
        with Netlink() as netlink:
            link = netlink.find("br1")
            assert link
            netlink.set_link(link.ifindex, "setting MTU 7 of br1", mtu=7)

    with pytest.raises(
        KernelError, match=r"setting MTU 7 of br1 failed: Invalid argument \(mtu less than .*EINVAL"
    ) as told:
        inside(refuse)
    assert told.value.errno == 22


def test_altnames_come_and_go(inside: Any) -> None:
    """As `ip link property` has them; one that is taken or not there is an error with the interface's name."""

    def change() -> None:
        with Netlink() as netlink:
            link = netlink.find("br1")
            assert link
            for name in ("one", "two"):
                netlink.add_altname(link.ifindex, name)
            assert netlink.find("two") == netlink.find("br1")
            netlink.remove_altname(link.ifindex, "one")
            with pytest.raises(KernelError, match="adding altname two to br1 failed: File exists"):
                netlink.add_altname(link.ifindex, "two")
            with pytest.raises(KernelError, match="removing altname one of br1 failed"):
                netlink.remove_altname(link.ifindex, "one")

    inside(change)
    assert look("br1")["altnames"] == ["two"]


def test_routes_are_those_of_pyroute2(inside: Any) -> None:
    """Of both families and all tables, over several hops too, and by that interface only."""
    for command in (
        "address add 10.0.0.2/24 dev br1",
        "address add fd00::2/64 dev br1 nodad",
        "link set br1 up",
        "link set lo up",
        "route add 10.9.0.0/16 via 10.0.0.9 table 100",
        "route add default nexthop via 10.0.0.9 nexthop via 10.0.0.8",
        "-6 route add default via fd00::9",
    ):
        subprocess.run(["ip", "-n", NAMES[0], *command.split()], check=True)

    def compare() -> None:
        with Netlink() as netlink, IPRoute() as oracle:
            for name, least in (("br1", 8), ("lo", 3)):
                link = netlink.find(name)
                assert link
                found = [(r.destination.partition("/")[0], r.gateway, r.table) for r in netlink.routes(link.ifindex)]
                expected = [
                    (
                        route.get("RTA_DST") or ("0.0.0.0" if family == 2 else "::"),
                        route.get("RTA_GATEWAY"),
                        route.get("RTA_TABLE"),
                    )
                    for family in (2, 10)
                    for route in oracle.get_routes(family=family)
                    if link.ifindex in {route.get("RTA_OIF"), *(h["oif"] for h in route.get("RTA_MULTIPATH") or ())}
                ]
                assert found == expected
                assert len(found) >= least

    inside(compare)


def test_refused_settings_name_the_pf_and_the_vf(inside: Any) -> None:
    """A bridge has no VFs."""

    def refuse() -> None:
        with Netlink() as netlink:
            bridge = netlink.find("br1")
            assert bridge
            assert (netlink.vf_settings(bridge.ifindex), netlink.guids(bridge.ifindex)) == (None, {})
            assert netlink.find_with_vf("br1", 0) == (bridge, None, None)
            with pytest.raises(KernelError, match="setting trust True of br1 VF 1 failed: Operation not supported"):
                netlink.set_vf(bridge.ifindex, 1, {"trust": True})
            guid = "02:11:22:33:44:55:66:77"
            with pytest.raises(KernelError, match=f"setting the node GUID of br1 VF 1 to {guid} failed: Operation not"):
                netlink.set_guids(bridge.ifindex, 1, guid)

    inside(refuse)


def test_permanent_mac_is_the_nics() -> None:
    """Where the driver reports one. Interfaces come and go on this machine meanwhile."""
    with Netlink() as netlink, IPRoute() as oracle:
        expected = {link["index"]: link.get("IFLA_PERM_ADDRESS") or "" for link in oracle.get_links()}
        found = {link.ifindex: link.permanent_mac for link in netlink.links()}
    both = found.keys() & expected.keys()
    assert 1 in both  # lo
    assert {index: found[index] for index in both} == {index: expected[index] for index in both}


def test_a_busy_device_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while; another refusal is reported at once."""
    answers = [errno.EBUSY, errno.EAGAIN, 0]

    def refuse(*_: object) -> None:
        if number := answers.pop(0):
            raise KernelError("it is busy", errno=number)

    monkeypatch.setattr(Requests, "ask", refuse)
    with Netlink(3600) as netlink:
        netlink.set_vf(7, 3, {"trust": True})
        assert answers == []
        answers += [errno.EPERM, 0]
        with pytest.raises(KernelError):
            netlink.set_vf(7, 3, {"trust": True})
        assert answers == [0]
    answers[:] = [errno.EBUSY, 0]
    with Netlink(-1.0) as netlink, pytest.raises(KernelError, match=r"it is busy \(EBUSY\) \(tried for 0 s\)"):
        netlink.set_vf(7, 3, {"trust": True})
