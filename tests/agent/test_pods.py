"""What pods have: given, kept, verified, and known after a restart."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sriovdp.pools import service as pool_service
from sriovdp.state.journal import Journal
from tests.agent.running import CONFIG, DPDK, KERNEL, owe, run_agent, wait_until
from tests.fakes.kubelet import AdmissionError, Kubelet
from tests.fakes.sysfs import PF, Tree, vf_address


def _move_to_group(tree: Tree, address: str, group: int) -> None:
    """What a reboot can do to a VF."""
    link = tree.pci(address) / "iommu_group"
    link.unlink()
    link.symlink_to(tree.root / f"kernel/iommu_groups/{group}")


async def test_files_of_a_pods_devices_live_as_long_as_the_pod(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Device-info and grant are there from Allocate on, survive the agent, come back when lost, and go with the pod."""
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        [device] = (await kubelet.admit("red", {DPDK: 1})).devices[DPDK]
        monkeypatch.setattr(pool_service, "_GRACE", 0.0)  # now that the kubelet lists the pod
        info = tmp_path / f"devinfo/intel.com-sriov_dpdk-{device}-device.json"
        grant = tmp_path / f"state/grants/intel.com_sriov_dpdk/{device}.json"
        wanted = {"type": "pci", "version": "1.1.0", "pci": {"pci-address": device, "pf-pci-address": PF}}
        assert json.loads(await asyncio.to_thread(info.read_text)) == wanted
        assert grant.is_file()
    assert info.is_file()
    await asyncio.to_thread(shutil.rmtree, tmp_path / "devinfo")  # a reboot: it is on tmpfs
    async with run_agent(tree, tmp_path):
        await wait_until(info.is_file)
        await kubelet.wait_for(DPDK, count=2)
        await kubelet.start_container(DPDK, [device])
        await kubelet.remove("red")
        await wait_until(lambda: not info.exists() and not grant.exists())


async def test_a_container_is_not_started_with_what_is_no_longer_its_own(
    tree: Tree, kubelet: Kubelet, tmp_path: Path
) -> None:
    """What the kubelet has in its checkpoint is held against the VF: another group, another driver, no VF any more."""
    async with run_agent(tree, tmp_path):
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
        with pytest.raises(AdmissionError, match=rf"{device}\): it has lost its driver"):
            await kubelet.start_container(DPDK, [device])
        tree.bind(device, "igbvf")
        with pytest.raises(AdmissionError, match="drivers wants vfio-pci, the device has igbvf"):
            await kubelet.start_container(DPDK, [device])


async def test_a_device_that_a_living_pod_has_attached_is_given_to_no_other(
    tree: Tree, kubelet: Kubelet, tmp_path: Path
) -> None:
    """A kubelet that lost its checkpoint may offer it again; once the pod is gone, its DEL is waited for by ADD."""
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(KERNEL, count=2)
        device = vf_address(PF, 0)
        owed = owe(tmp_path, device)
        Journal(tmp_path / "state/journal").write_attachment(replace(owed, phase="attached", netns="/proc/self/ns/net"))
        await kubelet.admit("red", {})
        assert await kubelet.wait_for(KERNEL, count=1, healthy=False) == [device]
        with pytest.raises(AdmissionError, match=rf"{device}\): it is not healthy: pod default/red \(net1\) has it"):
            await kubelet.allocate(KERNEL, [device])
        await kubelet.remove("red")
        await kubelet.wait_for(KERNEL, count=2)
        await kubelet.allocate(KERNEL, [device])


async def test_a_device_that_is_attached_after_the_last_look_is_given_to_no_other(
    tree: Tree, kubelet: Kubelet, tmp_path: Path
) -> None:
    """What the kubelet was last sent is older than the pod: Allocate asks the kubelet itself."""
    device = vf_address(PF, 0)
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(KERNEL, count=2)
    # the end of the first agent's pools, seen late, would disconnect the second's in the middle of the call
    await kubelet.wait_for_step("deregistered", times=2)
    owed = owe(tmp_path, device)
    Journal(tmp_path / "state/journal").write_attachment(replace(owed, phase="attached", netns="/proc/self/ns/net"))
    async with run_agent(tree, tmp_path, rescan_interval=3600):
        await kubelet.wait_for(KERNEL, count=2)
        await kubelet.admit("red", {})
        with pytest.raises(AdmissionError, match=rf"{device}\): it is in use by pod default/red"):
            await kubelet.allocate(KERNEL, [device])


