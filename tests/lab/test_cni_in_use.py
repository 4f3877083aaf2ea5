"""ADD leaves alone what this host or a program on it uses."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.runtime import CniFailureError, Plugin
from tests.lab.node import LabNode

pytestmark = pytest.mark.lab

CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 2
    vfs: [{range: "0", driver: kernel}, {range: "1", driver: vfio-pci}]
"""


def network(node: LabNode, index: int, **keys: Any) -> dict[str, Any]:
    """A network that names the VF."""
    return {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": node.vf(index), **keys}


def ip(*words: str) -> None:
    """Run a command of iproute2."""
    subprocess.run(["ip", *words], check=True)


def test_a_vf_with_an_address_of_the_host_stays(plugin: Plugin, sandbox: Any, node: LabNode) -> None:
    """Refused by its name and the address, and the host keeps its route; free again once the address is gone."""
    pod, name = sandbox("pod-a"), node.netdev(0)
    ip("address", "add", "10.9.9.1/24", "dev", name)
    ip("link", "set", name, "up")
    ip("route", "add", "10.88.0.0/16", "via", "10.9.9.254", "dev", name)
    with pytest.raises(CniFailureError, match=f"is used by this host: {name} has address 10.9.9.1/24") as refused:
        plugin.add(pod, network(node, 0, vlan=7))
    assert refused.value.code == 100
    assert name in subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    assert node.vlan(0) == 0
    ip("address", "flush", "dev", name)
    ip("link", "set", name, "down")
    plugin.add(pod, network(node, 0))
    plugin.delete(pod, network(node, 0))


def test_a_vf_that_a_program_has_open_stays(plugin: Plugin, sandbox: Any, node: LabNode) -> None:
    """Nothing of it is changed on the PF."""
    pod = sandbox("pod-a")
    group = Path("/sys/bus/pci/devices", node.vf(1), "iommu_group").readlink().name
    before = node.look_vf(1)
    holder = os.open(f"/dev/vfio/{group}", os.O_RDWR)
    try:
        with pytest.raises(CniFailureError, match=f"is used by process {os.getpid()}") as refused:
            plugin.add(pod, network(node, 1, vlan=666, trust="on"))
    finally:
        os.close(holder)
    assert refused.value.code == 100
    assert node.look_vf(1) == before
    plugin.add(pod, network(node, 1, vlan=666))
    plugin.delete(pod, network(node, 1))
