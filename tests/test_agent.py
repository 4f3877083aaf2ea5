"""The agent as a whole, on a fake sysfs tree and with a scripted kubelet: what it offers as the node changes."""

import asyncio
import json
import logging
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cni.release import boot_id
from sriovdp import pool_service
from sriovdp.agent import Agent, Roots
from sriovdp.config.file import parse
from sriovdp.errors import SriovdpError
from sriovdp.journal import Attachment, Journal, Original
from sriovdp.provision import change
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
def tmp_path() -> Iterator[Path]:
    """A folder with a short name, as a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A node with one PF without VFs."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf()
    (tmp_path / "dev/vfio").mkdir(parents=True)
    for name in ("vfio", *map(str, range(10, 17))):
        (tmp_path / "dev/vfio" / name).touch()
    return tree


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[Kubelet]:
    """A kubelet with a plugin watcher."""
    async with Kubelet(tmp_path / "k") as kubelet:
        yield kubelet


def _roots(tree: Tree, folder: Path) -> Roots:
    return Roots(
        sysfs=tree.root,
        dev=folder / "dev",
        kubelet=folder / "k",
        run=folder / "run",
        state=folder / "state",
        device_info=folder / "devinfo",
        cdi=folder / "cdi",
    )


@asynccontextmanager
async def _run_agent(
    tree: Tree, tmp_path: Path, config: str = CONFIG, *, rescan_interval: float = 0.1
) -> AsyncIterator[Agent]:
    stop = asyncio.Event()
    agent = Agent(parse(config, "test"), _roots(tree, tmp_path), rescan_interval=rescan_interval)
    task = asyncio.create_task(agent.run(stop))
    try:
        yield agent
    finally:
        stop.set()
        await task


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


async def test_a_stop_does_not_wait_for_a_change_that_hangs(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel keeps the write of sriov_numvfs for itself; the agent's event loop and its stop go on."""
    hanging, let_go = threading.Event(), threading.Event()

    def write(path: Path, text: str) -> None:
        if path.name == "sriov_numvfs":
            hanging.set()
            let_go.wait(60)
        tree.write(path, text)

    monkeypatch.setattr(change, "write_text", write)
    try:
        async with _run_agent(tree, tmp_path):
            assert await asyncio.to_thread(hanging.wait, 30)
        assert not let_go.is_set()
    finally:
        let_go.set()


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


