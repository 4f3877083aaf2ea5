"""What is done inside a sandbox, in real network namespaces on this host with a veth pair for the VF."""

import errno
import os
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni.protocol.netconf import NetConf
from cni.protocol.spec import Interface, IpConfig, Result
from cni.vf import sandbox
from cni.vf.settings import move_into
from sriovdp.errors import CniError, KernelError, VerifyError
from sriovdp.kernel import netns
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.rtnl.route import Route

pytestmark = pytest.mark.netns

CONF = NetConf("net-a", "1.0.0", None)


def run(command: str) -> str:
    """Run a command line of iproute2."""
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout


@pytest.fixture
def pod() -> Iterator[int]:
    """The fd of a fresh network namespace."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    run(f"ip netns add {name}")
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)
    run(f"ip netns del {name}")


@pytest.fixture
def device() -> Iterator[Link]:
    """One end of a veth pair on the host, up, with an altname."""
    suffix = uuid.uuid4().hex[:6]
    run(f"ip link add va{suffix} type veth peer name vb{suffix}")
    run(f"ip link property add dev va{suffix} altname net1")
    run(f"ip link set va{suffix} up")
    with Netlink() as netlink:
        found = netlink.find(f"va{suffix}")
    assert found
    yield found
    run(f"ip link del vb{suffix}")


def enter(pod: int, device: Link, name: str = "net1") -> None:
    """Move the device into the pod."""
    with Netlink() as netlink:
        move_into(netlink, device, pod, name)


def look(pod: int, name: str = "net1") -> Link | None:
    """The pod's interface of that name."""

    def find() -> Link | None:
        with Netlink() as netlink:
            return netlink.find(name)

    return netns.run_in(pod, find)


def test_device_moves_and_is_renamed_in_spite_of_an_altname_in_the_way(pod: int, device: Link) -> None:
    """An altname equal to the new name does not stop the move."""
    enter(pod, device)

    found = look(pod)
    assert found
    assert (found.mac, found.up) == (device.mac, False)
    with Netlink() as netlink:
        assert netlink.find(device.name) is None


def test_taken_name_is_refused(pod: int, device: Link) -> None:
    """An interface of the pod is never displaced, and an altname takes a name as well."""
    enter(pod, device, "lo2")

    netns.run_in(pod, sandbox.check_name_is_free, "net2")
    for taken in ("lo", "lo2", "net1"):
        with pytest.raises(CniError, match=f"has an interface {taken} already"):
            netns.run_in(pod, sandbox.check_name_is_free, taken)


@pytest.mark.parametrize("hosts_name_is_free", [True, False])
def test_move_to_a_taken_name_is_reported_by_the_kernel(pod: int, device: Link, hosts_name_is_free: bool) -> None:
    """EEXIST, whether the kernel moved the device before it saw that, or not; ADD makes a sentence of it."""
    if not hosts_name_is_free:
        netns.run_in(pod, lambda: run(f"ip link add {device.name} type bridge"))

    with pytest.raises(KernelError, match=r"moving .* into the sandbox as lo") as refused:
        enter(pod, device, "lo")

    assert refused.value.errno == errno.EEXIST
    with Netlink() as netlink:
        assert (netlink.find(device.name) is None) == hosts_name_is_free


def test_route_by_a_gateway_of_the_other_family(pod: int, device: Link) -> None:
    """IPv4 by an IPv6 router (RFC 5549)."""
    enter(pod, device)
    netns.run_in(pod, lambda: run("ip link set net1 up"))
    result = Result((), (IpConfig("10.1.0.2/24"),), ({"dst": "10.9.0.0/16", "gw": "fe80::1"},))

    netns.run_in(pod, sandbox.configure_addresses, CONF, "net1", result)

    assert "10.9.0.0/16 via inet6 fe80::1 dev net1" in netns.run_in(pod, lambda: run("ip route"))


def test_address_that_is_there_already_is_no_fault(pod: int, device: Link) -> None:
    """The dhcp plugin's daemon may have been quicker."""
    enter(pod, device)
    netns.run_in(pod, lambda: run("ip link set net1 up"))
    result = Result((), (IpConfig("10.1.0.2/24"), IpConfig("fd01::2/64")), ())

    for _ in range(2):
        netns.run_in(pod, sandbox.configure_addresses, CONF, "net1", result)

    assert "10.1.0.2/24" in netns.run_in(pod, lambda: run("ip -o address show net1"))


