"""The real Multus, called by the real containerd, with networks of its config file: application note, 4.2 and 5.1.3."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.note import check_pf, check_pod
from tests.cluster.pods import EXAMPLES
from tests.lab.cri import Cri
from tests.lab.node import AgentProcess, LabNode

pytestmark = pytest.mark.lab(containerd=True)

CONFIG = """
physicalFunctions:
- {select: {vendors: ["8086"], devices: ["10c9"]}, numVfs: 4}
resourceList:
- {resourceName: sriov, selectors: {drivers: [igbvf]}}
"""


@pytest.fixture
def unchanged(node: LabNode, agent: AgentProcess, plugins: Path, cri: Cri) -> Iterator[None]:
    """After the test's pods are gone there is nothing left of them."""
    before = node.look()
    yield
    cri.remove_pods()
    assert agent.attachments() == []
    assert node.look() == before
    assert not list(Path("/var/lib/cni/networks").glob("*/10.*"))
    assert not [path for path in Path("/var/lib/cni/multus").iterdir() if path.is_file()]


def read_example(name: str, node: LabNode) -> dict[str, Any]:
    """A configuration for Multus from our examples, with this node's PF in it."""
    text = (EXAMPLES / name).read_text()
    return dict(json.loads(re.sub(r'"if0": "\w+"', f'"if0": "{node.pf_netdev}"', text)))


def test_pod_of_the_application_note(cri: Cri, node: LabNode, unchanged: None) -> None:
    """The words of 2018: the pod has eth0, net0 and north as section 4.3 shows them, and the PF has north's VLAN."""
    document = read_example("multus-2018.conf", node)
    cri.use_network(document["name"], document, suffix="conf")
    pod = cri.run_pod("multus-multi-net-pod")
    pod.start()
    assert pod.status.status.network.ip.startswith("192.168.42.")
    check_pod(pod.run("ifconfig"))
    check_pf(node.pf_netdev, vfs=4, tagged=1)
    assert "default via 10.56.217.1 dev net0" in pod.run("ip", "route")


@pytest.mark.parametrize("driver", ["igb_uio", "vfio-pci"])
def test_pod_with_a_vf_for_dpdk(cri: Cri, node: LabNode, agent: AgentProcess, unchanged: None, driver: str) -> None:
    """Section 5.1.3: the pod has its default network only, and a VF is bound to the driver for as long as it runs."""
    document = read_example("multus-2018-dpdk.conf", node)
    document["delegates"][1]["dpdk"]["dpdk_driver"] = driver
    document["name"] = f"{document['name']}-{driver}"
    cri.use_network(document["name"], document, suffix="conf")
    pod = cri.run_pod(driver)
    assert list_drivers(node) == [driver, "igbvf", "igbvf", "igbvf"]
    assert pod.status.status.network.ip.startswith("192.168.42.")
    links = pod.sandbox.run("ip", "-j", "link").stdout
    assert {link["ifname"] for link in json.loads(links)} == {"lo", "eth0"}
    pod.remove()
    assert list_drivers(node) == ["igbvf"] * 4


def list_drivers(node: LabNode) -> list[str]:
    """Drivers of the VFs, by their index."""
    return [(Path("/sys/bus/pci/devices") / node.vf(index) / "driver").resolve().name for index in range(4)]
