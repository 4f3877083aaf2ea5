"""The PodResources service of the scripted kubelet."""
# ruff: noqa: N802 - the protocol names the methods

from collections.abc import Callable, Mapping, Sequence

import grpc.aio

from sriovdp.kubelet.api import podresources_v1_pb2 as resources_pb2
from sriovdp.kubelet.api.podresources_v1_pb2_grpc import PodResourcesListerServicer

Devices = Mapping[str, Sequence[str]]
"""Device IDs by resource."""


class PodResources(PodResourcesListerServicer):
    """Which pod has which devices, and which are allocatable. All pods are in namespace `default`."""

    def __init__(self, list_given: Callable[[], Mapping[str, Devices]], list_offered: Callable[[], Devices]) -> None:
        self._list_given = list_given
        self._list_offered = list_offered

    async def List(
        self,
        request: resources_pb2.ListPodResourcesRequest,
        context: grpc.aio.ServicerContext[
            resources_pb2.ListPodResourcesRequest, resources_pb2.ListPodResourcesResponse
        ],
    ) -> resources_pb2.ListPodResourcesResponse:
        """What each pod was given, by its only container."""
        del request, context
        return resources_pb2.ListPodResourcesResponse(
            pod_resources=[
                resources_pb2.PodResources(
                    name=name,
                    namespace="default",
                    containers=[resources_pb2.ContainerResources(name="main", devices=_group(devices))],
                )
                for name, devices in self._list_given().items()
            ]
        )

    async def GetAllocatableResources(
        self,
        request: resources_pb2.AllocatableResourcesRequest,
        context: grpc.aio.ServicerContext[
            resources_pb2.AllocatableResourcesRequest, resources_pb2.AllocatableResourcesResponse
        ],
    ) -> resources_pb2.AllocatableResourcesResponse:
        """What is offered healthy."""
        del request, context
        return resources_pb2.AllocatableResourcesResponse(devices=_group(self._list_offered()))


def _group(devices: Devices) -> list[resources_pb2.ContainerDevices]:
    return [resources_pb2.ContainerDevices(resource_name=resource, device_ids=ids) for resource, ids in devices.items()]