def test_addresses_and_routes_of_both_families_are_set(pod: int, device: Link) -> None:
    """Routes without a gateway take their family's first one, routes of a family without one are on-link."""
    enter(pod, device)
    netns.run_in(pod, lambda: run("ip link set net1 up"))
    result = Result(
        (Interface("net1"),),
        (IpConfig("10.1.0.2/24", "10.1.0.1"), IpConfig("fd01::2/64")),
        ({"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.9"}, {"dst": "fd09::/64"}),
    )

    netns.run_in(pod, sandbox.configure_addresses, CONF, "net1", result)

    routes = netns.run_in(pod, lambda: run("ip route") + run("ip -6 route"))
    assert "default via 10.1.0.1 dev net1" in routes
    assert "10.9.0.0/16 via 10.1.0.9 dev net1" in routes
    assert "fd09::/64 dev net1" in routes
    addresses = netns.run_in(pod, lambda: run("ip -o address show net1"))
    assert "10.1.0.2/24" in addresses
    assert "fd01::2/64" in addresses


def test_default_route_of_the_network_comes_first(pod: int, device: Link) -> None:
    """Before the one of eth0, as with sriov-cni: who gives a network a default route wants it to be used."""
    enter(pod, device)
    for command in (
        "ip link add eth0 type veth peer name peer0",
        "ip link set eth0 up",
        "ip link set peer0 up",
        "ip address add 10.244.0.2/24 dev eth0",
        "ip route add default via 10.244.0.1 dev eth0",
        "ip link set net1 up",
    ):
        netns.run_in(pod, lambda command=command: run(command))  # type: ignore[misc]
    result = Result((), (IpConfig("10.1.0.2/24", "10.1.0.1"),), ({"dst": "0.0.0.0/0"},))

    netns.run_in(pod, sandbox.configure_addresses, CONF, "net1", result)

    first, second = netns.run_in(pod, lambda: run("ip route show default")).splitlines()
    assert first.startswith("default via 10.1.0.1 dev net1")
    assert second.startswith("default via 10.244.0.1 dev eth0")


def test_refused_route_names_the_route(pod: int, device: Link) -> None:
    """The kernel's refusal says which route it was."""
    enter(pod, device)
    netns.run_in(pod, lambda: run("ip link set net1 up"))
    unreachable = Result((), (IpConfig("10.1.0.2/24"),), ({"dst": "10.9.0.0/16", "gw": "192.0.2.1"},))

    with pytest.raises(KernelError, match=r"adding route 10\.9\.0\.0/16 to net1 failed"):
        netns.run_in(pod, sandbox.configure_addresses, CONF, "net1", unreachable)


def test_namespace_is_reported_from_a_plain_file(pod: int, tmp_path: Path) -> None:
    """What a lost bind mount leaves behind is no sandbox."""
    (tmp_path / "stale").touch()
    plain = os.open(tmp_path / "stale", os.O_RDONLY)

    assert (netns.is_namespace(pod), netns.is_namespace(plain)) == (True, False)
    os.close(plain)


def test_namespace_without_a_path_is_found_through_its_process() -> None:
    """A sandbox whose bind mount is gone is found as long as a process is in it, and not after."""
    with subprocess.Popen(["unshare", "-n", "sh", "-c", "echo ready; exec cat"], stdin=-1, stdout=-1) as process:
        assert process.stdout
        process.stdout.readline()
        wanted = netns.identify(f"/proc/{process.pid}/ns/net")

        found = netns.open_namespace("/run/netns/gone", wanted)
        assert found is not None
        assert netns.identify(found) == wanted
        os.close(found)
        process.terminate()
    assert netns.open_namespace("/run/netns/gone", wanted) is None


def test_caller_stays_in_its_own_namespace(pod: int) -> None:
    """Whoever enters a sandbox comes back, whatever happens there, and other threads never were away."""
    before = netns.identify("/proc/thread-self/ns/net")

    with ThreadPoolExecutor(1) as others:
        others.submit(int).result()  # its thread is there before

        def look_around() -> None:
            other = others.submit(netns.identify, "/proc/thread-self/ns/net").result()
            raise LookupError(netns.identify("/proc/thread-self/ns/net"), other)

        with pytest.raises(LookupError) as told:
            netns.run_in(pod, look_around)

    assert told.value.args == (netns.identify(pod), before)
    assert netns.identify("/proc/thread-self/ns/net") == before


