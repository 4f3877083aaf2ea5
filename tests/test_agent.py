"""The agent as a whole, on a fake sysfs tree and with a scripted kubelet: what it offers as the node changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cni.release import boot_id
from sriovdp.agent import Agent, Roots
from sriovdp.config.file import parse
from sriovdp.errors import SriovdpError
from sriovdp.journal import Attachment, Journal, Original
from tests.fakes.kubelet import AdmissionError, Kubelet
from tests.fakes.sysfs import PF, Tree, connect, vf_address

KERNEL, DPDK = "intel.com/sriov", "intel.com/sriov_dpdk"
CONFIG = """
physicalFunctions:
  - select: {pfNames: [enp1s0]}
    numVfs: 4
    vfs: [{range: "2-3", driver: vfio-pci}]
resourceList:
  - {resourceName: sriov, selectors: {drivers: [igbvf]}}
  - {resourceName: sriov_dpdk, selectors: {drivers: [vfio-pci]}}
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A node with one PF without VFs."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf()
    return tree


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[Kubelet]:
    """A kubelet with a plugin watcher."""
    async with Kubelet(tmp_path / "k") as kubelet:
        yield kubelet


@asynccontextmanager
async def _run_agent(tree: Tree, tmp_path: Path) -> AsyncIterator[None]:
    roots = Roots(tree.root, tmp_path / "k", tmp_path / "run", tmp_path / "state")
    stop = asyncio.Event()
    agent = asyncio.create_task(Agent(parse(CONFIG, "test"), roots, rescan_interval=0.1).run(stop))
    try:
        yield
    finally:
        stop.set()
        await agent


def _owe(tmp_path: Path, device: str) -> Attachment:
    """Write down that a VF did not come back from a pod, and can not: its driver is not there any more."""
    config = {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov"}
    attachment = Attachment(
        container_id="c1",
        ifname="net1",
        network="net-a",
        device=device,
        mode="kernel",
        original=Original("no-such-driver", None, "eth1"),
        netns="/run/netns/gone",
        netns_dev=0,
        netns_ino=0,
        boot_id=boot_id(),
        config=config,
        args="K8S_POD_NAME=red",
        phase="releasing",
    )
    Journal(tmp_path / "state/journal").write_attachment(attachment)
    return attachment


async def test_provisions_and_offers_each_vf_in_its_pool(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """VFs are made, the kubelet sees them, and a container gets its device nodes."""
    async with _run_agent(tree, tmp_path):
        assert await kubelet.wait_for(KERNEL, count=2) == [vf_address(PF, 0), vf_address(PF, 1)]
        assert await kubelet.wait_for(DPDK, count=2) == [vf_address(PF, 2), vf_address(PF, 3)]
        pod = await kubelet.admit("red", {DPDK: 1})
    assert pod.envs["PCIDEVICE_INTEL_COM_SRIOV_DPDK"] == vf_address(PF, 2)
    assert [node.host_path for node in pod.nodes] == ["/dev/vfio/vfio", "/dev/vfio/12"]


async def test_a_vf_that_loses_its_driver_is_unhealthy_until_it_has_one(
    tree: Tree, kubelet: Kubelet, tmp_path: Path
) -> None:
    """The node is looked at again and again, and the kubelet told what changed."""
    async with _run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        tree.unbind(vf_address(PF, 2))
        assert await kubelet.wait_for(DPDK, count=1, healthy=False) == [vf_address(PF, 2)]
        with pytest.raises(AdmissionError, match=vf_address(PF, 2)):
            await kubelet.allocate(DPDK, [vf_address(PF, 2)])
        tree.bind(vf_address(PF, 2), "vfio-pci")
        await kubelet.wait_for(DPDK, count=2)


async def test_a_vf_that_did_not_come_back_is_given_to_nobody(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """A release that fails keeps the VF out of the kubelet's hands, and the reason names the pod."""
    async with _run_agent(tree, tmp_path):
        await kubelet.wait_for(KERNEL, count=2)
        _owe(tmp_path, vf_address(PF, 0))
        assert await kubelet.wait_for(KERNEL, count=1) == [vf_address(PF, 1)]
        with pytest.raises(AdmissionError, match="not back from pod default/red"):
            await kubelet.allocate(KERNEL, [vf_address(PF, 0)])


async def test_a_node_that_can_not_be_provisioned_is_offered_as_it_is(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is refused is told; the pods that can run shall run."""
    tree.write(tree.pci(PF) / "sriov_numvfs", "3")
    for index in range(3):
        tree.unbind(vf_address(PF, index))
        tree.bind(vf_address(PF, index), "igbvf")
    Journal(tmp_path / "state/journal").write_attachment(replace(_owe(tmp_path, vf_address(PF, 0)), phase="attached"))
    async with _run_agent(tree, tmp_path):
        assert len(await kubelet.wait_for(KERNEL, count=3)) == 3
    assert "the node is not as the config says: refused" in caplog.text


async def test_a_second_agent_is_refused(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """One agent serves a node; the second says so and leaves the first alone."""
    async with _run_agent(tree, tmp_path):
        await kubelet.wait_for(KERNEL, count=2)
        roots = Roots(tree.root, tmp_path / "k", tmp_path / "run", tmp_path / "state")
        with pytest.raises(SriovdpError, match="another sriovdp agent"):
            await Agent(parse(CONFIG, "test"), roots).run(asyncio.Event())
        assert len(await kubelet.wait_for(KERNEL, count=2)) == 2
