"""The fake kubelet keeps its book as the real one does."""

from pathlib import Path

import grpc.aio
import pytest

from sriovdp.kubelet.api import podresources_v1_pb2 as pb2
from sriovdp.kubelet.api.podresources_v1_pb2_grpc import PodResourcesListerStub
from sriovdp.kubelet.endpoint import Endpoint
from sriovdp.kubelet.plugin import DevicePlugin
from tests.fakes.kubelet import AdmissionError, Kubelet
from tests.kubelet.conftest import RESOURCE, vfs


async def test_life_of_pods(tmp_path: Path, plugin: DevicePlugin) -> None:
    """No two pods have the same VF, a third is not admitted, and takes a VF once another pod is gone."""
    await plugin.update(vfs(2))
    endpoint = Endpoint(tmp_path, RESOURCE, plugin)
    async with Kubelet(tmp_path) as kubelet:
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=2)
        red, blue = await kubelet.admit("red", {RESOURCE: 1}), await kubelet.admit("blue", {RESOURCE: 1})
        assert sorted(red.devices[RESOURCE] + blue.devices[RESOURCE]) == [device.id for device in vfs(2)]
        with pytest.raises(AdmissionError, match="Requested: 1, Available: 0"):
            await kubelet.admit("green", {RESOURCE: 1})
        await kubelet.remove("red")
        assert (await kubelet.admit("green", {RESOURCE: 1})).devices == red.devices
        assert await _list_pods(tmp_path) == {"blue": blue.devices[RESOURCE], "green": red.devices[RESOURCE]}
        await endpoint.stop()


async def test_wait_says_what_there_is(tmp_path: Path) -> None:
    """Waiting without success ends, and says why."""
    async with Kubelet(tmp_path) as kubelet:
        with pytest.raises(
            TimeoutError, match=r"3 healthy devices of intel\.com/sriov_dpdk, but no plugin is registered"
        ):
            await kubelet.wait_for(RESOURCE, count=3, within=0.1)


async def _list_pods(kubelet_dir: Path) -> dict[str, list[str]]:
    """Which pod has which VFs, by PodResources."""
    path = kubelet_dir / "pod-resources" / "kubelet.sock"
    options = (("grpc.default_authority", "localhost"),)
    async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
        stub = PodResourcesListerStub(channel)
        pods = (await stub.List(pb2.ListPodResourcesRequest())).pod_resources
        allocatable = (await stub.GetAllocatableResources(pb2.AllocatableResourcesRequest())).devices
    assert [list(entry.device_ids) for entry in allocatable] == [[device.id for device in vfs(2)]]
    return {pod.name: list(pod.containers[0].devices[0].device_ids) for pod in pods}
