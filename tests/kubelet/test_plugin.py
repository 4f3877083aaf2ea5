"""The device plugin service: its list as the kubelet follows it, and what containers get."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest

from sriovdp.kubelet.api import deviceplugin_v1beta1_pb2 as pb2
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2_grpc import DevicePluginStub
from sriovdp.kubelet.endpoint import Endpoint
from sriovdp.kubelet.plugin import DevicePlugin
from sriovdp.kubelet.server import PluginServer
from sriovdp.model import DeviceNode, Mount, PoolDevice
from sriovdp.pools.allocation import Allocation
from tests.fakes.kubelet import AdmissionError, Kubelet
from tests.kubelet.conftest import RESOURCE, STUCK, Service, vfs

OPTIONS = (("grpc.default_authority", "localhost"),)


@asynccontextmanager
async def serving(kubelet_dir: Path, plugin: DevicePlugin) -> AsyncIterator[Kubelet]:
    """A kubelet that follows the plugin."""
    async with Kubelet(kubelet_dir) as kubelet:
        endpoint = Endpoint(kubelet_dir, RESOURCE, plugin)
        await endpoint.start()
        try:
            await kubelet.wait_for_registration(RESOURCE)
            yield kubelet
        finally:
            await endpoint.stop()


@asynccontextmanager
async def calling(tmp_path: Path, plugin: DevicePlugin) -> AsyncIterator[DevicePluginStub]:
    """A bare client of the plugin, for calls that the kubelet does not make."""
    server = PluginServer(tmp_path / "plugin.sock", RESOURCE, plugin, lambda refusal: None)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{server.socket}", options=OPTIONS) as channel:
            yield DevicePluginStub(channel)
    finally:
        await server.stop()


async def test_change_of_health_reaches_the_kubelet(tmp_path: Path, plugin: DevicePlugin) -> None:
    """A VF that falls ill is no longer allocatable, and is again when it recovers."""
    healthy = vfs(4)
    ill = [replace(healthy[0], healthy=False, reason="its PF has no link"), *healthy[1:]]
    await plugin.update(healthy)
    async with serving(tmp_path, plugin) as kubelet:
        await kubelet.wait_for(RESOURCE, count=4)
        await plugin.update(ill)
        assert await kubelet.wait_for(RESOURCE, count=1, healthy=False) == [healthy[0].id]
        await plugin.update(healthy)
        assert await kubelet.wait_for(RESOURCE, count=4) == [device.id for device in healthy]


async def test_vanished_device_stays_as_unhealthy(tmp_path: Path, plugin: DevicePlugin) -> None:
    """A VF that is gone is still in the list, since a pod may have it, and new ones join it."""
    first, second, third = vfs(3)
    await plugin.update([first, second])
    async with serving(tmp_path, plugin) as kubelet:
        await kubelet.wait_for(RESOURCE, count=2)
        await plugin.update([second, third])
        assert await kubelet.wait_for(RESOURCE, count=1, healthy=False) == [first.id]
        assert await kubelet.wait_for(RESOURCE, count=2) == [second.id, third.id]
        await plugin.update([])
        await kubelet.wait_for(RESOURCE, count=3, healthy=False)


async def test_vanished_device_that_no_pod_has_leaves_the_list(tmp_path: Path, plugin: DevicePlugin) -> None:
    """Where it is known what pods have, the list says what there is, in an order that does not change."""
    first, second, third, fourth = vfs(4)
    await plugin.update([first, second, third, fourth])
    async with serving(tmp_path, plugin) as kubelet:
        await kubelet.wait_for(RESOURCE, count=4)
        await plugin.update([fourth, third], held={second.id})
        await kubelet.wait_for(RESOURCE, count=2)
        last = kubelet.lists(RESOURCE)[-1].devices
        assert [(device.ID, device.health) for device in last] == [
            (second.id, "Unhealthy"),
            (third.id, "Healthy"),
            (fourth.id, "Healthy"),
        ]


async def test_list_is_not_sent_again_when_nothing_changed(tmp_path: Path, plugin: DevicePlugin) -> None:
    """Looking at the node again and finding the same, in whatever order, costs the kubelet nothing."""
    await plugin.update(vfs(2))
    async with serving(tmp_path, plugin) as kubelet:
        await kubelet.wait_for(RESOURCE, count=2)
        for _ in range(3):
            await plugin.update(list(reversed(vfs(2))))
            await asyncio.sleep(0.05)  # so that a list that is wrongly sent would not be overtaken by the next
        await plugin.update(vfs(3))
        await kubelet.wait_for(RESOURCE, count=3)
        assert [len(answer.devices) for answer in kubelet.lists(RESOURCE)] == [2, 3]


async def test_numa_node_is_reported_where_there_is_one(tmp_path: Path, plugin: DevicePlugin) -> None:
    """The kubelet can align VFs with CPUs; without NUMA the field is absent, not node 0."""
    await plugin.update([PoolDevice("0000:3b:02.0", numa_node=1), PoolDevice("0000:3b:02.1")])
    async with serving(tmp_path, plugin) as kubelet:
        await kubelet.wait_for(RESOURCE, count=2)
        here, nowhere = kubelet.lists(RESOURCE)[-1].devices
        assert [node.ID for node in here.topology.nodes] == [1]
        assert not nowhere.HasField("topology")


async def test_every_stream_starts_with_the_current_list(tmp_path: Path, plugin: DevicePlugin) -> None:
    """Two kubelet connections at once, as during its restart, both get the list and its changes."""
    await plugin.update(vfs(1))
    async with calling(tmp_path, plugin) as stub:
        first, second = stub.ListAndWatch(pb2.Empty()), stub.ListAndWatch(pb2.Empty())
        for stream in (first, second):
            assert len((await anext(aiter(stream))).devices) == 1
        await plugin.update(vfs(2))
        for stream in (first, second):
            assert len((await anext(aiter(stream))).devices) == 2


async def test_stream_ends_cleanly_when_the_server_stops(tmp_path: Path, plugin: DevicePlugin) -> None:
    """A stop ends the streams by itself, so that it need not wait and then break them off."""
    await plugin.update(vfs(1))
    server = PluginServer(tmp_path / "plugin.sock", RESOURCE, plugin, lambda refusal: None)
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{server.socket}", options=OPTIONS) as channel:
        stream = DevicePluginStub(channel).ListAndWatch(pb2.Empty())
        await anext(aiter(stream))
        await server.stop()
        assert [answer async for answer in stream] == []
        assert await stream.code() == grpc.StatusCode.OK


async def test_nothing_is_offered_before_the_first_update(tmp_path: Path, plugin: DevicePlugin) -> None:
    """A list that is not known yet is not an empty one: that would take the node's capacity away."""
    async with serving(tmp_path, plugin) as kubelet:
        assert kubelet.lists(RESOURCE) == []
        await plugin.update(vfs(2))
        await kubelet.wait_for(RESOURCE, count=2)
        assert len(kubelet.lists(RESOURCE)) == 1


