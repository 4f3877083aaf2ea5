"""The device plugin service of one pool: the list of its devices for the kubelet, and what a container gets for them.

Protocol: v1beta1.DevicePlugin of k8s.io/kubelet, pkg/apis/deviceplugin/v1beta1/api.proto.
"""
# ruff: noqa: N802 - the protocol names the methods

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace

import grpc
import grpc.aio

from sriovdp.errors import SriovdpError
from sriovdp.kubelet.api import deviceplugin_v1beta1_pb2 as pb2
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2_grpc import DevicePluginServicer
from sriovdp.model import Allocation, PoolDevice

logger = logging.getLogger(__name__)

_GONE = "it is no longer among the pool's devices of this node"


class _RefusedError(Exception):
    """A container does not get its devices; the text goes to the pod's event."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class DevicePlugin(DevicePluginServicer):
    """The service for one resource, like `intel.com/sriov`.

    `allocate` is given the IDs of one container's devices, known and healthy ones only, and runs in a worker thread. A
    SriovdpError it raises refuses the pod, and its text becomes the pod's event.
    """

    def __init__(self, resource: str, allocate: Callable[[Sequence[str]], Allocation]) -> None:
        self._resource = resource
        self._allocate = allocate
        self._devices: Mapping[str, PoolDevice] = {}
        self._list: pb2.ListAndWatchResponse | None = None  # until the first update nobody knows what there is
        self._epoch = 0  # of the streams: those of a past one end
        self._changed = asyncio.Condition()

    async def update(self, devices: Sequence[PoolDevice]) -> None:
        """Set the pool's devices; each open stream gets the new list, unless it is the one it has.

        A device that was offered before and is not in `devices` is offered as unhealthy from then on: a pod may have
        it, and the kubelet forgets what it is no longer told of.
        """
        offered = {device.id: device for device in devices}
        gone = {id_: replace(device, healthy=False, reason=_GONE) for id_, device in self._devices.items()}
        devices_now = gone | offered
        self._tell_changes(devices_now)
        self._devices = devices_now
        answer = pb2.ListAndWatchResponse(devices=[_advertise(device) for device in devices_now.values()])
        if answer != self._list:
            async with self._changed:
                self._list = answer
                self._changed.notify_all()

    async def end_streams(self) -> None:
        """End all streams that are open now, as a server that stops has to."""
        async with self._changed:
            self._epoch += 1
            self._changed.notify_all()

    async def GetDevicePluginOptions(
        self, request: pb2.Empty, context: grpc.aio.ServicerContext[pb2.Empty, pb2.DevicePluginOptions]
    ) -> pb2.DevicePluginOptions:
        """Tell that neither of the optional calls is needed."""
        del request, context
        return pb2.DevicePluginOptions()

    async def ListAndWatch(
        self, request: pb2.Empty, context: grpc.aio.ServicerContext[pb2.Empty, pb2.ListAndWatchResponse]
    ) -> AsyncIterator[pb2.ListAndWatchResponse]:
        """Stream the whole list: the current one first, then each new one."""
        del request, context
        epoch = self._epoch
        current = await self._await_list(epoch, None)
        while current is not None:
            yield current
            current = await self._await_list(epoch, current)

    async def GetPreferredAllocation(
        self,
        request: pb2.PreferredAllocationRequest,
        context: grpc.aio.ServicerContext[pb2.PreferredAllocationRequest, pb2.PreferredAllocationResponse],
    ) -> pb2.PreferredAllocationResponse:
        """Prefer the kubelet's own order. Options tell it not to ask, but an error here would fail the pod."""
        del context
        return pb2.PreferredAllocationResponse(
            container_responses=[
                pb2.ContainerPreferredAllocationResponse(deviceIDs=_prefer(container))
                for container in request.container_requests
            ]
        )

    async def Allocate(
        self, request: pb2.AllocateRequest, context: grpc.aio.ServicerContext[pb2.AllocateRequest, pb2.AllocateResponse]
    ) -> pb2.AllocateResponse:
        """Answer what each container gets, in the order of the requests; refuse all when one can not be served.

        Codes: NOT_FOUND for a device that was never offered, FAILED_PRECONDITION for one that is not fit for use.
        """
        answers = []
        for container in request.container_requests:
            try:
                answers.append(_answer(await self._give(list(container.devices_ids))))
            except _RefusedError as refusal:
                logger.error("refused to give devices to a container: %s", refusal)
                await context.abort(refusal.code, str(refusal))
        return pb2.AllocateResponse(container_responses=answers)

    async def PreStartContainer(
        self,
        request: pb2.PreStartContainerRequest,
        context: grpc.aio.ServicerContext[pb2.PreStartContainerRequest, pb2.PreStartContainerResponse],
    ) -> pb2.PreStartContainerResponse:
        """Do nothing: all is done at Allocate, and options tell the kubelet so."""
        del request, context
        return pb2.PreStartContainerResponse()

    async def _await_list(self, epoch: int, sent: pb2.ListAndWatchResponse | None) -> pb2.ListAndWatchResponse | None:
        """Wait for another list than the one sent last; None when the streams of `epoch` have to end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._epoch != epoch or self._list is not sent)
            return self._list if self._epoch == epoch else None

    async def _give(self, ids: Sequence[str]) -> Allocation:
        for id_ in ids:
            device = self._devices.get(id_)
            if device is None:
                raise _RefusedError(grpc.StatusCode.NOT_FOUND, f"{self._resource}: {id_} is no device of this pool")
            if not device.healthy:
                reason = f"{self._resource}: {id_} is not healthy: {device.reason}"
                raise _RefusedError(grpc.StatusCode.FAILED_PRECONDITION, reason)
        try:
            return await asyncio.to_thread(self._allocate, ids)
        except SriovdpError as error:
            raise _RefusedError(grpc.StatusCode.FAILED_PRECONDITION, f"{self._resource}: {error}") from error

    def _tell_changes(self, devices_now: Mapping[str, PoolDevice]) -> None:
        for id_, device in devices_now.items():
            before = self._devices.get(id_)
            if not device.healthy and (before is None or before.healthy):
                logger.warning("%s: %s is not healthy: %s", self._resource, id_, device.reason)
            elif device.healthy and before is not None and not before.healthy:
                logger.info("%s: %s is healthy again", self._resource, id_)


def _advertise(device: PoolDevice) -> pb2.Device:
    nodes = [] if device.numa_node is None else [pb2.NUMANode(ID=device.numa_node)]
    return pb2.Device(
        ID=device.id,
        health="Healthy" if device.healthy else "Unhealthy",
        topology=pb2.TopologyInfo(nodes=nodes) if nodes else None,
    )


def _prefer(container: pb2.ContainerPreferredAllocationRequest) -> list[str]:
    """The devices that have to be in the answer, then available ones up to the size asked for."""
    ordered = dict.fromkeys((*container.must_include_deviceIDs, *container.available_deviceIDs))
    return list(ordered)[: container.allocation_size]


def _answer(allocation: Allocation) -> pb2.ContainerAllocateResponse:
    return pb2.ContainerAllocateResponse(
        envs=allocation.envs,
        devices=[
            pb2.DeviceSpec(host_path=node.host_path, container_path=node.container_path, permissions=node.permissions)
            for node in allocation.nodes
        ],
    )
