"""Asking the kubelet which pod has which device.

Protocol: v1.PodResourcesLister of k8s.io/kubelet, pkg/apis/podresources/v1/api.proto. Its List has active pods;
kubelets before 1.34 also of pods that have ended and are not deleted yet.
"""

import time
from collections import defaultdict
from pathlib import Path

import grpc.aio

from sriovdp.errors import SriovdpError
from sriovdp.kubelet.api import podresources_v1_pb2 as pb2
from sriovdp.kubelet.api.podresources_v1_pb2_grpc import PodResourcesListerStub
from sriovdp.kubelet.pod_devices import Holder, PodDevices

_TIMEOUT = 2.0  # seconds; the kubelet answers from memory
_CHANNEL_OPTIONS = (
    ("grpc.default_authority", "localhost"),  # the kubelet's gRPC refuses a path there
    ("grpc.use_local_subchannel_pool", 1),  # a failed attempt must not delay the next one
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),  # as the kubelet's own client: hundreds of pods
)


class PodResources:
    """The kubelet's PodResources socket below `kubelet_dir`, which need not be there. Each call is bounded."""

    def __init__(self, kubelet_dir: Path, *, timeout: float = _TIMEOUT) -> None:
        self._socket = kubelet_dir / "pod-resources" / "kubelet.sock"
        self._timeout = timeout

    async def list_devices(self, *, patience: float | None = None) -> PodDevices:
        """Who has what. Never raises: the answer's `problem` says why there is none.

        `patience` is how long to wait for a kubelet that is slow, in seconds, if it is not to be the usual time.
        """
        asked_at = time.monotonic()
        try:
            answer = await self._list(patience or self._timeout)
        except SriovdpError as error:
            return PodDevices(problem=str(error))
        holders: defaultdict[tuple[str, str], list[Holder]] = defaultdict(list)
        for pod in answer.pod_resources:
            for container in pod.containers:
                for entry in container.devices:
                    for id_ in entry.device_ids:
                        holders[entry.resource_name, id_].append(Holder(pod.namespace, pod.name, container.name))
        pods = frozenset(f"{pod.namespace}/{pod.name}" for pod in answer.pod_resources)
        return PodDevices(pods, {key: tuple(value) for key, value in holders.items()}, asked_at=asked_at)

    async def _list(self, patience: float) -> pb2.ListPodResourcesResponse:
        if not self._socket.exists():
            raise SriovdpError(
                f"{self._socket} is not there",
                hint="a kubelet has to run, and its folder pod-resources to be mounted here",
            )
        async with grpc.aio.insecure_channel(f"unix:{self._socket}", options=_CHANNEL_OPTIONS) as channel:
            try:
                return await PodResourcesListerStub(channel).List(pb2.ListPodResourcesRequest(), timeout=patience)
            except grpc.aio.AioRpcError as error:
                reason = f"{error.code().name}, {error.details()}"
                raise SriovdpError(f"the kubelet did not answer List of PodResources: {reason}") from error
