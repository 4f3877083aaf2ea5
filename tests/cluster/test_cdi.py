"""Devices by CDI on today's node: Debian 13, containerd with CDI and NRI on, the real kubelet and Multus."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

pytestmark = pytest.mark.lab(containerd=True, control_plane=True, hugepages=320, root="trixie")

PLAIN = Path("config/sample.yaml").read_text()
CONFIG = f"{PLAIN}\ncdi: true\n"
DPDK, UIO = f"{SRIOV}_dpdk", f"{SRIOV}_igb_uio"
OFFERED = {SRIOV: 4, DPDK: 2, UIO: 1}
SPECS = Path("/run/cdi")


@pytest.fixture(scope="module", autouse=True)
def networks(api: Api, kubelet: Kubelet) -> None:
    """The networks of the examples, on a node that offers the VFs of the sample."""
    define_networks(api, "application-note.yaml", "dpdk.yaml")
    for resource, count in OFFERED.items():
        wait_until(lambda r=resource, c=count: kubelet.offered(r) == c, f"the node offers {resource}")  # type: ignore[misc]


@pytest.fixture(autouse=True)
def unchanged(node: LabNode, agent: AgentProcess, api: Api, networks: None) -> Iterator[None]:
    """After the test's pods are deleted there is nothing left of them."""
    before = node.look()
    yield
    remove_pods(api)
    wait_until(lambda: agent.attachments() == [], "the journal is empty")
    assert node.look() == before


def read_specs() -> dict[str, dict[str, Any]]:
    """What the spec files add to a container, by device and by kind of edit."""
    documents = [json.loads(path.read_text()) for path in SPECS.glob("*.json")]
    return {device["name"]: device["containerEdits"] for one in documents for device in one["devices"]}


def read_environment(api: Api, pod: str) -> dict[str, str]:
    """The environment of a pod's container."""
    return dict(line.split("=", 1) for line in api.run(pod, "/bin/busybox", "env").splitlines() if "=" in line)


def find_group(address: str) -> str:
    """IOMMU group of a VF."""
    return Path(f"/sys/bus/pci/devices/{address}/iommu_group").resolve().name


def test_specs_of_all_pools_are_there(node: LabNode) -> None:
    """One file for each pool, with all VFs; containerd reads them, and NRI is on beside it."""
    assert len(list(SPECS.glob("sriovdp-intel.com-net-pci-*.json"))) == len(OFFERED)
    assert read_specs().keys() == {node.vf(index) for index in range(7)}
    assert Path("/run/nri/nri.sock").is_socket()


def test_pod_has_its_vfio_group(api: Api, node: LabNode) -> None:
    """Nodes, variables and the right to open the group come by the VF's CDI name, and no other group does."""
    api.create(write_pod("vfio", {DPDK: 1}, "blue"))
    status = read_status(wait_for_phase(api, "vfio", "Running"))["net1"]
    environment = read_environment(api, "vfio")
    address = environment["PCIDEVICE_INTEL_COM_SRIOV_DPDK"]
    assert status["device-info"]["pci"]["pci-address"] == address
    # this one is in the spec only
    assert environment[f"SRIOVDP_DEVICE_{address.replace(':', '_').replace('.', '_')}"] == address
    assert api.run("vfio", "ls", "/dev/vfio").split() == sorted([find_group(address), "vfio"])
    opened = api.run("vfio", "/bin/busybox", "dd", f"if=/dev/vfio/{find_group(address)}", "count=0")
    assert "0+0 records in" in opened


def test_pod_of_the_application_note(api: Api, node: LabNode) -> None:
    """Netdevs by CNI as without CDI: eth0, net0 and north; the spec adds a variable for each VF."""
    api.create(write_pod("note", {SRIOV: 2}, NOTE))
    status = read_status(wait_for_phase(api, "note", "Running"))
    used = {name: status[name]["device-info"]["pci"]["pci-address"] for name in ("net0", "north")}
    check_pod(api.run("note", "ifconfig"))
    tagged = next(index for index in range(7) if node.vf(index) == used["north"])
    check_pf(node.pf_netdev, vfs=7, tagged=tagged)
    environment = read_environment(api, "note")
    assert {value for key, value in environment.items() if key.startswith("SRIOVDP_DEVICE_")} == set(used.values())


@pytest.mark.parametrize(("name", "driver"), [("dpdk", "vfio-pci"), ("dpdk-igb-uio", "igb_uio")])
def test_testpmd_in_a_pod(api: Api, node: LabNode, name: str, driver: str) -> None:
    """The pods of the DPDK example drive their VF with nodes and sysfs files that CDI brought."""
    run_testpmd(api, node, name, driver)


def test_container_starts_again_after_cdi_was_turned_off(
    api: Api, kubelet: Kubelet, agent: AgentProcess, node: LabNode
) -> None:
    """A pod keeps its spec as long as it runs, though the node has CDI off by then; afterwards the specs are gone."""
    api.create(write_pod("keeps", {DPDK: 1}, "blue"))
    wait_for_phase(api, "keeps", "Running")
    address = read_environment(api, "keeps")["PCIDEVICE_INTEL_COM_SRIOV_DPDK"]
    try:
        restart_agent(agent, kubelet, PLAIN)
        assert address in read_specs()
        kill_container(api.pod("keeps")["status"])
        wait_until(
            lambda: is_restarted(api.pod("keeps")["status"]), lambda: f"it runs again: {api.events('keeps')}", 150
        )
        assert api.run("keeps", "ls", "/dev/vfio").split() == sorted([find_group(address), "vfio"])
        remove_pods(api)
        wait_until(lambda: not read_specs(), "the specs are gone")
    finally:
        remove_pods(api)
        restart_agent(agent, kubelet, CONFIG)
    assert read_specs().keys() == {node.vf(index) for index in range(7)}


def restart_agent(agent: AgentProcess, kubelet: Kubelet, config: str) -> None:
    """The agent with another config, when its VFs are offered again."""
    agent.stop()
    agent.config.write_text(config)
    agent.start()
    wait_until(lambda: all(kubelet.offered(name) == count for name, count in OFFERED.items()), "all VFs are offered")


def kill_container(status: Any) -> None:
    """Kill a pod's container from the node: in it, its first process takes no signal."""
    [container] = status["containerStatuses"]
    name = container["containerID"].removeprefix("containerd://")
    subprocess.run(["ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", name], check=True)


def is_restarted(status: Any) -> bool:
    """Whether the pod's container runs for the second time."""
    [container] = status["containerStatuses"]
    return container["restartCount"] == 1 and bool(container["ready"])
