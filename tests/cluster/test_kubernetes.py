"""The real kubelet, API server, containerd and Multus: pods ask for VFs by name, get them, and give them back."""

import json
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.api import NODE, Api
from tests.cluster.kubelet import HANDED_OVER, Kubelet
from tests.lab.cri import wait_until
from tests.lab.images import import_busybox
from tests.lab.installation import PLUGINS
from tests.lab.node import AgentProcess, LabNode

pytestmark = pytest.mark.lab(containerd=True, control_plane=True)

CONFIG = """
physicalFunctions:
- {select: {vendors: ["8086"], devices: ["10c9"]}, numVfs: 7, vfs: [{range: "5-6", driver: vfio-pci}]}
resourceList:
- {resourceName: sriov, selectors: {drivers: [igbvf]}}
- {resourceName: sriov_dpdk, selectors: {drivers: [vfio-pci]}}
"""

SRIOV = "intel.com/sriov"
EXAMPLES = Path("config/deploy/examples")
STATUS = "k8s.v1.cni.cncf.io/network-status"

NETWORK_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "network-attachment-definitions.k8s.cni.cncf.io"},
    "spec": {
        "group": "k8s.cni.cncf.io",
        "scope": "Namespaced",
        "names": {
            "plural": "network-attachment-definitions",
            "singular": "network-attachment-definition",
            "kind": "NetworkAttachmentDefinition",
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "properties": {"config": {"type": "string"}}}},
                    }
                },
            }
        ],
    },
}

DEFAULT = {
    "cniVersion": "0.3.1",
    "name": "cluster",
    "type": "multus",
    "binDir": str(PLUGINS),
    "kubeconfig": f"{HANDED_OVER}/kubeconfig",
    "delegates": [
        {
            "cniVersion": "0.3.1",
            "name": "default",
            "type": "ptp",
            "ipam": {"type": "host-local", "subnet": "192.168.42.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
        }
    ],
}


@pytest.fixture(scope="module")
def api() -> Api:
    """The API server outside, with Multus' kind of object and those of the example."""
    api = Api.read(HANDED_OVER / "kubeconfig")
    api.create(NETWORK_DEFINITION)
    return api


@pytest.fixture(scope="module")
def kubelet(api: Api, agent: AgentProcess, plugins: Path) -> Iterator[Kubelet]:
    """A node that is ready and has been offered the agent's VFs."""
    import_busybox()
    folder = Path("/etc/cni/net.d")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "00-multus.conf").write_text(json.dumps(DEFAULT))
    place = Path("/dev/shm/kubelet")
    place.mkdir()
    kubelet = Kubelet(place, api)
    kubelet.start()
    wait_until(lambda: kubelet.offered(SRIOV) == 5, f"the node offers {SRIOV}")
    for document in yaml.safe_load_all((EXAMPLES / "application-note.yaml").read_text()):
        if document["kind"] == "NetworkAttachmentDefinition":
            wait_until(lambda document=document: _try_create(api, document), "the API server knows networks")  # type: ignore[misc]
    yield kubelet
    kubelet.stop()
    shutil.rmtree(place, ignore_errors=True)


def _try_create(api: Api, document: Mapping[str, Any]) -> bool:
    try:
        api.create(document)
    except Exception as error:  # noqa: BLE001 - whatever it is, the next try tells
        return "already exists" in str(error)
    return True


@pytest.fixture
def unchanged(node: LabNode, agent: AgentProcess, api: Api, kubelet: Kubelet) -> Iterator[None]:
    """After the test's pods are deleted there is nothing left of them."""
    before = node.look()
    yield
    remove_pods(api)
    wait_until(lambda: agent.attachments() == [], "the journal is empty")
    assert node.look() == before
    assert not list(Path("/var/lib/cni/networks").glob("*/1*"))
    assert not list(Path("/run/k8s.cni.cncf.io/devinfo/cni").glob("*"))


def remove_pods(api: Api) -> None:
    """Delete all pods and wait until their kubelet has done it."""
    for pod in api.pods():
        api.delete_pod(pod["metadata"]["name"])
    wait_until(lambda: api.pods() == [], "pods are gone", 200)


def write_pod(name: str, vfs: int = 0, networks: str = "") -> dict[str, Any]:
    """A pod for this node, of one container."""
    resources = {kind: {SRIOV: str(vfs)} for kind in ("requests", "limits")} if vfs else {}
    annotations = {"k8s.v1.cni.cncf.io/networks": networks} if networks else {}
    container = {
        "name": "main",
        "image": "docker.io/library/busybox:stable",
        "imagePullPolicy": "Never",
        "command": ["/bin/sleep", "2147483647"],
        "resources": resources,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"nodeName": NODE, "containers": [container], "enableServiceLinks": False, "dnsPolicy": "Default"},
    }


def wait_for_phase(api: Api, name: str, phase: str) -> Any:
    """The pod when it is in that phase; fails with what was said about it."""
    try:
        wait_until(lambda: api.pod(name)["status"]["phase"] == phase, f"{name} is {phase}", 150)
    except AssertionError as error:
        raise AssertionError(f"{error}: {api.pod(name)['status']}, {api.events(name)}") from None
    return api.pod(name)


