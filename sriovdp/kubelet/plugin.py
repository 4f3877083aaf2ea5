"""The device plugin service of one pool: the list of its devices for the kubelet, and what a container gets for them.

Protocol: v1beta1.DevicePlugin of k8s.io/kubelet, pkg/apis/deviceplugin/v1beta1/api.proto.
"""
# ruff: noqa: N802 - the protocol names the methods

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import grpc
import grpc.aio

from sriovdp.errors import SriovdpError
from sriovdp.kubelet.api import deviceplugin_v1beta1_pb2 as pb2
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2_grpc import DevicePluginServicer
from sriovdp.model import Fault, PoolDevice
from sriovdp.pools.allocation import Allocation

logger = logging.getLogger(__name__)

OPTIONS = pb2.DevicePluginOptions(pre_start_required=True, get_preferred_allocation_available=True)
"""What the kubelet has to ask for, beside lists and allocations."""

_GONE = "it is no longer among the pool's devices of this node"
_LIMIT = 10.0  # seconds for what one container needs; the kubelet would wait forever, and admit no other pod

_T = TypeVar("_T")


class Service(Protocol):
    """What a pool does for containers. It is given IDs of devices it offers; each call runs in a worker thread."""

    def allocate(self, ids: Sequence[str]) -> Allocation:
        """What a container gets for these devices. A SriovdpError refuses the pod, and its text is the pod's event."""

    def verify(self, ids: Sequence[str]) -> None:
        """Look whether what was allocated still holds. A SriovdpError keeps the container from being started."""

    def prefer(self, available: Sequence[str], must: Sequence[str], size: int) -> Sequence[str]:
        """Choose `size` devices, `must` among them."""


