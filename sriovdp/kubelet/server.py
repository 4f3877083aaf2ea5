"""The gRPC server of one pool on its unix socket: the device plugin, and who it is for the kubelet's plugin watcher.

Protocol of the watcher: pluginregistration.Registration of k8s.io/kubelet, pkg/apis/pluginregistration/v1/api.proto.
"""
# ruff: noqa: N802 - the protocol names the methods

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import grpc.aio

from sriovdp.errors import SriovdpError
from sriovdp.kubelet.api import pluginregistration_v1_pb2 as pb2
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2_grpc import add_DevicePluginServicer_to_server
from sriovdp.kubelet.api.pluginregistration_v1_pb2_grpc import RegistrationServicer, add_RegistrationServicer_to_server
from sriovdp.kubelet.plugin import DevicePlugin

VERSION = "v1beta1"
"""The version of the device plugin protocol that is spoken here."""

Standing = Literal["new", "greeted", "refused", "accepted"]
"""What the kubelet did last with a socket: nothing yet, it asked who is there, or it gave its verdict."""

_GRACE = 1.0  # seconds for an Allocate that is under way


class PluginServer:
    """Serves a plugin on `socket`. To be started once, and stopped once.

    `on_verdict` is called with each verdict of a plugin watcher: the reason of a refusal, empty for an acceptance.
    """

    def __init__(self, socket: Path, resource: str, plugin: DevicePlugin, on_verdict: Callable[[str], None]) -> None:
        self.socket = socket
        self.standing: Standing = "new"
        self.since = time.monotonic()
        """When the standing became so, on the monotonic clock."""
        self._plugin = plugin
        self._on_verdict = on_verdict
        self._server = grpc.aio.server()
        add_DevicePluginServicer_to_server(plugin, self._server)
        add_RegistrationServicer_to_server(_Introduction(self, resource), self._server)

    def stand(self, standing: Standing, refusal: str = "") -> None:
        """Take over what the kubelet did with the socket."""
        self.standing, self.since = standing, time.monotonic()
        if standing in {"refused", "accepted"}:
            self._on_verdict(refusal)

    async def start(self) -> None:
        """Bind the socket. Raises SriovdpError when that cannot be done."""
        try:
            self._server.add_insecure_port(f"unix:{self.socket}")
            await self._server.start()
        except RuntimeError as error:
            await self._server.stop(None)
            raise SriovdpError(
                f"cannot serve on {self.socket}: {error}", hint="make its directory writable for the agent"
            ) from error

    async def stop(self) -> None:
        """Remove the socket, so that no new client comes, end the streams, and wait shortly for what is under way."""
        self.socket.unlink(missing_ok=True)
        await self._plugin.end_streams()
        await self._server.stop(_GRACE)


class _Introduction(RegistrationServicer):
    """Answers the plugin watcher, which finds the socket by itself and asks who is there."""

    def __init__(self, server: PluginServer, resource: str) -> None:
        self._server = server
        # without an endpoint, which makes the kubelet take the socket where it found it: its folders can be elsewhere
        # for it than for us (operation_generator.go of pkg/kubelet/pluginmanager)
        self._info = pb2.PluginInfo(type="DevicePlugin", name=resource, supported_versions=[VERSION])

    async def GetInfo(
        self, request: pb2.InfoRequest, context: grpc.aio.ServicerContext[pb2.InfoRequest, pb2.PluginInfo]
    ) -> pb2.PluginInfo:
        """Give type, resource and version."""
        del request, context
        self._server.stand("greeted")
        return self._info

    async def NotifyRegistrationStatus(
        self,
        request: pb2.RegistrationStatus,
        context: grpc.aio.ServicerContext[pb2.RegistrationStatus, pb2.RegistrationStatusResponse],
    ) -> pb2.RegistrationStatusResponse:
        """Take the kubelet's verdict."""
        del context
        if request.plugin_registered:
            self._server.stand("accepted")
        else:
            self._server.stand("refused", request.error or "it gave no reason")
        return pb2.RegistrationStatusResponse()
