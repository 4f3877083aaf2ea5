"""The configurations of the Intel application note, as printed, with the real NIC: sections 4.1.3, 4.2, 4.3 and 5.1.3.

Multus of that time pasted `{"type": PLUGIN,` before the `args` of the Network object, so there is neither a name nor
a cniVersion. Only the PFs' names are this machine's.
"""

import json
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.runtime import CniFailureError, Plugin, Sandbox
from tests.lab.node import LabNode

pytestmark = pytest.mark.lab(hugepages=448)

CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 4
    vfs: [{range: "0-3", driver: kernel}]
"""

# as printed, but for the netdev's name and the folder of the leases, which host-local is given here
SRIOV_CONF = """
  {
    "if0": "enp12s0f1",
    "ipam": {
      "type": "host-local",
      "subnet": "10.56.217.0/24",
      "rangeStart": "10.56.217.171",
      "rangeEnd": "10.56.217.181",
      "routes": [
        { "dst": "0.0.0.0/0" }
      ],
      "gateway": "10.56.217.1"
    }
  }
"""
SRIOV_VLANID_L2ENABLE_CONF = """
  {
    "if0": "enp2s0",
    "vlan": 210,
    "if0name": "north",
    "l2enable": true
  }
"""
DPDK_DELEGATE = """
    {
      "type": "sriov",
      "if0": "enp4s0f3",
      "if0name": "north0",
      "dpdk": {
        "kernel_driver": "ixgbevf",
        "dpdk_driver": "igb_uio",
        "dpdk_tool": "/root/dpdk/                                tools/dpdk-devbind.py"
      }
    }
"""


@pytest.fixture
def paste(node: LabNode, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """What Multus of 2017 made of the `args`, on this machine's PF."""

    def build(args: str) -> dict[str, Any]:
        config = {"type": "sriov"} | json.loads(args) | {"if0": node.pf_netdev}
        if "ipam" in config:
            config["ipam"]["dataDir"] = str(tmp_path / "leases")
        return dict(config)

    return build


def test_pod_of_section_4_3(plugin: Plugin, sandbox: Any, paste: Any, node: LabNode) -> None:
    """`net0` has 10.56.217.171, `north` has VLAN 210 and no address, and the PF shows the VLAN of that VF only."""
    pod = sandbox("multus-multi-net-pod")
    kernel, north = paste(SRIOV_CONF), paste(SRIOV_VLANID_L2ENABLE_CONF)

    assert plugin.add(pod, kernel, "net0") == {
        "cniVersion": "0.1.0",
        "ip4": {"ip": "10.56.217.171/24", "gateway": "10.56.217.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "dns": {},
    }
    assert plugin.add(pod, north, "net1") == {"cniVersion": "0.1.0", "dns": {}}

    links = {link["ifname"]: link for link in json.loads(pod.run("ip", "-j", "address").stdout)}
    assert sorted(links) == ["lo", "net0", "north"]
    net0 = [(a["local"], a["prefixlen"]) for a in links["net0"]["addr_info"] if a["family"] == "inet"]
    assert net0 == [("10.56.217.171", 24)]
    assert [a for a in links["north"]["addr_info"] if a["family"] == "inet"] == []
    assert {"UP", "BROADCAST", "MULTICAST"} <= set(links["net0"]["flags"]) & set(links["north"]["flags"])
    assert "default via 10.56.217.1 dev net0" in pod.run("ip", "route").stdout
    shown = subprocess.run(["ip", "link", "show", node.pf_netdev], capture_output=True, text=True, check=True).stdout
    lines = [line.strip() for line in shown.splitlines() if line.strip().startswith("vf ")]
    assert [", vlan 210, " in line for line in lines] == [False, True, False, False]
    assert lines[1].startswith("vf 1 ")
    assert "spoof checking" in lines[1]
    assert "link-state auto" in lines[1]

    plugin.delete(pod, north, "net1")
    plugin.delete(pod, kernel, "net0")
    plugin.delete(pod, kernel, "net0")


def test_dpdk_of_section_5_1_3(plugin: Plugin, sandbox: Any, paste: Any, node: LabNode) -> None:
    """The first free VF is bound to igb_uio without the tool, which is not there, and comes back to its own driver."""
    pod = sandbox("dpdk")
    config = paste(DPDK_DELEGATE)

    assert plugin.add(pod, config, "net0") == {"cniVersion": "0.1.0", "dns": {}}

    driver = Path("/sys/bus/pci/devices", node.vf(0), "driver").readlink().name
    assert driver == "igb_uio"
    assert Path("/dev/uio0").exists()
    assert node.vf(0) in (plugin.root / "journal" / plugin.attachments()[0]).read_text()
    plugin.delete(pod, config, "net0")


def test_dpdk_tool_is_never_run(plugin: Plugin, sandbox: Any, paste: Any, node: LabNode, tmp_path: Path) -> None:
    """Not even a file of root's that only root can write: root in a container makes such files. The driver is bound."""
    tool = tmp_path / "tool"
    tool.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path / "calls"}\n')
    tool.chmod(0o755)
    config = paste(DPDK_DELEGATE)
    config["dpdk"]["dpdk_tool"] = str(tool)
    pod = sandbox("dpdk")

    plugin.add(pod, config)
    assert Path("/sys/bus/pci/devices", node.vf(0), "driver").readlink().name == "igb_uio"
    plugin.delete(pod, config)
    assert not (tmp_path / "calls").exists()


