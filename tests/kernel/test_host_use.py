"""What the host uses an interface for, on a veth of this machine."""

import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sriovdp.kernel.host_use import find_host_use
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs

pytestmark = pytest.mark.netns


@pytest.fixture
def name() -> Iterator[str]:
    """A veth that is up."""
    name = f"hu{uuid.uuid4().hex[:8]}"
    run(f"ip link add {name} type veth peer name {name}p")
    run(f"ip link set {name}p up")
    run(f"ip link set {name} up")
    yield name
    run(f"ip link delete {name}")


def run(command: str) -> None:
    """Run a command line of iproute2."""
    subprocess.run(command.split(), check=True)


def find(name: str) -> str:
    """What it is used for."""
    with Netlink() as netlink:
        link = netlink.find(name)
    assert link
    return find_host_use(Sysfs(), link)


def test_nothing(name: str) -> None:
    """The kernel's own addresses and routes do not count, nor those of other interfaces."""
    assert not find(name)
    run(f"ip address add 169.254.7.7/16 dev {name}")
    run(f"ip address add 10.251.9.1/32 dev {name}p")
    assert not find(name)


@pytest.mark.parametrize(
    ("command", "use"),
    [
        ("ip address add 10.251.7.1/24 dev {}", "has address 10.251.7.1/24"),
        ("ip address add fd00:251::1/64 nodad dev {}", "has address fd00:251::1/64"),
        ("ip route add 10.252.0.0/16 dev {}", "has the route to 10.252.0.0/16"),
        ("ip route add fd00:252::/64 dev {}", "has the route to fd00:252::/64"),
        ("ip route add 10.253.0.0/16 table 77 dev {}", "has the route to 10.253.0.0/16"),
        ("ip link add {}m link {} type macvlan", "m is on top of"),
    ],
)
def test_each_use_is_named(name: str, command: str, use: str) -> None:
    """With the interface that it is about."""
    run(command.format(name, name))
    found = find(name)
    assert use in found
    assert name in found


def test_a_port_of_a_bridge(name: str) -> None:
    """The bridge is on top of it."""
    run(f"ip link add {name}b type bridge")
    try:
        run(f"ip link set {name} master {name}b")
        assert f"{name}b is on top of {name}" in find(name)
    finally:
        run(f"ip link delete {name}b")


def test_interface_that_has_left_is_not_the_host_s(name: str) -> None:
    """Another request moved it into a pod after it was listed."""
    with Netlink() as netlink:
        link = netlink.find(name)
    assert link
    away = replace(link, ifindex=2**30)
    assert not find_host_use(Sysfs(), away)