async def test_pod_gets_environment_and_device_nodes(tmp_path: Path, plugin: DevicePlugin) -> None:
    """A pod that asks for two VFs gets their addresses and nodes, with the paths not swapped."""
    await plugin.update(vfs(4))
    async with serving(tmp_path, plugin) as kubelet:
        await kubelet.wait_for(RESOURCE, count=4)
        pod = await kubelet.admit("dpdk", {RESOURCE: 2}, prefer=False)
        assert pod.devices == {RESOURCE: ["0000:3b:02.0", "0000:3b:02.1"]}
        assert pod.envs == {"PCIDEVICE_INTEL_COM_SRIOV_DPDK": "0000:3b:02.0,0000:3b:02.1"}
        assert pod.nodes == [
            DeviceNode("/dev/vfio/vfio", "/dev/vfio/vfio", "rwm"),
            DeviceNode("/dev/vfio/noiommu-02.0", "/dev/vfio/02.0", "rw"),
            DeviceNode("/dev/vfio/noiommu-02.1", "/dev/vfio/02.1", "rw"),
        ]
        assert pod.mounts == [Mount("/sys/devices/config", "/sys/config", read_only=False), Mount("/etc/dpdk", "/dpdk")]
        assert pod.cdi_devices == ["intel.com/net-pci=0000:3b:02.0", "intel.com/net-pci=0000:3b:02.1"]