class _RefusedError(Exception):
    """A container does not get its devices; the text goes to the pod's event."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class DevicePlugin(DevicePluginServicer):
    """The service for one resource, like `intel.com/sriov`. What `service` does has ten seconds at most."""

    def __init__(
        self,
        resource: str,
        service: Service,
        *,
        limit: float = _LIMIT,
        allocated: Callable[[], None] = lambda: None,
    ) -> None:
        """`allocated` is called after each allocation."""
        self._resource = resource
        self._allocated = allocated
        self.stirred: Callable[[], None] = lambda: None
        """Called when a stream begins or ends."""
        self._service = service
        self._limit = limit
        self._devices: Mapping[str, PoolDevice] = {}
        self._list: pb2.ListAndWatchResponse | None = None  # not known until the first update
        self._epoch = 0  # of the streams: those of a past one end
        self._followers: dict[object, float] = {}  # the open streams of this epoch, and since when they are open
        self.left_at = 0.0
        """When the last stream ended that was not ended by us, on the monotonic clock."""
        self._changed = asyncio.Condition()

    async def update(self, devices: Sequence[PoolDevice], held: Collection[str] | None = None) -> None:
        """Set the pool's devices; each open stream gets the new list, unless it is the one it has.

        A device that was offered before and is not in `devices` goes from the list, unless it is in `held`, the devices
        that pods have (None: not known, so that all may be): it is offered as unhealthy from then on, as the kubelet
        forgets what is no longer in the list. So is one in `held` that an earlier agent offered. The order of devices
        that stay does not change.
        """
        offered = {device.id: device for device in devices}
        devices_now = {
            id_: offered.get(id_) or replace(device, healthy=False, reason=_GONE, faults=(Fault("device", _GONE),))
            for id_, device in self._devices.items()
            if id_ in offered or held is None or id_ in held
        }
        devices_now |= offered
        devices_now |= {
            id_: PoolDevice(id_, healthy=False, reason=_GONE, faults=(Fault("device", _GONE),))
            for id_ in sorted(held or ())
            if id_ not in devices_now
        }
        self._log_changes(devices_now)
        self._devices = devices_now
        answer = pb2.ListAndWatchResponse(devices=[_advertise(device) for device in devices_now.values()])
        if answer != self._list:
            async with self._changed:
                self._list = answer
                self._changed.notify_all()

    @property
    def devices(self) -> list[PoolDevice]:
        """What the kubelet got last. Can be asked from any thread: each update makes a new list."""
        return list(self._devices.values())

    @property
    def followed_since(self) -> float | None:
        """Since when a kubelet follows the list, on the monotonic clock; None when none does. From any thread."""
        return min(tuple(self._followers.values()), default=None)

    async def end_streams(self) -> None:
        """End all streams that are open now, as a server that stops has to."""
        async with self._changed:
            self._epoch += 1
            self._followers = {}
            self._changed.notify_all()

    async def GetDevicePluginOptions(
        self, request: pb2.Empty, context: grpc.aio.ServicerContext[pb2.Empty, pb2.DevicePluginOptions]
    ) -> pb2.DevicePluginOptions:
        """Ask for both of the optional calls."""
        del request, context
        return OPTIONS

    async def ListAndWatch(
        self, request: pb2.Empty, context: grpc.aio.ServicerContext[pb2.Empty, pb2.ListAndWatchResponse]
    ) -> AsyncIterator[pb2.ListAndWatchResponse]:
        """Stream the whole list: the current one first, then each new one."""
        del request, context
        epoch, followers, stream = self._epoch, self._followers, object()
        followers[stream] = time.monotonic()
        self.stirred()
        try:
            current = await self._await_list(epoch, None)
            while current is not None:
                yield current
                current = await self._await_list(epoch, current)
        finally:
            del followers[stream]
            if followers is self._followers:
                self.left_at = time.monotonic()
                self.stirred()

    async def GetPreferredAllocation(
        self,
        request: pb2.PreferredAllocationRequest,
        context: grpc.aio.ServicerContext[pb2.PreferredAllocationRequest, pb2.PreferredAllocationResponse],
    ) -> pb2.PreferredAllocationResponse:
        """Choose by the pool's policy. An error would fail the pod: then any devices do."""
        del context
        return pb2.PreferredAllocationResponse(
            container_responses=[
                pb2.ContainerPreferredAllocationResponse(deviceIDs=await self._prefer(container))
                for container in request.container_requests
            ]
        )

    async def Allocate(
        self, request: pb2.AllocateRequest, context: grpc.aio.ServicerContext[pb2.AllocateRequest, pb2.AllocateResponse]
    ) -> pb2.AllocateResponse:
        """Answer what each container gets, in the order of the requests; refuse all when one cannot be served.

        Codes: NOT_FOUND for a device that was never offered, FAILED_PRECONDITION for one that is not fit for use,
        DEADLINE_EXCEEDED when the node does not answer in time.
        """
        answers = []
        for container in request.container_requests:
            try:
                answers.append(write_answer(await self._give(list(container.devices_ids))))
            except _RefusedError as refusal:
                logger.error("%s; refused to give devices to a container", refusal)
                await context.abort(refusal.code, str(refusal))
        self._allocated()
        return pb2.AllocateResponse(container_responses=answers)

    async def PreStartContainer(
        self,
        request: pb2.PreStartContainerRequest,
        context: grpc.aio.ServicerContext[pb2.PreStartContainerRequest, pb2.PreStartContainerResponse],
    ) -> pb2.PreStartContainerResponse:
        """Look whether what the kubelet gives to the container, maybe out of its checkpoint, is still what it was.

        Codes as those of Allocate. A device that is unhealthy now is given: its container may be there to repair it.
        """
        ids = list(request.devices_ids)
        try:
            await self._serve(self._service.verify, ids)
        except _RefusedError as refusal:
            logger.error("%s; refused to start the container", refusal)
            await context.abort(refusal.code, str(refusal))
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
                raise _RefusedError(grpc.StatusCode.NOT_FOUND, f"{self._resource}: {id_}: it is no device of this pool")
            if not device.healthy:
                reason = f"{self._resource}: {device.name}: it is not healthy: {device.reason}"
                raise _RefusedError(grpc.StatusCode.FAILED_PRECONDITION, reason)
        return await self._serve(self._service.allocate, ids)

    async def _serve(self, call: Callable[[Sequence[str]], _T], ids: Sequence[str]) -> _T:
        try:
            async with asyncio.timeout(self._limit):
                return await asyncio.to_thread(call, ids)
        except SriovdpError as error:
            raise _RefusedError(grpc.StatusCode.FAILED_PRECONDITION, f"{self._resource}: {error}") from error
        except TimeoutError as error:
            text = f"{self._resource}: looking at {', '.join(ids)} took more than {self._limit:g} s"
            raise _RefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, text) from error

    async def _prefer(self, wish: pb2.ContainerPreferredAllocationRequest) -> Sequence[str]:
        available, must = list(wish.available_deviceIDs), list(wish.must_include_deviceIDs)
        try:
            return self._service.prefer(available, must, wish.allocation_size)
        except Exception:
            logger.exception("%s: choosing devices by the pool's policy failed, any will do", self._resource)
            return list(dict.fromkeys((*must, *available)))[: wish.allocation_size]

    def _log_changes(self, devices_now: Mapping[str, PoolDevice]) -> None:
        for id_, device in devices_now.items():
            before = self._devices.get(id_)
            if not device.healthy and (before is None or before.healthy):
                logger.warning("%s: %s: not healthy: %s", self._resource, device.name, device.reason)
            elif device.healthy and before is not None and not before.healthy:
                logger.info("%s: %s: healthy again", self._resource, device.name)


def _advertise(device: PoolDevice) -> pb2.Device:
    nodes = [] if device.numa_node is None else [pb2.NUMANode(ID=device.numa_node)]
    return pb2.Device(
        ID=device.id,
        health="Healthy" if device.healthy else "Unhealthy",
        topology=pb2.TopologyInfo(nodes=nodes) if nodes else None,
    )


def write_answer(allocation: Allocation) -> pb2.ContainerAllocateResponse:
    """What the kubelet gets for one container."""
    return pb2.ContainerAllocateResponse(
        envs=allocation.envs,
        mounts=[
            pb2.Mount(host_path=mount.host_path, container_path=mount.container_path, read_only=mount.read_only)
            for mount in allocation.mounts
        ],
        devices=[
            pb2.DeviceSpec(host_path=node.host_path, container_path=node.container_path, permissions=node.permissions)
            for node in allocation.nodes
        ],
        cdi_devices=[pb2.CDIDevice(name=name) for name in allocation.cdi_devices],
    )
