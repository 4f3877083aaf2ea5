"""Pools on real PFs: what `explain` says is what the kubelet is told, and a recording says the same as the node."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import NetDevice, Node
from sriovdp.node.inventory import take_snapshot
from tests.fakes.kubelet import Kubelet
from tests.lab.node import AgentProcess, LabNode, QuickNode, list_pfs

pytestmark = pytest.mark.lab(pfs=2, roots=True, wire=True, hugepages=448)

COUNTS = {"named": 2, "rooted": 3, "single": 1, "dpdk": 4, "rest": 4}


def _list_pfs() -> list[tuple[str, str]]:
    """Address and netdev of each PF of the guest."""
    return [(path.name, next((path / "net").iterdir()).name) for path in list_pfs()]


def _write_config() -> str:
    """Two PFs of 7 VFs, 4-5 of each for DPDK, in five pools; VF 6 of the first PF goes by its PCI address."""
    (first, first_name), (second, _) = _list_pfs()
    routing = int(first[5:7], 16) * 256 + 128 + 2 * 6
    single = f"0000:{routing >> 8:02x}:{routing >> 3 & 31:02x}.{routing & 7}"
    return json.dumps(
        {
            "physicalFunctions": [
                {
                    "select": {"rootDevices": [first, second]},
                    "numVfs": 7,
                    "vfs": [{"range": "4-5", "driver": "vfio-pci"}],
                }
            ],
            "resourceList": [
                {"resourceName": "named", "selectors": {"pfNames": [f"{first_name}#0", f"{first_name}#1"]}},
                {"resourceName": "rooted", "selectors": {"rootDevices": [f"{second}#0-2"], "drivers": ["igbvf"]}},
                {"resourceName": "single", "selectors": {"pciAddresses": [single]}},
                {"resourceName": "dpdk", "selectors": {"vendors": ["8086"], "drivers": ["vfio-pci"]}},
                {
                    "resourceName": "rest",
                    "selectors": [{"devices": ["ffff"]}, {"linkTypes": ["ether"], "devices": ["10ca"]}],
                },
            ],
        }
    )


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LabNode]:
    """The lab's node without VFs, and a config that splits both PFs."""
    (tmp_path / "config.json").write_text(_write_config())
    yield QuickNode(tmp_path / "config.json")
    for address, _ in _list_pfs():
        (Path("/sys/bus/pci/devices") / address / "sriov_numvfs").write_text("0")


@pytest.fixture
async def kubelet(root: Path) -> AsyncIterator[Kubelet]:
    """A kubelet with a plugin watcher, which an agent has registered with."""
    (root / "kubelet/plugins_registry").mkdir(parents=True)
    async with Kubelet(root / "kubelet") as kubelet:
        yield kubelet


async def test_explain_says_what_the_kubelet_is_told(
    node: LabNode, kubelet: Kubelet, root: Path, tmp_path: Path
) -> None:
    """Each VF is in the pool that explain names, live and recorded; validate foresees it."""
    checked = await asyncio.to_thread(node.run_sriovdp, "validate", "--config", str(node.config))
    warning = "warning: line 1: resourceList[4].selectors[0]: no device of this node matches\n"
    assert (checked.returncode, checked.stderr) == (0, warning)
    agent = AgentProcess(node.config, root)
    await asyncio.to_thread(agent.start)
    try:
        told = {
            f"intel.com/{name}": sorted(await kubelet.wait_for(f"intel.com/{name}", count=count))
            for name, count in COUNTS.items()
        }
        live, recorded, text, snapshots = await asyncio.to_thread(_look, node, tmp_path / "recorded")
    finally:
        await asyncio.to_thread(agent.stop)
    explained: dict[str, list[str]] = {}
    for verdict in json.loads(live):
        if verdict["resource"]:
            explained.setdefault(verdict["resource"], []).append(verdict["id"])
    assert {name: sorted(ids) for name, ids in explained.items()} == told
    assert json.loads(recorded) == json.loads(live)
    assert all(f"{device}  " in text for devices in told.values() for device in devices)
    assert _without_macs(snapshots[0]) == _without_macs(snapshots[1])
    assert snapshots[0].pfs[0].bridges
    assert [pf.vf_device for pf in snapshots[0].pfs if pf.total_vfs] == ["10ca", "10ca"]


def _look(node: LabNode, recorded: Path) -> tuple[str, str, str, tuple[Node, Node]]:
    """What explain says of the node, of its recording, and for people; and a snapshot of both."""
    explain = ("explain", "--config", str(node.config))
    live = node.sriovdp(*explain, "--json").stdout
    node.sriovdp("record", str(recorded))
    replayed = node.sriovdp(*explain, "--json", "--sysfs", str(recorded)).stdout
    text = node.sriovdp(*explain).stdout
    return live, replayed, text, (take_snapshot(Sysfs()), take_snapshot(Sysfs(recorded)))


def _without_macs(node: Node) -> Node:
    def netdev(device: NetDevice | None) -> NetDevice | None:
        return replace(device, mac="", permanent_mac="") if device else None

    pfs = []
    for pf in node.pfs:
        vfs = tuple(
            replace(vf, netdev=netdev(vf.netdev), settings=replace(vf.settings, mac="") if vf.settings else None)
            for vf in pf.vfs
        )
        pfs.append(replace(pf, netdev=netdev(pf.netdev), vfs=vfs))
    return replace(node, pfs=tuple(pfs))