def test_vf_index_is_exact(plugin: Plugin, sandbox: Any, paste: Any, node: LabNode) -> None:
    """`vf` names the VF; one that another pod has is refused with its owner, one that is not there by number."""
    pod, other = sandbox("pod-a"), sandbox("pod-b")
    config = paste(SRIOV_VLANID_L2ENABLE_CONF) | {"vf": 3}
    plugin.add(pod, config)

    assert node.vlan(3) == 210
    with pytest.raises(CniFailureError, match="pod default/pod-a") as busy:
        plugin.add(other, config)
    assert busy.value.code == 100
    with pytest.raises(CniFailureError, match="has no VF 9"):
        plugin.add(other, config | {"vf": 9})
    plugin.delete(other, config)
    plugin.delete(pod, config)


def test_parallel_pods_get_different_vfs(plugin: Plugin, sandbox: Any, paste: Any, node: LabNode) -> None:
    """Choosing is done under the lock of the PF; the last one reads who has them all."""
    pods = [sandbox(f"pod-{number}") for number in range(5)]
    config = paste(SRIOV_VLANID_L2ENABLE_CONF)

    def add(pod: Sandbox) -> str:
        try:
            plugin.add(pod, config)
        except CniFailureError as error:
            return error.message
        return ""

    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(add, pods))

    refused = [answer for answer in answers if answer]
    assert len(refused) == 1
    assert "is free" in refused[0]
    assert refused[0].count("is attached to pod default/") + refused[0].count("another request works on") <= 4
    assert [node.vlan(index) for index in range(4)] == [210] * 4
    for pod in pods:
        plugin.delete(pod, config)


def test_device_plugin_s_choice_wins(plugin: Plugin, sandbox: Any, paste: Any, node: LabNode) -> None:
    """With a deviceID the PF's name is only held against it."""
    pod = sandbox("pod-a")
    config = paste(SRIOV_VLANID_L2ENABLE_CONF) | {"deviceID": node.vf(2)}
    plugin.add(pod, config)
    assert node.vlan(2) == 210
    plugin.delete(pod, config)

    with pytest.raises(CniFailureError, match="if0 is lo") as wrong:
        plugin.add(pod, config | {"if0": "lo"})
    assert wrong.value.code == 7


def test_host_s_own_vf_is_left_alone(plugin: Plugin, sandbox: Any, paste: Any, node: LabNode) -> None:
    """A VF with an address of the host is not free, although its netdev is here."""
    pod = sandbox("pod-a")
    config = paste(SRIOV_VLANID_L2ENABLE_CONF)
    host = node.netdev(0)
    subprocess.run(["ip", "address", "add", "192.0.2.1/24", "dev", host], check=True)
    try:
        plugin.add(pod, config)
        assert (node.vlan(0), node.vlan(1)) == (0, 210)
        plugin.delete(pod, config)
    finally:
        subprocess.run(["ip", "address", "flush", "dev", host], check=True)
