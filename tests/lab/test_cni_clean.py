"""A pod may leave anything on its VF, and the next pod gets it like new."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.runtime import Plugin, Sandbox
from tests.lab.closeness import list_differences, look_closely, run_here
from tests.lab.node import LabNode

pytestmark = pytest.mark.lab

CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 4
"""
_BPF = f"{sys.executable} -m tests.lab.bpf"
_NET = "/sys/class/net/net1"

NAMES = (
    "ip link property add dev net1 altname cni0",
    "ip link property add dev net1 altname eth0",
)
SET_BACK = (
    "ip link set net1 txqueuelen 1",
    "ip link set net1 alias hello",
    "ip link set net1 group 77",
    "ip link set net1 gso_max_size 2000 gso_max_segs 7",
    "ip link set net1 gro_max_size 3000",
    "ip link set net1 mode dormant",
    "ip link set net1 broadcast ff:ff:ff:ff:ff:fe",
    "ip link set net1 mtu 1400",
    "ip link set net1 promisc on",
    "ip link set net1 allmulticast on",
)
DROPPED = (
    "ip link set net1 addrgenmode none",
    "ip link set net1 up",
    "ip address add 10.77.0.1/24 dev net1",
    "ip address add fd00:77::1/64 dev net1",
    "ip route add 10.78.0.0/24 dev net1 metric 7",
    "ip neighbour add 10.77.0.9 lladdr 02:00:00:00:00:09 dev net1",
    "ip maddress add 01:00:5e:00:00:77 dev net1",
    "tc qdisc add dev net1 root tbf rate 1mbit burst 10k latency 10ms",
    "tc qdisc add dev net1 clsact && tc filter add dev net1 ingress matchall action drop",
    "ip link add link net1 name vlan5 type vlan id 5 && ip link set vlan5 up",
    "ip link add link net1 name mac1 type macvlan mode bridge && ip link set mac1 up",
    "sysctl -w net.ipv4.conf.net1.rp_filter=2 net.ipv6.conf.net1.accept_ra=2 net.ipv4.neigh.net1.gc_stale_time=7",
)
REBOUND = (
    "ip link set net1 arp off",
    "ip link set net1 multicast off",
    "ip link set net1 dynamic on",
    "bridge fdb add 02:00:00:00:00:78 dev net1 self",  # a driver without a filter for it stays promiscuous
    "ethtool -K net1 gro off tx off",
    "ethtool -G net1 rx 256 tx 256",
    "ethtool -C net1 rx-usecs 50",
    "ethtool -s net1 msglvl 1",
    f"{_BPF} xdp net1",
    f"{_BPF} tcx net1",
    f"sh -c 'echo 1 >{_NET}/threaded'",
    f"sh -c 'echo 7000 >{_NET}/gro_flush_timeout'",
    f"sh -c 'echo 3 >{_NET}/queues/rx-0/rps_cpus'",
    f"sh -c 'echo 512 >{_NET}/queues/rx-0/rps_flow_cnt'",
    f"sh -c 'echo 1 >{_NET}/queues/tx-0/xps_rxqs'",
    f"sh -c 'echo 4096 >{_NET}/queues/tx-0/byte_queue_limits/limit_max'",
)


@pytest.fixture
def config(node: LabNode) -> dict[str, Any]:
    """A network without addresses."""
    return {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": node.vf(0)}


@pytest.fixture
def host_names() -> Any:
    """A host of today: its own interfaces are not called eth0."""
    subprocess.run(["ip", "link", "add", "cni0", "type", "dummy"], check=True)
    yield
    subprocess.run(["ip", "link", "delete", "cni0"], check=True)


def leave(pod: Sandbox, *commands: str) -> None:
    """Run commands in a pod; each must succeed, as one that does nothing tests nothing."""
    for command in commands:
        done = pod.run("sh", "-c", command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def look(pod: Sandbox) -> dict[str, Any]:
    """All that the tools print of a pod's interface."""
    return look_closely("net1", lambda command: pod.run(*command).stdout)


def test_pod_that_leaves_everything_is_not_seen_by_the_next(
    plugin: Plugin, sandbox: Any, config: dict[str, Any], node: LabNode, host_names: None
) -> None:
    """On the host and in the next pod the VF looks as it did before the pod that set all there is to set."""
    name = node.netdev(0)
    subprocess.run(["ip", "link", "set", name, "txqueuelen", "500"], check=True)  # the host's own
    on_host = look_closely(name, run_here)
    first, messy, last = sandbox("pod-a"), sandbox("pod-b"), sandbox("pod-c")
    plugin.add(first, config)
    in_pod = look(first)
    plugin.delete(first, config)
    assert list_differences(on_host, look_closely(name, run_here)) == []

    plugin.add(messy, config)
    leave(messy, *DROPPED, *SET_BACK, *NAMES, *REBOUND)
    changed = look(messy)
    plugin.delete(messy, config)

    assert list_differences(in_pod, changed), "the pod has changed something"
    assert node.netdev(0) == name
    assert list_differences(on_host, look_closely(name, run_here)) == []
    assert "vlan5" not in messy.run("ip", "-o", "link").stdout, "it would be the next pod's VF that it is on"
    plugin.add(last, config)
    assert list_differences(in_pod, look(last)) == []
    plugin.delete(last, config)
    subprocess.run(["ip", "link", "set", name, "txqueuelen", "1000"], check=True)


@pytest.fixture(scope="module")
def untouched(node: LabNode) -> dict[str, Any]:
    """How the VF is before any pod."""
    return look_closely(node.netdev(0), run_here)


@pytest.mark.parametrize("left", [*NAMES, *SET_BACK, *DROPPED, *REBOUND])
def test_each_thing_left_is_found_by_itself(
    plugin: Plugin, sandbox: Any, config: dict[str, Any], node: LabNode, untouched: dict[str, Any], left: str
) -> None:
    """Nothing is found only because something beside it was, and the driver is bound again only where it has to be."""
    name = node.netdev(0)
    index = Path(f"/sys/class/net/{name}/ifindex").read_text()
    pod = sandbox("pod-a")
    plugin.add(pod, config)
    leave(pod, "ip link set net1 up", left)
    plugin.delete(pod, config)
    assert list_differences(untouched, look_closely(name, run_here)) == []
    is_new = Path(f"/sys/class/net/{name}/ifindex").read_text() != index
    assert is_new == (left in REBOUND)
