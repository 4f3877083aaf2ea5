"""Which pod has which device: asked of the kubelet, bounded, and reported when it cannot be known."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from sriovdp.kubelet.api.podresources_v1_pb2_grpc import add_PodResourcesListerServicer_to_server
from sriovdp.kubelet.endpoint import Endpoint
from sriovdp.kubelet.plugin import DevicePlugin
from sriovdp.kubelet.pod_devices import Holder, PodDevices
from sriovdp.kubelet.podresources import PodResources
from tests.fakes.kubelet import Kubelet
from tests.fakes.podresources import PodResources as Lister
from tests.kubelet.conftest import RESOURCE, vfs


async def test_pods_and_what_they_have(tmp_path: Path, plugin: DevicePlugin) -> None:
    """Each device goes with the container that has it, and pods without devices are there too."""
    await plugin.update(vfs(3))
    endpoint = Endpoint(tmp_path, RESOURCE, plugin)
    async with Kubelet(tmp_path) as kubelet:
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=3)
        red = await kubelet.admit("red", {RESOURCE: 2})
        await kubelet.admit("plain", {})
        devices = await PodResources(tmp_path).list_devices()
        assert devices.known
        assert devices.pods == {"default/red", "default/plain"}
        assert devices.held(RESOURCE) == {*red.devices[RESOURCE]}
        assert devices.held("intel.com/other") == frozenset()
        holder = devices.find(red.devices[RESOURCE][0])
        assert holder == Holder("default", "red", "main")
        assert str(holder) == "pod default/red (container main)"
        assert devices.find("0000:ff:00.0") is None
        await endpoint.stop()


async def test_absent_kubelet_is_reported(tmp_path: Path) -> None:
    """Without the socket nothing is known, which is not the same as nothing being in use."""
    devices = await PodResources(tmp_path).list_devices()
    assert not devices.known
    assert "pod-resources/kubelet.sock is not there" in devices.problem
    assert devices == PodDevices(problem=devices.problem)


async def test_kubelet_that_is_slow_can_be_waited_for(tmp_path: Path) -> None:
    """Before VFs are changed it matters more to know who has them than to be quick."""

    class Slow(Lister):
        async def List(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
            await asyncio.sleep(0.5)
            return await super().List(request, context)

    (tmp_path / "pod-resources").mkdir()
    server = grpc.aio.server()
    add_PodResourcesListerServicer_to_server(Slow(lambda: {"web": {}}, dict), server)
    server.add_insecure_port(f"unix:{tmp_path}/pod-resources/kubelet.sock")
    await server.start()
    try:
        resources = PodResources(tmp_path, timeout=0.1)
        assert "DEADLINE_EXCEEDED" in (await resources.list_devices()).problem
        assert (await resources.list_devices(patience=60)).pods == {"default/web"}
    finally:
        await server.stop(None)


@pytest.mark.parametrize("listens", [True, False])
async def test_kubelet_that_does_not_answer_is_not_waited_for(tmp_path: Path, listens: bool) -> None:
    """A hung kubelet and a dead socket end the call in time, with the reason."""
    (tmp_path / "pod-resources").mkdir()
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(tmp_path / "pod-resources/kubelet.sock"))
        if listens:
            hung.listen()
        async with asyncio.timeout(30):
            devices = await PodResources(tmp_path, timeout=0.3).list_devices()
    assert not devices.known
    assert ("DEADLINE_EXCEEDED" if listens else "UNAVAILABLE") in devices.problem