def test_pod_of_the_application_note(api: Api, kubelet: Kubelet, node: LabNode, unchanged: None) -> None:
    """Section 4.1 in today's words: eth0, net0 and north, each on the VF that Multus was told; status written back."""
    pod = write_pod("note", 2, "sriov-conf@net0, sriov-vlanid-l2enable-conf@north")
    api.create(pod)
    running = wait_for_phase(api, "note", "Running")
    shown = api.run("note", "ifconfig")
    for name in ("eth0", "lo", "net0", "north"):
        assert f"\n{name} " in f"\n{shown}", shown
    assert "inet addr:10.56.217.17" in shown
    status = {one["interface"]: one for one in json.loads(running["metadata"]["annotations"][STATUS])}
    assert status.keys() == {"eth0", "net0", "north"}
    devices = {name: status[name]["device-info"]["pci"]["pci-address"] for name in ("net0", "north")}
    indices = {node.vf(index): index for index in range(7)}
    assert {name: node.vlan(indices[device]) for name, device in devices.items()} == {"net0": 0, "north": 210}
    for name, device in devices.items():
        assert status[name]["mac"] == node.look_vf(indices[device])["address"]


def test_pod_that_asks_for_too_much_stays_out(api: Api, kubelet: Kubelet, unchanged: None) -> None:
    """Five VFs there are: a pod for six is refused by the kubelet, in its own words, and nothing is changed."""
    api.create(write_pod("greedy", 6))
    refused = wait_for_phase(api, "greedy", "Failed")
    assert refused["status"]["reason"] in {"OutOfintel.com/sriov", "UnexpectedAdmissionError"}
    assert SRIOV in refused["status"]["message"]


def test_mac_and_address_of_the_pods_choice(api: Api, kubelet: Kubelet, unchanged: None) -> None:
    """The annotation's MAC reaches the VF through Multus' runtimeConfig, and the status tells it."""
    wanted = [{"name": "sriov-conf", "interface": "net0", "mac": "02:00:00:00:0a:01"}]
    api.create(write_pod("choosy", 1, json.dumps(wanted)))
    running = wait_for_phase(api, "choosy", "Running")
    assert "HWaddr 02:00:00:00:0A:01" in api.run("choosy", "ifconfig", "net0")
    status = {one["interface"]: one for one in json.loads(running["metadata"]["annotations"][STATUS])}
    assert status["net0"]["mac"] == "02:00:00:00:0a:01"


def test_kubelet_and_agent_restart_with_pods(
    api: Api, kubelet: Kubelet, agent: AgentProcess, node: LabNode, unchanged: None
) -> None:
    """A pod goes on through the restart of both; its VF is given to nobody else, and all are offered again."""
    api.create(write_pod("stays", 1, "sriov-conf@net0"))
    wait_for_phase(api, "stays", "Running")
    kubelet.stop()
    agent.kill()
    agent.start()
    kubelet.start()
    wait_until(lambda: kubelet.offered(SRIOV) == 5, "all VFs are offered again")
    assert "10.56.217" in api.run("stays", "ifconfig", "net0")
    names = [f"next{number}" for number in range(4)]
    for name in names:
        api.create(write_pod(name, 1, "sriov-conf@net0"))
    for name in names:
        wait_for_phase(api, name, "Running")
    listed = json.loads(node.sriovdp("attachments", "--json", "--state-dir", str(agent.root / "state")).stdout)
    assert len({entry["device"] for entry in listed["attachments"]}) == 5
    assert api.pod("stays")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_pods_come_and_go(api: Api, kubelet: Kubelet, agent: AgentProcess, node: LabNode, unchanged: None) -> None:
    """Waves of as many pods as there are VFs; the agent dies in one, the kubelet restarts in another: nothing leaks."""
    durations: dict[str, list[float]] = {"with a VF": [], "without": []}
    for wave in range(4):
        names = [f"wave{wave}-{number}" for number in range(5)]
        vfs = wave != 3
        for name in names:
            api.create(write_pod(name, 1, "sriov-conf@net0") if vfs else write_pod(name))
        if wave == 1:
            agent.kill()
            agent.start()
        if wave == 2:
            kubelet.stop()
            kubelet.start()
        for name in names:
            status = wait_for_phase(api, name, "Running")["status"]
            started = status["containerStatuses"][0]["state"]["running"]["startedAt"]
            if wave in {0, 3}:
                durations["with a VF" if vfs else "without"].append(_parse(started) - _parse(status["startTime"]))
        listed = json.loads(node.sriovdp("attachments", "--json").stdout)["attachments"]
        assert len({entry["device"] for entry in listed}) == (5 if vfs else 0)
        remove_pods(api)
        wait_until(lambda: agent.attachments() == [], "the journal is empty")
    for what, taken in durations.items():
        print(f"admitted to running, {what}, five at once: p50 {sorted(taken)[2]:.0f} s")  # noqa: T201


def _parse(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
