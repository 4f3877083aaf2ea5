"""Making all pools known to the kubelet, each on a socket of its own."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from sriovdp.kernel.folder_watch import FolderWatch
from sriovdp.kubelet.endpoint import Endpoint
from sriovdp.kubelet.plugin import DevicePlugin
from sriovdp.kubelet.sockets import remove_dead


class Endpoints:
    """The endpoints of all pools, with one watch of the kubelet's folders. To be started and stopped once.

    Pools may come and go meanwhile. Each has a gRPC server of its own: a call of the device plugin service does not say
    which resource it is for, so a server has to know by its socket.
    """

    def __init__(self, kubelet_dir: Path, plugins: Mapping[str, DevicePlugin]) -> None:
        self._kubelet_dir = kubelet_dir
        self._folders = [kubelet_dir / name for name in ("plugins_registry", "device-plugins")]
        self._watch = FolderWatch(lambda: [kubelet_dir, *self._folders, kubelet_dir / "pod-resources"])
        self._endpoints = {resource: self._make(resource, plugin) for resource, plugin in plugins.items()}

    async def start(self) -> None:
        """Remove sockets that an earlier agent left behind, and serve all pools."""
        await remove_dead(self._folders)
        self._watch.start()
        await asyncio.gather(*(endpoint.start() for endpoint in self._endpoints.values()))

    @property
    def resources(self) -> frozenset[str]:
        """Those that are served."""
        return frozenset(self._endpoints)

    async def add(self, resource: str, plugin: DevicePlugin) -> None:
        """Serve one more pool, whose plugin has its list."""
        self._endpoints[resource] = endpoint = self._make(resource, plugin)
        await endpoint.start()

    async def remove(self, resource: str) -> None:
        """Stop serving a pool: for the kubelet it is gone."""
        endpoint = self._endpoints.pop(resource)
        await endpoint.stop()
        self._watch.unsubscribe(endpoint.changed)

    def _make(self, resource: str, plugin: DevicePlugin) -> Endpoint:
        return Endpoint(self._kubelet_dir, resource, plugin, self._watch.subscribe(), self._is_watched)

    def _is_watched(self) -> bool:
        """Whether the kernel reports what happens in the kubelet's folders. It watches those that came unseen."""
        if not self._watch.is_complete:
            self._watch.watch_again()
        return self._watch.is_complete

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
