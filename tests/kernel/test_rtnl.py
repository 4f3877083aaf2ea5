"""The lean rtnetlink messages, in network namespaces of this machine, with pyroute2 and `ip` as oracles."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from pyroute2 import IPRoute

from sriovdp.errors import KernelError
from sriovdp.kernel import netns
from sriovdp.kernel.rtnl import Rtnl

pytestmark = pytest.mark.netns
T = TypeVar("T")
NAMES = ("rtnl-a", "rtnl-b")


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
        with Rtnl() as rtnl, IPRoute() as oracle:
            links = {link.ifindex: link for link in rtnl.links()}
            expected = {link["index"]: link for link in oracle.get_links()}
            assert links.keys() == expected.keys()
            for index, link in links.items():
                attributes = {name: expected[index].get(f"IFLA_{name}") for name in ("IFNAME", "ADDRESS", "MTU")}
                assert attributes == {"IFNAME": link.name, "ADDRESS": link.mac, "MTU": link.mtu}
                assert link.flags == expected[index]["flags"]
                assert link == rtnl.find(index) == rtnl.find(link.name)
            assert rtnl.find("other") == rtnl.find("br1")
            found = rtnl.find("br1")
            assert found
            assert (found.altnames, found.up, found.carrier, found.parent) == (("other",), False, None, "")

    inside(compare)


def test_missing_interface_is_none(inside: Any) -> None:
    """By name and by index; and it has no VFs."""

    def ask() -> tuple[object, ...]:
        with Rtnl() as rtnl:
            return rtnl.find("nowhere"), rtnl.find(4711), rtnl.vf_settings(4711, 0)

    assert inside(ask) == (None, None, None)


def test_interface_is_changed_in_one_request(inside: Any) -> None:
    """MTU, MAC and up; then down again."""

    def change(**attributes: Any) -> None:
        with Rtnl() as rtnl:
            link = rtnl.find("br1")
            assert link
            rtnl.set_link(link.ifindex, "changing br1", **attributes)

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
        with Rtnl() as rtnl:
            link = rtnl.find("v1")
            assert link
            rtnl.set_link(link.ifindex, "moving v1", net_ns_fd=target, ifname="net1")

    inside(move)
    os.close(target)

    assert look("net1", NAMES[1])["ifname"] == "net1"


@pytest.mark.parametrize(("address", "prefix"), [("10.0.0.2/24", 24), ("fd00::2/64", 64)])
def test_address_is_added(inside: Any, address: str, prefix: int) -> None:
    """Both families; a second time is an error that says so."""

    def add() -> None:
        with Rtnl() as rtnl:
            link = rtnl.find("br1")
            assert link
            rtnl.add_address(link.ifindex, address, dad=False)

    inside(add)
    found = [(entry["local"], entry["prefixlen"]) for entry in look("br1")["addr_info"]]
    assert found == [(address.partition("/")[0], prefix)]
    with pytest.raises(KernelError, match=f"adding address {address} failed: File exists"):
        inside(add)


def test_addresses_are_those_of_pyroute2(inside: Any) -> None:
    """Of both families, with their flags, and of that interface only."""
    for address in ("10.0.0.2/24", "10.0.0.3/32", "fd00::2/64"):
        subprocess.run(["ip", "-n", NAMES[0], "address", "add", address, "dev", "br1"], check=True)
    subprocess.run(["ip", "-n", NAMES[0], "link", "set", "lo", "up"], check=True)

    def compare() -> None:
        with Rtnl() as rtnl, IPRoute() as oracle:
            for name, least in (("br1", 3), ("lo", 2)):
                link = rtnl.find(name)
                assert link
                expected = [
                    (f"{entry.get('IFA_ADDRESS')}/{entry['prefixlen']}", entry.get("IFA_FLAGS"))
                    for entry in oracle.get_addr(index=link.ifindex)
                ]
                assert [(address.text, address.flags) for address in rtnl.addresses(link.ifindex)] == expected
                assert len(expected) >= least

    inside(compare)


def test_refusal_carries_the_errno_and_the_kernels_words(inside: Any) -> None:
    """What was tried, and the text of the extended acknowledgement where there is one."""

    def refuse() -> None:
        with Rtnl() as rtnl:
            link = rtnl.find("br1")
            assert link
            rtnl.set_link(link.ifindex, "setting MTU 7 of br1", mtu=7)

    with pytest.raises(
        KernelError, match=r"setting MTU 7 of br1 failed: Invalid argument \(mtu less than .*EINVAL"
    ) as told:
        inside(refuse)
    assert told.value.errno == 22
