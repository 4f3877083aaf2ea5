"""A node reboots under its pods, with no time to stop anything: what is on its disk is there, all else is lost."""

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api import Api
from tests.cluster.kubelet import Kubelet
from tests.cluster.note import check_pod
from tests.cluster.pods import NOTE, SRIOV, define_networks, read_status, remove_pods, wait_for_phase, write_pod
from tests.lab.cri import wait_until
from tests.lab.node import AgentProcess, LabNode

pytestmark = pytest.mark.lab(containerd=True, control_plane=True, disk=True)

CONFIG = Path("config/sample.yaml").read_text()


def test_pod_before(api: Api, kubelet: Kubelet, agent: AgentProcess) -> None:
    """The pod of the application note runs."""
    define_networks(api, "application-note.yaml")
    wait_until(lambda: kubelet.offered(SRIOV) == 4, f"the node offers {SRIOV}")
    api.create(write_pod("before", {SRIOV: 2}, NOTE))
    wait_for_phase(api, "before", "Running")
    assert len(agent.attachments()) == 2


def test_pods_after(api: Api, kubelet: Kubelet, agent: AgentProcess, node: LabNode, rebooted: None) -> None:
    """The kubelet tears the old sandbox down, and pods get all VFs there are, with nothing of the old pod on them."""
    wait_until(lambda: kubelet.offered(SRIOV) == 4, f"the node offers {SRIOV}")
    wait_until(lambda: is_decided(api.pod("before")["status"]), "the kubelet decides about the old pod")
    old = api.pod("before")["status"]
    if old["phase"] == "Running":
        check_pod(api.run("before", "ifconfig"))
        assert len(agent.attachments()) == 2
    else:  # the kubelet looked at it before the agent was registered
        assert old["reason"] == "UnexpectedAdmissionError"
    remove_pods(api)
    wait_until(lambda: agent.attachments() == [], "the journal is empty")
    assert not list(Path("/var/lib/cni/networks").glob("*/1*"))
    assert [node.vlan(index) for index in range(7)] == [0] * 7
    api.create(write_pod("after", {SRIOV: 4}, f"{NOTE}, sriov-conf@second, sriov-conf@third"))
    status = read_status(wait_for_phase(api, "after", "Running"))
    assert {"eth0", "net0", "north", "second", "third"} == status.keys()
    remove_pods(api)


def is_decided(status: Any) -> bool:
    """A pod from before the reboot has been refused, or its container runs again."""
    running = [one["ready"] and one["restartCount"] == 1 for one in status.get("containerStatuses", [])]
    return status["phase"] == "Failed" or running == [True]
