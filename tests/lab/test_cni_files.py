"""Files that a network names, with whole ADDs and DELs on the real NIC and the node's own folders."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni.policy import Policy
from tests.fakes.runtime import CniFailureError, Plugin
from tests.lab.node import LabNode

pytestmark = pytest.mark.lab(hugepages=448)

CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 2
    vfs: [{range: "0", driver: kernel}, {range: "1", driver: vfio-pci}]
"""
SHELL_NAME = ";touch${IFS}W;#"
LOG = Path("/var/log/sriovdp-test.log")
INFO = Path("/var/run/k8s.cni.cncf.io/devinfo/cni/test.json")


@pytest.fixture
def as_shipped(plugin: Plugin) -> Iterator[Plugin]:
    """The plugin with the node's real folders."""
    yield replace(plugin, policy=Policy())
    for path in (LOG, INFO):
        path.unlink(missing_ok=True)


def network(node: LabNode, index: int = 0, **keys: Any) -> dict[str, Any]:
    """A network for one VF."""
    return {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": node.vf(index), **keys}


def test_other_folders_stay_as_they_are(as_shipped: Plugin, sandbox: Any, node: LabNode) -> None:
    """Neither a script of root's shells nor a network of the runtime; the refusal names the policy."""
    pod = sandbox("pod-a")
    runtime = {"CNIDeviceInfoFile": "/etc/cni/net.d/00-a.conf"}
    with pytest.raises(CniFailureError, match=r"cni\.deviceInfoFolders") as refused:
        as_shipped.add(pod, network(node, runtimeConfig=runtime))
    assert refused.value.code == 7
    as_shipped.delete(pod, network(node, runtimeConfig=runtime))

    config = network(node, logFile="/proc/1/root/etc/profile.d/x.sh")
    as_shipped.add(pod, config, SHELL_NAME)
    as_shipped.delete(pod, config, SHELL_NAME)
    assert not Path("/etc/profile.d/x.sh").exists()
    assert not Path("/etc/cni/net.d/00-a.conf").exists()


def test_log_on_the_node_is_inert(as_shipped: Plugin, sandbox: Any, node: LabNode, tmp_path: Path, caplog: Any) -> None:
    """An interface's name that is a shell's command runs nowhere."""
    caplog.set_level("INFO")
    pod = sandbox("pod-a")
    config = network(node, logFile=str(LOG))
    as_shipped.add(pod, config, SHELL_NAME)
    as_shipped.delete(pod, config, SHELL_NAME)
    assert "touch\\x24{IFS}W" in LOG.read_text()
    subprocess.run(["sh", str(LOG)], cwd=tmp_path, capture_output=True, check=False)
    assert not (tmp_path / "W").exists()


def test_device_info_of_another_program_stays(as_shipped: Plugin, sandbox: Any, node: LabNode) -> None:
    """DEL removes the file that ADD made, and none that came in its place."""
    pod = sandbox("pod-a")
    config = network(node, runtimeConfig={"CNIDeviceInfoFile": str(INFO)})
    as_shipped.add(pod, config)
    assert json.loads(INFO.read_text())["pci"]["pci-address"] == node.vf(0)
    as_shipped.delete(pod, config)
    assert not INFO.exists()

    as_shipped.add(pod, config)
    other = INFO.with_name("other")
    other.write_text("another program's")
    other.replace(INFO)
    as_shipped.delete(pod, config)
    assert INFO.read_text() == "another program's"


def test_dpdk_mode_reports_the_pfs_mtu_and_names_what_it_does_not_have(
    as_shipped: Plugin, sandbox: Any, node: LabNode, caplog: Any
) -> None:
    """More than the PF has is refused before anything is changed."""
    pod = sandbox("pod-a")
    assert as_shipped.add(pod, network(node, 1, promisc=True))["interfaces"][0]["mtu"] == 1500
    assert "promisc has no effect in DPDK mode" in caplog.text
    as_shipped.delete(pod, network(node, 1))
    with pytest.raises(CniFailureError, match="mtu is 9000, but its PF") as refused:
        as_shipped.add(pod, network(node, 1, mtu=9000))
    assert refused.value.code == 7
    as_shipped.delete(pod, network(node, 1))


def test_node_policy_refuses_by_key(plugin: Plugin, sandbox: Any, node: LabNode) -> None:
    """With code 7; the VF is as it was, and what is allowed works."""
    strict = replace(plugin, policy=Policy(trust=False, vlans=((100, 199),)))
    pod, before = sandbox("pod-a"), node.look()
    for keys, key in (({"trust": "on"}, "cni.allow.trust"), ({"vlan": 200}, "cni.allow.vlans")):
        with pytest.raises(CniFailureError, match=key) as refused:
            strict.add(pod, network(node, **keys))
        assert refused.value.code == 7
        strict.delete(pod, network(node, **keys))
    assert node.look() == before
    strict.add(pod, network(node, vlan=150, trust="off"))
    assert node.vlan(0) == 150
    strict.delete(pod, network(node, vlan=150))
