"""The real kubelet, API server, containerd and Multus: pods ask for VFs by name, get them, and give them back."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.api import Api
from tests.cluster.dpdk import run_testpmd
from tests.cluster.kubelet import Kubelet
from tests.cluster.note import check_pf, check_pod
from tests.cluster.pods import (
    NOTE,
    SRIOV,
    define_networks,
    read_status,
    remove_pods,
    wait_for_phase,
    write_pod,
)
from tests.lab.cri import wait_until
from tests.lab.node import AgentProcess, LabNode

pytestmark = pytest.mark.lab(containerd=True, control_plane=True, hugepages=320)

CONFIG = Path("config/sample.yaml").read_text()
DPDK, UIO = f"{SRIOV}_dpdk", f"{SRIOV}_igb_uio"
OFFERED = {SRIOV: 4, DPDK: 2, UIO: 1}
WAVES, AT_ONCE = 15, 7
ALLOCATED = Path("/run/k8s.cni.cncf.io/devinfo/dp")


@pytest.fixture(scope="module", autouse=True)
def networks(api: Api, kubelet: Kubelet) -> None:
    """The networks of the examples, on a node that offers the VFs of the sample."""
    define_networks(api, "application-note.yaml", "dpdk.yaml")
    wait_until(lambda: kubelet.offered(SRIOV) == OFFERED[SRIOV], f"the node offers {SRIOV}")


@pytest.fixture(autouse=True)
def unchanged(node: LabNode, agent: AgentProcess, api: Api, networks: None) -> Iterator[None]:
    """After the test's pods are deleted there is nothing left of them."""
    before = node.look()
    ALLOCATED.mkdir(parents=True, exist_ok=True)
    yield
    remove_pods(api)
    wait_until(lambda: agent.attachments() == [], "the journal is empty")
    assert node.look() == before
    assert not list(Path("/var/lib/cni/networks").glob("*/1*"))
    assert not list(Path("/run/k8s.cni.cncf.io/devinfo/cni").glob("*"))
    # read from PodResources, which the agent asks from time to time
    wait_until(lambda: not list(ALLOCATED.iterdir()), "device-info is gone")


def test_pod_of_the_application_note(api: Api, node: LabNode) -> None:
    """Section 4.1 in today's words: eth0, net0 and north, each on the VF that Multus was given; status written back."""
    api.create(write_pod("note", {SRIOV: 2}, NOTE))
    status = read_status(wait_for_phase(api, "note", "Running"))
    assert status.keys() == {"eth0", "net0", "north"}
    indices = {node.vf(index): index for index in range(7)}
    used = {name: indices[status[name]["device-info"]["pci"]["pci-address"]] for name in ("net0", "north")}
    check_pod(api.run("note", "ifconfig"))
    check_pf(node.pf_netdev, vfs=7, tagged=used["north"])
    for name, index in used.items():
        assert status[name]["mac"] == node.look_vf(index)["address"]


def test_pod_that_asks_for_too_much_stays_out(api: Api) -> None:
    """Four VFs there are: a pod for five is refused by the kubelet, in its own words, and nothing is changed."""
    api.create(write_pod("greedy", {SRIOV: 5}))
    refused = wait_for_phase(api, "greedy", "Failed")
    assert refused["status"]["reason"] in {"OutOfintel.com/sriov", "UnexpectedAdmissionError"}
    assert SRIOV in refused["status"]["message"]


def test_mac_and_address_of_the_pods_choice(api: Api) -> None:
    """The annotation's MAC and address reach VF and pod through Multus' runtimeConfig, and the status shows them."""
    wanted = {"interface": "net0", "mac": "02:00:00:00:0a:01", "ips": ["10.56.217.175/24"]}
    api.create(write_pod("choosy", {SRIOV: 1}, [{"name": "sriov-conf", **wanted}]))
    status = read_status(wait_for_phase(api, "choosy", "Running"))["net0"]
    shown = api.run("choosy", "ifconfig", "net0")
    assert "HWaddr 02:00:00:00:0A:01" in shown
    assert "inet addr:10.56.217.175 " in shown
    assert (status["mac"], status["ips"]) == ("02:00:00:00:0a:01", ["10.56.217.175"])


@pytest.mark.parametrize(("name", "driver"), [("dpdk", "vfio-pci"), ("dpdk-igb-uio", "igb_uio")])
def test_testpmd_in_a_pod(api: Api, node: LabNode, name: str, driver: str) -> None:
    """The pods of the example drive their VF by DPDK, with the MAC that the PF has for it, and send."""
    run_testpmd(api, node, name, driver)


def test_kubelet_and_agent_restart_with_pods(api: Api, kubelet: Kubelet, agent: AgentProcess, node: LabNode) -> None:
    """A pod goes on through the restart of both; its VF is given to no other, and all are offered again."""
    api.create(write_pod("stays", {SRIOV: 1}, "sriov-conf@net0"))
    wait_for_phase(api, "stays", "Running")
    restart(kubelet, agent)
    wait_until(lambda: kubelet.offered(SRIOV) == OFFERED[SRIOV], "all VFs are offered again")
    assert "10.56.217" in api.run("stays", "ifconfig", "net0")
    names = [f"next{number}" for number in range(3)]
    for name in names:
        api.create(write_pod(name, {SRIOV: 1}, "sriov-conf@net0"))
    for name in names:
        wait_for_phase(api, name, "Running")
    assert len(set(list_attached(node))) == 4
    assert api.pod("stays")["status"]["containerStatuses"][0]["restartCount"] == 0


def restart(kubelet: Kubelet, agent: AgentProcess) -> None:
    """Both, the agent by SIGKILL, as a node has it on a bad day."""
    kubelet.stop()
    agent.kill()
    agent.start()
    kubelet.start()


def list_attached(node: LabNode) -> list[str]:
    """VFs that are attached to pods, by what the agent's command prints."""
    return [one["device"] for one in json.loads(node.sriovdp("attachments", "--json").stdout)["attachments"]]


@pytest.mark.parametrize("wave", range(WAVES))
def test_pods_come_and_go(api: Api, kubelet: Kubelet, agent: AgentProcess, node: LabNode, wave: int) -> None:
    """105 pods, as many at once as there are VFs; the agent dies in one wave, both restart in another: no leak."""
    kinds = [(SRIOV, "sriov-conf@net0")] * 4 + [(DPDK, "blue")] * 2 + [(UIO, "blue-igb-uio")]
    names = [f"wave{wave}-{number}" for number in range(AT_ONCE)]
    for name, (resource, network) in zip(names, kinds, strict=True):
        api.create(write_pod(name, {resource: 1}, network))
    if wave == 4:
        # a pod that comes while there is no agent is refused by the kubelet for good; these have been admitted
        wait_until(lambda: len(list(ALLOCATED.iterdir())) == AT_ONCE, "each pod has its VF allocated")
        agent.kill()
        agent.start()
    for name in names:
        wait_for_phase(api, name, "Running")
    if wave == 9:
        restart(kubelet, agent)
        assert {api.pod(name)["status"]["phase"] for name in names} == {"Running"}
    assert len(set(list_attached(node))) == AT_ONCE
