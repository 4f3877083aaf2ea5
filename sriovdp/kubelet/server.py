"""The gRPC server of one pool on its unix socket: the device plugin, and who it is for the kubelet's plugin watcher.

Protocol of the watcher: pluginregistration.Registration of k8s.io/kubelet, pkg/apis/pluginregistration/v1/api.proto.
"""
# ruff: noqa: N802 - the protocol names the methods

import logging
from pathlib import Path

import grpc.aio

from sriovdp.errors import SriovdpError
from sriovdp.kubelet.api import pluginregistration_v1_pb2 as pb2
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2_grpc import add_DevicePluginServicer_to_server
from sriovdp.kubelet.api.pluginregistration_v1_pb2_grpc import RegistrationServicer, add_RegistrationServicer_to_server
from sriovdp.kubelet.plugin import DevicePlugin

logger = logging.getLogger(__name__)

VERSION = "v1beta1"
"""The version of the device plugin protocol that is spoken here."""

_GRACE = 1.0  # seconds for an Allocate that is under way


class PluginServer:
    """Serves a plugin on `socket`. To be started once, and stopped once."""

    def __init__(self, socket: Path, resource: str, plugin: DevicePlugin) -> None:
        self.socket = socket
        self._plugin = plugin
        self._server = grpc.aio.server()
        self._introduction = _Introduction(socket, resource)
        add_DevicePluginServicer_to_server(plugin, self._server)
        add_RegistrationServicer_to_server(self._introduction, self._server)

    @property
    def accepted(self) -> bool:
        """Whether a plugin watcher said last that it registered the pool."""
        return self._introduction.accepted

    async def start(self) -> None:
        """Bind the socket; gRPC replaces a stale one. Raises SriovdpError when that can not be done."""
        try:
            self._server.add_insecure_port(f"unix:{self.socket}")
            await self._server.start()
        except RuntimeError as error:
            await self._server.stop(None)
            raise SriovdpError(
                f"can not serve on {self.socket}: {error}", hint="its directory has to be there and writable"
            ) from error

    async def stop(self) -> None:
        """Remove the socket, so that no new client comes, end the streams, and wait shortly for what is under way."""
        self.socket.unlink(missing_ok=True)
        await self._plugin.end_streams()
        await self._server.stop(_GRACE)


class _Introduction(RegistrationServicer):
    """Answers the plugin watcher, which finds the socket by itself and asks who is there."""

    def __init__(self, socket: Path, resource: str) -> None:
        self._info = pb2.PluginInfo(
            type="DevicePlugin", name=resource, endpoint=str(socket), supported_versions=[VERSION]
        )
        self.accepted = False

    async def GetInfo(
        self, request: pb2.InfoRequest, context: grpc.aio.ServicerContext[pb2.InfoRequest, pb2.PluginInfo]
    ) -> pb2.PluginInfo:
        """Tell type, resource, socket and version."""
        del request, context
        return self._info

    async def NotifyRegistrationStatus(
        self,
        request: pb2.RegistrationStatus,
        context: grpc.aio.ServicerContext[pb2.RegistrationStatus, pb2.RegistrationStatusResponse],
    ) -> pb2.RegistrationStatusResponse:
        """Log the kubelet's verdict; after a refusal the kubelet asks again by itself."""
        del context
        self.accepted = request.plugin_registered
        if request.plugin_registered:
            logger.info("%s: registered with the kubelet", self._info.name)
        else:
            logger.error("%s: the kubelet refused the registration: %s", self._info.name, request.error)
        return pb2.RegistrationStatusResponse()