async def test_devices_through_cdi(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """The kubelet gets names, and the specs in the folder have what belongs to them, right after a reboot too."""
    spec = tmp_path / "cdi/sriovdp-intel.com-net-pci-sriov_dpdk.json"
    async with run_agent(tree, tmp_path, CONFIG + "cdi: true"):
        await kubelet.wait_for(DPDK, count=2)
        pod = await kubelet.admit("red", {DPDK: 1, KERNEL: 1})
        [device], [netdev] = pod.devices[DPDK], pod.devices[KERNEL]
        assert pod.cdi_devices == [f"intel.com/net-pci={device}", f"intel.com/net-pci={netdev}"]
        assert (pod.nodes, pod.mounts) == ([], [])
        assert _cdi_nodes(spec)[device] == ["/dev/vfio/vfio", "/dev/vfio/12"]
    await asyncio.to_thread(shutil.rmtree, tmp_path / "cdi")
    _move_to_group(tree, device, 16)
    async with run_agent(tree, tmp_path, CONFIG + "cdi: true"):
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


async def test_a_vf_that_is_gone_stays_listed_while_a_pod_has_it(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet forgets what is no longer listed: a pod's VF is unhealthy, and another that vanishes is gone."""
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        [device] = (await kubelet.admit("red", {DPDK: 1})).devices[DPDK]
        monkeypatch.setattr(pool_service, "_GRACE", 0.0)  # now that the kubelet lists the pod
        for index in (2, 3):
            await asyncio.to_thread((tree.pci(PF) / f"virtfn{index}").unlink)  # first, as in drivers/pci/iov.c
            tree.remove(vf_address(PF, index))
        await kubelet.wait_for(DPDK, count=0)
        assert await kubelet.wait_for(DPDK, count=1, healthy=False) == [device]


async def test_a_vf_that_went_while_the_agent_was_away_stays_listed(
    tree: Tree, kubelet: Kubelet, tmp_path: Path
) -> None:
    """What a pod has is listed by the next agent too, which never saw it fit for use."""
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        [device] = (await kubelet.admit("red", {DPDK: 1})).devices[DPDK]
    tree.unbind(device)
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=1)
        assert await kubelet.wait_for(DPDK, count=1, healthy=False) == [device]


async def test_a_vf_that_another_pools_pod_has_is_given_to_no_pod(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """A new config calls the resource otherwise: what pods have by its old name is not free."""
    renamed = "intel.com/fast"
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        [device] = (await kubelet.admit("red", {DPDK: 1})).devices[DPDK]
    async with run_agent(tree, tmp_path, CONFIG.replace("sriov_dpdk", "fast")):
        assert await kubelet.wait_for(renamed, count=1, healthy=False) == [device]
        reported = rf"{device}\): it is not healthy: pod default/red \(container main\) has it as {DPDK}"
        with pytest.raises(AdmissionError, match=reported):
            await kubelet.allocate(renamed, [device])
        await kubelet.remove("red")
        await kubelet.wait_for(renamed, count=2)


async def test_what_is_unknown_of_pods_is_reported(
    tree: Tree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a kubelet the agent runs, says once what it does not know, and which pools no kubelet has."""
    async with run_agent(tree, tmp_path) as agent:
        await wait_until(lambda: "pod-resources/kubelet.sock is not there" in agent.offering.pod_devices.problem)
        await wait_until(lambda: agent.offering.unregistered().keys() == {KERNEL, DPDK})
        await asyncio.sleep(0.3)
        assert caplog.text.count("which pod has which device is not known: ") == 1
        async with Kubelet(tmp_path / "k") as kubelet:
            await kubelet.wait_for(DPDK, count=2)
            await wait_until(lambda: agent.offering.pod_devices.known)