async def test_what_the_kubelet_says_is_in_use_is_not_changed(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A pod that has a VF and did not attach it yet is as good as any: the next agent leaves the PF as it is."""
    async with _run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        await kubelet.admit("red", {DPDK: 1})
    async with _run_agent(tree, tmp_path, CONFIG.replace("numVfs: 4", "numVfs: 5")):
        await kubelet.wait_for(DPDK, count=2)
        assert len(await kubelet.wait_for(KERNEL, count=2)) == 2
    assert f"VF 2 ({vf_address(PF, 2)}) is used by pod default/red (container main)" in caplog.text


async def test_drift_is_told_once(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A driver that somebody changed is in the log when it happens, then as drift, and when it is settled."""
    caplog.set_level(logging.INFO)
    drift = f"the node is not as its config says: enp1s0 VF 2 ({vf_address(PF, 2)}): bind to vfio-pci: "
    async with _run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        tree.unbind(vf_address(PF, 2))
        await _wait_until(lambda: drift in caplog.text)
        assert f"VF 2 ({vf_address(PF, 2)}) of enp1s0 went from vfio-pci to no driver" in caplog.text
        looks = len(caplog.messages)
        tree.unbind(vf_address(PF, 3))
        await _wait_until(lambda: f"VF 3 ({vf_address(PF, 3)}): bind" in caplog.text)
        assert len(caplog.messages) > looks
        assert caplog.text.count(drift) == 1
        tree.bind(vf_address(PF, 2), "vfio-pci")
        await _wait_until(lambda: f"this is settled: enp1s0 VF 2 ({vf_address(PF, 2)})" in caplog.text)
    assert caplog.text.count(drift) == 1


async def test_what_the_config_is_warned_of_is_told(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who reads the agent's log sees what `validate` would have said of the file."""
    config = CONFIG + "  - {resourceName: late, selectors: {drivers: [vfio-pci]}}\n"
    async with _run_agent(tree, tmp_path, config):
        await kubelet.wait_for(DPDK, count=2)
    assert "in the config: line 9: resourceList[2]: gets no device" in caplog.text


async def test_a_second_agent_is_refused(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """One agent serves a node; the second says so and leaves the first alone."""
    async with _run_agent(tree, tmp_path):
        await kubelet.wait_for(KERNEL, count=2)
        with pytest.raises(SriovdpError, match="another sriovdp agent"):
            await Agent(parse(CONFIG, "test"), _roots(tree, tmp_path)).run(asyncio.Event())
        assert len(await kubelet.wait_for(KERNEL, count=2)) == 2


async def _wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - there is nothing that would tell
            await asyncio.sleep(0.02)


def _move_to_group(tree: Tree, address: str, group: int) -> None:
    """What a reboot can do to a VF."""
    link = tree.pci(address) / "iommu_group"
    link.unlink()
    link.symlink_to(tree.root / f"kernel/iommu_groups/{group}")


async def test_files_of_a_pods_devices_live_as_long_as_the_pod(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Device-info and grant are there from Allocate on, survive the agent, come back when lost, and go with the pod."""
    monkeypatch.setattr(pool_service, "_GRACE", 0.0)
    async with _run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        [device] = (await kubelet.admit("red", {DPDK: 1})).devices[DPDK]
        info = tmp_path / f"devinfo/intel.com-sriov_dpdk-{device}-device.json"
        grant = tmp_path / f"state/grants/intel.com_sriov_dpdk/{device}.json"
        wanted = {"type": "pci", "version": "1.1.0", "pci": {"pci-address": device, "pf-pci-address": PF}}
        assert json.loads(await asyncio.to_thread(info.read_text)) == wanted
        assert grant.is_file()
    assert info.is_file()
    await asyncio.to_thread(shutil.rmtree, tmp_path / "devinfo")  # a reboot: it is on tmpfs
    async with _run_agent(tree, tmp_path):
        await _wait_until(info.is_file)
        await kubelet.wait_for(DPDK, count=2)
        await kubelet.start_container(DPDK, [device])
        kubelet.remove("red")
        await _wait_until(lambda: not info.exists() and not grant.exists())


async def test_a_container_is_not_started_with_what_is_no_longer_its_own(
    tree: Tree, kubelet: Kubelet, tmp_path: Path
) -> None:
    """What the kubelet has in its checkpoint is held against the VF: another group, another driver, no VF any more."""
    async with _run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        [device] = (await kubelet.admit("red", {DPDK: 1})).devices[DPDK]
        group = int((tree.pci(device) / "iommu_group").readlink().name)
        _move_to_group(tree, device, 16)
        with pytest.raises(AdmissionError, match=f"container has node /dev/vfio/{group}, and needs /dev/vfio/16"):
            await kubelet.start_container(DPDK, [device])
        _move_to_group(tree, device, group)
        await kubelet.start_container(DPDK, [device])
        await asyncio.to_thread((tmp_path / f"dev/vfio/{group}").unlink)
        with pytest.raises(AdmissionError, match=f"/dev/vfio/{group} is not there"):
            await kubelet.start_container(DPDK, [device])
        tree.unbind(device)
        with pytest.raises(AdmissionError, match=f"{device} has lost its driver"):
            await kubelet.start_container(DPDK, [device])
        tree.bind(device, "igbvf")
        with pytest.raises(AdmissionError, match="drivers wants vfio-pci, the device has igbvf"):
            await kubelet.start_container(DPDK, [device])


async def test_a_device_that_a_living_pod_has_attached_is_given_to_no_other(
    tree: Tree, kubelet: Kubelet, tmp_path: Path
) -> None:
    """A kubelet that lost its checkpoint may offer it again; once the pod is gone, its DEL is waited for by ADD."""
    async with _run_agent(tree, tmp_path):
        await kubelet.wait_for(KERNEL, count=2)
        device = vf_address(PF, 0)
        owed = _owe(tmp_path, device)
        Journal(tmp_path / "state/journal").write_attachment(replace(owed, phase="attached", netns="/proc/self/ns/net"))
        await kubelet.admit("red", {})
        await _wait_until_refused(kubelet, device)
        with pytest.raises(AdmissionError, match=rf"{device} is in use by pod default/red"):
            await kubelet.allocate(KERNEL, [device])
        kubelet.remove("red")
        await kubelet.allocate(KERNEL, [device])


async def _wait_until_refused(kubelet: Kubelet, device: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await kubelet.allocate(KERNEL, [device])
            except AdmissionError:
                return
            await asyncio.sleep(0.02)


async def test_devices_through_cdi(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """The kubelet gets names, and the specs in the folder have what belongs to them, right after a reboot too."""
    spec = tmp_path / "cdi/sriovdp-intel.com-net-pci-sriov_dpdk.json"
    async with _run_agent(tree, tmp_path, CONFIG + "cdi: true"):
        await kubelet.wait_for(DPDK, count=2)
        pod = await kubelet.admit("red", {DPDK: 1, KERNEL: 1})
        [device], [netdev] = pod.devices[DPDK], pod.devices[KERNEL]
        assert pod.cdi_devices == [f"intel.com/net-pci={device}", f"intel.com/net-pci={netdev}"]
        assert (pod.nodes, pod.mounts) == ([], [])
        assert _cdi_nodes(spec)[device] == ["/dev/vfio/vfio", "/dev/vfio/12"]
    await asyncio.to_thread(shutil.rmtree, tmp_path / "cdi")
    _move_to_group(tree, device, 16)
    async with _run_agent(tree, tmp_path, CONFIG + "cdi: true"):
        await kubelet.wait_for(DPDK, count=2)
        await kubelet.start_container(DPDK, [device])
        assert _cdi_nodes(spec)[device] == ["/dev/vfio/vfio", "/dev/vfio/16"]
        _move_to_group(tree, device, 15)  # and the start of a container does not wait for the next look
        await kubelet.start_container(DPDK, [device])
        assert _cdi_nodes(spec)[device] == ["/dev/vfio/vfio", "/dev/vfio/15"]
        assert (tmp_path / "cdi/sriovdp-intel.com-net-pci-sriov.json").is_file()


def _cdi_nodes(spec: Path) -> dict[str, list[str]]:
    devices = json.loads(spec.read_text())["devices"]
    return {device["name"]: [node["path"] for node in device["containerEdits"]["deviceNodes"]] for device in devices}


async def test_health_by_the_pools_policy(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """A pool that wants a link loses its VFs with it, and the other one does not; a missing device node counts too."""
    config = CONFIG.replace("drivers: [vfio-pci]}", "drivers: [vfio-pci]}, health: [deviceNodes, pfCarrier]")
    async with _run_agent(tree, tmp_path, config):
        await kubelet.wait_for(DPDK, count=2)
        carrier = tree.root / "class/net/enp1s0/carrier"
        await asyncio.to_thread(carrier.write_text, "0")
        await kubelet.wait_for(DPDK, count=2, healthy=False)
        with pytest.raises(AdmissionError, match="its PF enp1s0 has no link"):
            await kubelet.allocate(DPDK, [vf_address(PF, 2)])
        assert len(kubelet.offered()[KERNEL]) == 2
        await asyncio.to_thread(carrier.write_text, "1")
        await kubelet.wait_for(DPDK, count=2)
        await asyncio.to_thread((tmp_path / "dev/vfio/13").unlink)
        assert await kubelet.wait_for(DPDK, count=1, healthy=False) == [vf_address(PF, 3)]


async def test_a_vf_that_is_gone_stays_listed_while_a_pod_has_it(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet forgets what it is no longer told of: a pod's VF is unhealthy, and another that vanishes is gone."""
    monkeypatch.setattr(pool_service, "_GRACE", 0.0)
    async with _run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        [device] = (await kubelet.admit("red", {DPDK: 1})).devices[DPDK]
        for index in (2, 3):
            tree.remove(vf_address(PF, index))
            await asyncio.to_thread((tree.pci(PF) / f"virtfn{index}").unlink)
        await kubelet.wait_for(DPDK, count=0)
        assert await kubelet.wait_for(DPDK, count=1, healthy=False) == [device]


async def test_a_vf_that_went_while_the_agent_was_away_stays_listed(
    tree: Tree, kubelet: Kubelet, tmp_path: Path
) -> None:
    """What a pod has is listed by the next agent too, which never saw it fit for use."""
    async with _run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        [device] = (await kubelet.admit("red", {DPDK: 1})).devices[DPDK]
    tree.unbind(device)
    async with _run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=1)
        assert await kubelet.wait_for(DPDK, count=1, healthy=False) == [device]


async def test_a_vf_that_another_pools_pod_has_is_given_to_nobody(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """A new config calls the resource otherwise: what pods have by its old name is not free."""
    renamed = "intel.com/fast"
    async with _run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        [device] = (await kubelet.admit("red", {DPDK: 1})).devices[DPDK]
    async with _run_agent(tree, tmp_path, CONFIG.replace("sriov_dpdk", "fast")):
        assert await kubelet.wait_for(renamed, count=1, healthy=False) == [device]
        told = rf"{device} is not healthy: pod default/red \(container main\) has it as {DPDK}"
        with pytest.raises(AdmissionError, match=told):
            await kubelet.allocate(renamed, [device])
        kubelet.remove("red")
        await kubelet.wait_for(renamed, count=2)


async def test_the_kernels_events_are_followed_at_once(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """Nobody looks now and then, and yet a change that the kernel tells of reaches the kubelet."""
    async with _run_agent(tree, tmp_path, rescan_interval=3600) as agent:
        await kubelet.wait_for(DPDK, count=2)
        for _ in range(2):
            tree.unbind(vf_address(PF, 2))
            agent._events.event.set()
            await kubelet.wait_for(DPDK, count=1, healthy=False)
            tree.bind(vf_address(PF, 2), "vfio-pci")
            agent._events.event.set()
            await kubelet.wait_for(DPDK, count=2)


async def test_what_is_not_known_of_pods_is_told(tree: Tree, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a kubelet the agent runs, says once what it does not know, and which pools no kubelet has."""
    async with _run_agent(tree, tmp_path) as agent:
        await _wait_until(lambda: "pod-resources/kubelet.sock is not there" in agent.offering.pod_devices.problem)
        await _wait_until(lambda: agent.offering.unregistered().keys() == {KERNEL, DPDK})
        await asyncio.sleep(0.3)
        assert caplog.text.count("which pod has which device is not known: ") == 1
        async with Kubelet(tmp_path / "k") as kubelet:
            await kubelet.wait_for(DPDK, count=2)
            await _wait_until(lambda: agent.offering.pod_devices.known)
