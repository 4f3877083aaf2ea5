"""Making all pools known to the kubelet, each on a socket of its own."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from sriovdp.kubelet.endpoint import Endpoint
from sriovdp.kubelet.plugin import DevicePlugin
from sriovdp.kubelet.sockets import remove_dead
from sriovdp.kubelet.watch import FolderWatch


class Endpoints:
    """The endpoints of all pools, with one watch of the kubelet's folders. To be started and stopped once.

    Each pool has a gRPC server of its own: a call of the device plugin service does not say which resource it is for,
    so a server has to know by its socket.
    """

    def __init__(self, kubelet_dir: Path, plugins: Mapping[str, DevicePlugin]) -> None:
        self._folders = [kubelet_dir / name for name in ("plugins_registry", "device-plugins")]
        self._watch = FolderWatch([kubelet_dir, *self._folders])
        self._endpoints = {
            resource: Endpoint(kubelet_dir, resource, plugin, self._watch.subscribe())
            for resource, plugin in plugins.items()
        }

    async def start(self) -> None:
        """Remove sockets that an earlier agent left behind, and serve all pools."""
        await remove_dead(self._folders)
        self._watch.start()
        await asyncio.gather(*(endpoint.start() for endpoint in self._endpoints.values()))

    async def stop(self) -> None:
        """Stop serving all pools."""
        self._watch.stop()
        await asyncio.gather(*(endpoint.stop() for endpoint in self._endpoints.values()))

    def unregistered(self) -> dict[str, str]:
        """The pools that no kubelet follows now, each with the reason."""
        return {
            resource: endpoint.trouble or "no kubelet has accepted it yet"
            for resource, endpoint in self._endpoints.items()
            if not endpoint.registered
        }