def test_route_options_of_the_specification_are_set(pod: int, device: Link) -> None:
    """Table, priority, MTU and advertised MSS of specification 1.1.0."""
    enter(pod, device)
    netns.run_in(pod, lambda: run("ip link set net1 up"))
    route = {"dst": "10.9.0.0/16", "gw": "10.1.0.9", "table": 100, "priority": 7, "mtu": 1400, "advmss": 1300}

    netns.run_in(pod, sandbox.configure_addresses, CONF, "net1", Result((), (IpConfig("10.1.0.2/24"),), (route,)))

    listed = netns.run_in(pod, lambda: run("ip route show table 100"))
    assert {"10.9.0.0/16", "10.1.0.9", "metric 7", "mtu 1400", "advmss 1300"} <= {
        part for part in ("10.9.0.0/16", "10.1.0.9", "metric 7", "mtu 1400", "advmss 1300") if part in listed
    }

    def read() -> list[Route]:
        with Netlink() as netlink:
            found = netlink.find("net1")
            assert found
            return netlink.routes(found.ifindex)

    assert ("10.9.0.0/16", "10.1.0.9", 100) in [(r.destination, r.gateway, r.table) for r in netns.run_in(pod, read)]


def test_sysctls_through_the_nodes_own_files(
    pod: int, device: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's /proc/sys can only be read, and the node's is mounted elsewhere: the pod's sysctl is set there."""
    (tmp_path / "net").mkdir()
    run(f"mount --bind /proc/sys/net {tmp_path}/net")
    monkeypatch.setattr(sandbox, "_PROC_SYS", str(tmp_path))
    conf = replace(CONF, sysctls={"net/ipv4/conf/IFNAME/arp_filter": "1"})
    enter(pod, device)
    try:
        netns.run_in(pod, lambda: sandbox.bring_up(conf, "net1", device.parent))
    finally:
        run(f"umount {tmp_path}/net")

    assert netns.run_in(pod, lambda: run("sysctl -n net.ipv4.conf.net1.arp_filter")) == "1\n"


@pytest.mark.parametrize(("dad", "flag"), [("off", "nodad"), ("wait", ""), ("optimistic", "")])
def test_duplicate_address_detection_is_a_choice(pod: int, device: Link, dad: Any, flag: str) -> None:
    """Without it an address is there at once; waited for, it is no longer tentative when ADD answers."""
    enter(pod, device)
    netns.run_in(pod, lambda: run("ip link set net1 up"))
    run(f"ip link set vb{device.name[2:]} up")

    conf = replace(CONF, dad=dad)
    netns.run_in(pod, sandbox.configure_addresses, conf, "net1", Result((), (IpConfig("fd01::2/64"),)))

    listed = netns.run_in(pod, lambda: run("ip -6 -o address show dev net1 to fd01::/64"))
    assert flag in listed
    assert dad == "optimistic" or "tentative" not in listed


def test_address_of_another_host_is_found_by_waiting(pod: int, device: Link) -> None:
    """Duplicate address detection that fails makes ADD fail."""
    enter(pod, device)
    peer = f"vb{device.name[2:]}"
    run(f"ip link set {peer} up")
    run(f"ip -6 address add fd01::2/64 dev {peer} nodad")
    netns.run_in(pod, lambda: run("ip link set net1 up"))

    with pytest.raises(VerifyError, match="another host has fd01::2"):
        netns.run_in(
            pod, sandbox.configure_addresses, replace(CONF, dad="wait"), "net1", Result((), (IpConfig("fd01::2/64"),))
        )


def test_flags_are_read_and_set(device: Link) -> None:
    """Promiscuous and all multicast, each for itself; `ip` says the same."""
    with Netlink() as netlink:
        netlink.set_flags(device.ifindex, "test", promisc=True)
        assert (found := netlink.find(device.ifindex))
        assert (found.promisc, found.allmulti) == (True, False)
        netlink.set_flags(device.ifindex, "test", promisc=False, allmulti=True)
        assert (found := netlink.find(device.ifindex))
        assert (found.promisc, found.allmulti) == (False, True)
        netlink.set_flags(device.ifindex, "test")
        assert "ALLMULTI" in run(f"ip -o link show {device.name}")
        assert netlink.find(device.name) == replace(device, flags=device.flags | 0x200)
