"""Pods of the real containerd, by its CRI: it calls our plugin itself, as a pod's only network."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.lab.cri import Cri, connect, wait_until
from tests.lab.installation import install_agent
from tests.lab.node import AgentProcess, LabNode

pytestmark = pytest.mark.lab(containerd=True)

CONFIG = """
physicalFunctions:
- {select: {vendors: ["8086"], devices: ["10c9"]}, numVfs: 7}
resourceList:
- {resourceName: sriov, selectors: {drivers: [igbvf]}}
"""

LEASES = Path("/var/lib/cni/networks")
IPAM = {"type": "host-local", "subnet": "10.56.217.0/24", "rangeStart": "10.56.217.171", "rangeEnd": "10.56.217.181"}


@pytest.fixture(scope="module")
def agent(node: LabNode) -> Iterator[AgentProcess]:
    """The agent, where the plugin looks for it."""
    with install_agent(node) as agent:
        yield agent


@pytest.fixture(scope="module")
def cri(agent: AgentProcess) -> Iterator[Cri]:
    """The kubelet's place at containerd."""
    with connect() as cri:
        yield cri


@pytest.fixture
def unchanged(node: LabNode, agent: AgentProcess, cri: Cri) -> Iterator[None]:
    """After the test's pods are gone there is nothing left of them: VFs as before, no journal entry, no lease."""
    before = node.look()
    yield
    cri.remove_pods()
    assert agent.attachments() == []
    assert node.look() == before
    assert not list(LEASES.glob("*/10.*"))


def test_a_vf_is_a_pods_only_network(cri: Cri, node: LabNode, unchanged: None) -> None:
    """The pod's eth0 is the VF, in its VLAN and with the address that the kubelet gets; afterwards all is back."""
    plugin = {"type": "sriov", "deviceID": node.vf(2), "vlan": 210, "ipam": IPAM}
    cri.use_network("only", {"cniVersion": "1.0.0", "plugins": [plugin]})
    pod = cri.run_pod("only")
    pod.start()
    address = pod.status.status.network.ip
    assert address == "10.56.217.171"
    shown = pod.run("ip", "address", "show", "dev", "eth0")
    assert f"inet {address}/24" in shown
    assert node.look_vf(2)["address"] in shown
    assert node.vlan(2) == 210
    assert "UP,LOWER_UP" in shown
    pod.stop()
    assert node.vlan(2) == 0
    pod.remove()


def test_refusal_reaches_the_kubelet(cri: Cri, agent: AgentProcess, unchanged: None) -> None:
    """What the plugin says of a VF that is not there is in the error of RunPodSandbox, and no sandbox is left."""
    plugin = {"type": "sriov", "deviceID": "0000:fe:1f.7", "ipam": IPAM}
    cri.use_network("nowhere", {"cniVersion": "1.0.0", "plugins": [plugin]})
    namespaces = sorted(Path("/run/netns").iterdir())
    with pytest.raises(grpc.RpcError, match=r"0000:fe:1f\.7") as caught:
        cri.run_pod("refused")
    assert "failed to setup network for sandbox" in str(caught.value)
    assert sorted(Path("/run/netns").iterdir()) == namespaces


def test_as_many_pods_at_once_as_there_are_vfs(cri: Cri, node: LabNode, agent: AgentProcess, unchanged: None) -> None:
    """Seven sandboxes in parallel take the PF's seven VFs in the words of 2017; one more is refused; all come back."""
    plugin = {"type": "sriov", "if0": node.pf_netdev, "ipam": IPAM}
    cri.use_network("many", {"cniVersion": "0.3.1", "plugins": [plugin]})
    with ThreadPoolExecutor() as pool:
        pods = list(pool.map(cri.run_pod, [f"many{number}" for number in range(7)]))
        listed = json.loads(node.sriovdp("attachments", "--json", "--state-dir", str(agent.root / "state")).stdout)
        assert {entry["device"] for entry in listed["attachments"]} == {node.vf(index) for index in range(7)}
        assert {entry["owner"] for entry in listed["attachments"]} == {f"pod default/{pod.name} (eth0)" for pod in pods}
        assert len({pod.status.status.network.ip for pod in pods}) == 7
        with pytest.raises(grpc.RpcError, match="no VF"):
            cri.run_pod("eighth")
        list(pool.map(lambda pod: pod.remove(), pods))


def test_pod_goes_while_there_is_no_agent(cri: Cri, node: LabNode, agent: AgentProcess, unchanged: None) -> None:
    """The kubelet gets rid of a pod while the agent is dead; the next agent finds the call and takes the VF back."""
    plugin = {"type": "sriov", "deviceID": node.vf(0), "vlan": 211, "ipam": IPAM}
    cri.use_network("away", {"cniVersion": "1.0.0", "plugins": [plugin]})
    pod = cri.run_pod("away")
    agent.kill()
    pod.remove()
    agent.start()
    wait_until(lambda: agent.attachments() == [], "the agent releases the VF")
    assert node.vlan(0) == 0
