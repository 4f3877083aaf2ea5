"""The agent with a kubelet on a real SR-IOV NIC: from a pod's request to a VF in its sandbox, and through restarts."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fakes.kubelet import AdmissionError, Kubelet
from tests.fakes.runtime import Runtime, Sandbox
from tests.lab.node import AgentProcess, LabNode
from tests.scraping import find_steps, scrape

pytestmark = pytest.mark.lab(hugepages=448)

CONFIG = Path("config/sample.yaml")
METRICS = 9819
LAUNCHER = Path("build/sriov").resolve()
KERNEL, VFIO, UIO = "intel.com/sriov", "intel.com/sriov_dpdk", "intel.com/sriov_igb_uio"


@pytest.fixture
def node() -> Iterator[LabNode]:
    """The lab's node without VFs: the agent has to make them."""
    node = LabNode(CONFIG)
    node.remove_vfs()
    yield node
    node.remove_vfs()


@pytest.fixture
async def kubelet(root: Path) -> AsyncIterator[Kubelet]:
    """A kubelet with a plugin watcher."""
    (root / "kubelet/plugins_registry").mkdir(parents=True)
    async with Kubelet(root / "kubelet") as kubelet:
        yield kubelet


@pytest.fixture
async def agent(node: LabNode, kubelet: Kubelet, root: Path) -> AsyncIterator[AgentProcess]:
    """A running agent, which provisioned the node."""
    agent = AgentProcess(CONFIG, root, (f"--metrics=127.0.0.1:{METRICS}",))
    await asyncio.to_thread(agent.start)
    yield agent
    await asyncio.to_thread(agent.stop)


def _group(address: str) -> str:
    return Path(f"/sys/bus/pci/devices/{address}/iommu_group").resolve().name


def _is_device(path: str) -> bool:
    return Path(path).is_char_device()


async def test_pools_of_the_sample_are_offered_and_allocated(
    node: LabNode, kubelet: Kubelet, agent: AgentProcess
) -> None:
    """The agent provisions, the kubelet sees each VF in its pool, and a container gets environment and device nodes."""
    offered = [
        await kubelet.wait_for(KERNEL, count=4),
        await kubelet.wait_for(VFIO, count=2),
        await kubelet.wait_for(UIO, count=1),
    ]
    assert [sorted(ids) for ids in offered] == [
        [node.vf(index) for index in indices] for indices in ((0, 1, 2, 3), (4, 5), (6,))
    ]

    pod = await kubelet.admit("pod", {VFIO: 1, UIO: 1})
    [vfio], [uio] = pod.devices[VFIO], pod.devices[UIO]

    assert (pod.envs["PCIDEVICE_INTEL_COM_SRIOV_DPDK"], pod.envs["PCIDEVICE_INTEL_COM_SRIOV_IGB_UIO"]) == (vfio, uio)
    paths = {device.host_path for device in pod.nodes}
    assert paths == {"/dev/vfio/vfio", f"/dev/vfio/{_group(vfio)}", "/dev/uio0"}
    assert all(_is_device(path) for path in paths)
    folder = (Path("/sys/bus/pci/devices") / uio).resolve()
    files = {mount.host_path for mount in pod.mounts}
    assert files == {str(path) for path in (folder / "config", *folder.glob("resource[0-9]*"))}
    info = Path(f"/var/run/k8s.cni.cncf.io/devinfo/dp/intel.com-sriov_dpdk-{vfio}-device.json")
    assert json.loads(await asyncio.to_thread(info.read_text))["pci"] == {
        "pci-address": vfio,
        "pf-pci-address": node.pf.name,
    }
    with pytest.raises(AdmissionError):
        await kubelet.allocate(KERNEL, ["0000:ff:1f.7"])


async def test_agent_restart_under_a_running_pod(node: LabNode, kubelet: Kubelet, agent: AgentProcess) -> None:
    """A killed agent comes back while a pod has a VF: the pod keeps it, and its DEL puts all back."""
    await kubelet.wait_for(KERNEL, count=4)
    before = node.look()
    admitted = await kubelet.admit("pod-restart", {KERNEL: 1})
    sandbox = Sandbox("pod-restart").create()
    runtime = Runtime(LAUNCHER, agent.socket)
    config = {
        "cniVersion": "1.0.0",
        "name": "net-a",
        "type": "sriov",
        "deviceID": admitted.devices[KERNEL][0],
        "vlan": 210,
    }
    try:
        await asyncio.to_thread(runtime.add, sandbox, config)
        added = await asyncio.to_thread(scrape, METRICS)
        agent.kill()
        await asyncio.to_thread(agent.start)
        assert len(await kubelet.wait_for(KERNEL, count=4)) == 4, "a VF in use is still offered, and healthy"
        assert "net1" in sandbox.run("ip", "-br", "link").stdout
        await asyncio.to_thread(runtime.delete, sandbox, config)
        deleted = await asyncio.to_thread(scrape, METRICS)
    finally:
        sandbox.remove()
    assert find_steps(added, "ADD") >= {"state and journal", "settings on the PF", "move and rename", "interface up"}
    assert find_steps(deleted, "DEL") >= {"move home", "settings on the PF", "VF back and compared"}
    assert node.look() == before
    assert agent.attachments() == [], agent.log()


async def test_a_vf_that_lost_its_driver_turns_unhealthy(node: LabNode, kubelet: Kubelet, agent: AgentProcess) -> None:
    """What the pool cannot give any more is reported to the kubelet, and is back once it can."""
    await kubelet.wait_for(VFIO, count=2)
    (node.pf / "virtfn4/driver/unbind").write_text(node.vf(4))
    assert await kubelet.wait_for(VFIO, count=1) == [node.vf(5)]
    await asyncio.to_thread(node.apply)
    assert sorted(await kubelet.wait_for(VFIO, count=2)) == [node.vf(4), node.vf(5)]