async def test_each_container_is_answered_in_order(tmp_path: Path, plugin: DevicePlugin) -> None:
    """One call for two containers gives two answers."""
    await plugin.update(vfs(2))
    async with calling(tmp_path, plugin) as stub:
        containers = [pb2.ContainerAllocateRequest(devices_ids=[device.id]) for device in vfs(2)]
        answer = await stub.Allocate(pb2.AllocateRequest(container_requests=containers))
        given = [container.envs["PCIDEVICE_INTEL_COM_SRIOV_DPDK"] for container in answer.container_responses]
        assert given == [device.id for device in vfs(2)]


async def test_unknown_device_is_refused(
    tmp_path: Path, plugin: DevicePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    """A device of another node's checkpoint is refused by name, to the pod and in the log."""
    await plugin.update(vfs(1))
    async with serving(tmp_path, plugin) as kubelet:
        with pytest.raises(AdmissionError, match=r"NOT_FOUND.*0000:af:00\.1: it is no device of this pool"):
            await kubelet.allocate(RESOURCE, ["0000:3b:02.0", "0000:af:00.1"])
    assert "0000:af:00.1: it is no device of this pool" in caplog.text


async def test_unhealthy_device_is_refused(tmp_path: Path, plugin: DevicePlugin) -> None:
    """A pod that was promised a VF before it fell ill is refused, with the reason."""
    await plugin.update([PoolDevice("0000:3b:02.0", healthy=False, reason="not back from pod web")])
    async with serving(tmp_path, plugin) as kubelet:
        with pytest.raises(AdmissionError, match=r"FAILED_PRECONDITION.*0000:3b:02\.0: .*not back from pod web"):
            await kubelet.allocate(RESOURCE, ["0000:3b:02.0"])


async def test_error_of_the_allocation_is_reported_to_the_pod(tmp_path: Path, plugin: DevicePlugin) -> None:
    """What is wrong with the VF and what to do about it ends up in the pod's event; the pod has nothing."""
    await plugin.update([PoolDevice(STUCK)])
    async with serving(tmp_path, plugin) as kubelet:
        await kubelet.wait_for(RESOURCE, count=1)
        with pytest.raises(AdmissionError, match=rf"FAILED_PRECONDITION.*{STUCK} is not bound.*`sriovdp apply` binds"):
            await kubelet.admit("dpdk", {RESOURCE: 1})
        assert kubelet.pods() == {}


async def test_slow_allocation_does_not_hold_up_the_list(tmp_path: Path) -> None:
    """While one pod waits for its device, the kubelet still hears that another device fell ill."""
    entered, proceed = threading.Event(), threading.Event()

    class Slow(Service):
        def allocate(self, ids: Sequence[str]) -> Allocation:
            entered.set()
            assert proceed.wait(60)
            return super().allocate(ids)

    plugin = DevicePlugin(RESOURCE, Slow())
    first, second = vfs(2)
    await plugin.update([first, second])
    async with serving(tmp_path, plugin) as kubelet:
        await kubelet.wait_for(RESOURCE, count=2)
        admission = asyncio.create_task(kubelet.admit("slow", {RESOURCE: 1}, prefer=False))
        try:
            assert await asyncio.to_thread(entered.wait, 60)
            await plugin.update([first, replace(second, healthy=False, reason="no link")])
            await kubelet.wait_for(RESOURCE, count=1, healthy=False)
            assert not admission.done()
        finally:
            proceed.set()
        assert (await admission).devices == {RESOURCE: [first.id]}


async def test_node_that_does_not_answer_fails_the_pod_in_time(tmp_path: Path) -> None:
    """A driver that hangs holds up neither the kubelet nor the next pod: the call ends, and says what hangs."""
    proceed = threading.Event()

    class Hanging(Service):
        def verify(self, ids: Sequence[str]) -> None:
            if ids == [STUCK]:
                proceed.wait(60)

    plugin = DevicePlugin(RESOURCE, Hanging(), limit=3)  # the second call is quick, on a busy machine too
    await plugin.update([PoolDevice(STUCK), *vfs(1)])
    async with serving(tmp_path, plugin) as kubelet:
        try:
            with pytest.raises(AdmissionError, match=rf"DEADLINE_EXCEEDED.*{STUCK} took more than 3 s"):
                await kubelet.allocate(RESOURCE, [STUCK])
            await kubelet.allocate(RESOURCE, [vfs(1)[0].id])
        finally:
            proceed.set()


async def test_kubelet_that_gives_up_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its deadline passes while the node is slow: what comes too late is lost, and the next pod is served."""
    entered, proceed = threading.Event(), threading.Event()

    class Slow(Service):
        def allocate(self, ids: Sequence[str]) -> Allocation:
            if not entered.is_set():
                entered.set()
                proceed.wait(60)
            return super().allocate(ids)

    plugin = DevicePlugin(RESOURCE, Slow())
    await plugin.update(vfs(1))
    async with serving(tmp_path, plugin) as kubelet:
        await kubelet.wait_for(RESOURCE, count=1)
        try:
            with pytest.raises(AdmissionError, match="DEADLINE_EXCEEDED"):
                await kubelet.allocate(RESOURCE, [vfs(1)[0].id], within=0.2)
            assert entered.is_set()
            assert (await kubelet.admit("next", {RESOURCE: 1})).devices == {RESOURCE: [vfs(1)[0].id]}
        finally:
            proceed.set()


async def test_preferred_devices_are_given(tmp_path: Path, plugin: DevicePlugin) -> None:
    """The kubelet asks which of the free devices to take, and takes these."""
    await plugin.update(vfs(4))
    async with serving(tmp_path, plugin) as kubelet:
        await kubelet.wait_for(RESOURCE, count=4)
        assert (await kubelet.admit("last", {RESOURCE: 2})).devices == {RESOURCE: ["0000:3b:02.2", "0000:3b:02.3"]}
        assert (await kubelet.admit("next", {RESOURCE: 1})).devices == {RESOURCE: ["0000:3b:02.1"]}


async def test_preference_that_fails_fails_no_pod(
    tmp_path: Path, plugin: DevicePlugin, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any devices do when the policy cannot be followed, and those that have to be there are."""
    monkeypatch.setattr(Service, "prefer", lambda *_: 1 / 0)
    async with calling(tmp_path, plugin) as stub:
        wish = pb2.ContainerPreferredAllocationRequest(
            available_deviceIDs=["a", "b", "c"], must_include_deviceIDs=["b"], allocation_size=2
        )
        answer = await stub.GetPreferredAllocation(pb2.PreferredAllocationRequest(container_requests=[wish]))
    assert [list(container.deviceIDs) for container in answer.container_responses] == [["b", "a"]]
    assert "choosing devices by the pool's policy failed" in caplog.text


async def test_container_whose_device_changed_is_not_started(tmp_path: Path, plugin: DevicePlugin) -> None:
    """The kubelet asks before each start; a refusal has the reason, and all else starts, what fell ill included."""
    await plugin.update([PoolDevice(STUCK), PoolDevice("0000:3b:02.0", healthy=False, reason="no link")])
    async with serving(tmp_path, plugin) as kubelet:
        await kubelet.start_container(RESOURCE, ["0000:3b:02.0"])
        with pytest.raises(AdmissionError, match=rf"FAILED_PRECONDITION.*{STUCK} is not bound.*`sriovdp apply` binds"):
            await kubelet.start_container(RESOURCE, [STUCK])


async def test_1024_devices(tmp_path: Path, plugin: DevicePlugin) -> None:
    """A node full of VFs fits into one message, each device once, and all of them into one pod."""
    devices = [PoolDevice(f"{index // 256:04x}:3b:{index % 256 // 8:02x}.{index % 8}") for index in range(1024)]
    await plugin.update(devices)
    async with serving(tmp_path, plugin) as kubelet:
        assert await kubelet.wait_for(RESOURCE, count=1024) == [device.id for device in devices]
        pod = await kubelet.admit("huge", {RESOURCE: 1024})
        assert len(pod.nodes) == 1025
        await plugin.update(devices[:1])
        await kubelet.wait_for(RESOURCE, count=1023, healthy=False)
