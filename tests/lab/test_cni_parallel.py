"""All VFs of two PFs at once: every pod gets its own, and all is as before when they are gone."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.runtime import Runtime
from tests.lab.node import AgentProcess, LabNode

pytestmark = pytest.mark.lab(pfs=2, wire=True)

CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 7
resourceList:
  - {resourceName: sriov, selectors: {drivers: [igbvf]}}
"""
ROUNDS = int(os.environ.get("SRIOVDP_ROUNDS", "2"))  # docs/lab.md says how to run more


@pytest.fixture(scope="module")
def other(node: LabNode) -> Iterator[LabNode]:
    """The second PF."""
    other = LabNode(node.config, 1)
    yield other
    other.remove_vfs()


def _take_mac_writes() -> int:
    """How often igb was given an admin MAC since this was asked last, before the kernel's log forgets it.

    What igb says besides whenever a VF is set up or down is its driver's own affair.
    """
    return subprocess.check_output(["dmesg", "--read-clear"], text=True).count(": setting MAC ")


def test_fourteen_pods_at_once_round_after_round(
    node: LabNode, other: LabNode, agent: AgentProcess, sandbox: Any, tmp_path: Path
) -> None:
    """No error, no address twice, nothing left, and no MAC written that was there before."""
    runtime = Runtime(Path("build/sriov").resolve(), agent.socket)
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.56.217.0/24"}]], "dataDir": str(tmp_path / "leases")}
    network = {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "ipam": ipam}
    devices = [pf.vf(index) for pf in (node, other) for index in range(7)]
    pods = [sandbox(f"pod-{number}") for number in range(len(devices))]
    configs = [network | {"deviceID": device, "vlan": 100 + number} for number, device in enumerate(devices)]
    before = (node.look(), other.look())
    assert _take_mac_writes() == len(pods), "each VF was given its MAC when it was made"
    for turn in range(ROUNDS):
        with ThreadPoolExecutor(len(pods)) as pool:
            results = list(pool.map(runtime.add, pods, configs))
            assert len({result["ips"][0]["address"] for result in results}) == len(pods)
            assert [pf.vlan(index) for pf in (node, other) for index in range(7)] == [*range(100, 114)]
            list(pool.map(runtime.delete, pods, configs))
        assert (node.look(), other.look()) == before, f"after round {turn}"
        assert _take_mac_writes() == 0, f"in round {turn}"
        assert agent.attachments() == [], agent.log()
        assert list((tmp_path / "leases").rglob("10.*")) == []
