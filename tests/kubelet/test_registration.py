"""A pool stays known to the kubelet, with and without a plugin watcher, whatever the kubelet does."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sriovdp.kubelet import registration
from sriovdp.kubelet.plugin import DevicePlugin
from sriovdp.kubelet.registration import Endpoint, Endpoints, name_socket
from sriovdp.kubelet.server import PluginServer
from tests.fakes.kubelet import Kubelet
from tests.kubelet.conftest import RESOURCE, Service, vfs

OTHER = "intel.com/sriov"


@pytest.fixture(params=[True, False], ids=["watcher", "register"])
def watcher(request: pytest.FixtureRequest) -> bool:
    """Whether the kubelet watches for plugins, or they have to register themselves."""
    return bool(request.param)


@pytest.fixture
def path(tmp_path: Path, watcher: bool) -> Path:
    """Where the pool's socket has to be."""
    return tmp_path / ("plugins_registry" if watcher else "device-plugins") / "sriovdp-intel.com_sriov_dpdk.sock"


@pytest_asyncio.fixture
async def endpoint(tmp_path: Path, plugin: DevicePlugin) -> AsyncIterator[Endpoint]:
    """The endpoint of a pool of four VFs, not started."""
    await plugin.update(vfs(4))
    endpoint = Endpoint(tmp_path, RESOURCE, plugin)
    yield endpoint
    await endpoint.stop()


async def test_pool_is_offered_to_the_kubelet(tmp_path: Path, watcher: bool, path: Path, endpoint: Endpoint) -> None:
    """A pool that starts under a running kubelet is offered on the socket that this kubelet looks at."""
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await endpoint.start()
        assert await kubelet.wait_for(RESOURCE, count=4) == [device.id for device in vfs(4)]
        assert await asyncio.to_thread(path.is_socket)
        assert kubelet.registrations == [RESOURCE]


async def test_refused_registration_is_tried_again(
    tmp_path: Path, watcher: bool, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """A kubelet that refuses once is asked again, and its words are in the log."""
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        kubelet.refuse_next("the device manager is not ready")
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=4)
        assert caplog.text.count("the device manager is not ready") == 1


@pytest.mark.parametrize("wipe", [True, False], ids=["wiped", "only kubelet.sock anew"])
async def test_restarted_kubelet_knows_the_pool_again(
    tmp_path: Path, watcher: bool, wipe: bool, endpoint: Endpoint
) -> None:
    """After its restart the kubelet has the pool again, and a pod from before still has its VF."""
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=4)
        old = await kubelet.admit("old", {RESOURCE: 1})
        await kubelet.restart(wipe=wipe)
        await kubelet.wait_for(RESOURCE, count=4)
        assert kubelet.registrations == [RESOURCE, RESOURCE]
        new = await kubelet.admit("new", {RESOURCE: 3})
        assert old.devices[RESOURCE][0] not in new.devices[RESOURCE]


async def test_removed_socket_is_served_anew(tmp_path: Path, watcher: bool, path: Path, endpoint: Endpoint) -> None:
    """Somebody removes the socket, as a kubelet does that wipes its directory: it comes back."""
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=4)
        await asyncio.to_thread(path.unlink)
        await kubelet.wait_for_registration(RESOURCE, times=2)
        await kubelet.wait_for(RESOURCE, count=4)
        assert await asyncio.to_thread(path.is_socket)


async def test_absent_kubelet_is_waited_for(
    tmp_path: Path, watcher: bool, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """An agent that is up before the kubelet was ever installed starts, says so once, and registers later."""
    await endpoint.start()
    await asyncio.sleep(1.2)  # some rounds without a kubelet
    assert caplog.text.count("is not there") == 1
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await kubelet.wait_for(RESOURCE, count=4)


async def test_stopped_kubelet_is_waited_for(
    tmp_path: Path, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory without kubelet.sock is served, and the pool is registered when the kubelet comes."""
    (tmp_path / "device-plugins").mkdir()
    await endpoint.start()
    await asyncio.sleep(0.8)  # some rounds without a kubelet
    assert caplog.text.count("no kubelet is at") == 1
    async with Kubelet(tmp_path, watcher=False) as kubelet:
        await kubelet.wait_for(RESOURCE, count=4)


async def test_stop_removes_the_socket_and_ends_the_streams(
    tmp_path: Path, watcher: bool, path: Path, endpoint: Endpoint
) -> None:
    """The kubelet sees a stopped agent at once, keeps its devices as unhealthy, and no socket is left to dial."""
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=4)
        await endpoint.stop()
        assert not await asyncio.to_thread(path.exists)
        await kubelet.wait_for(RESOURCE, count=4, healthy=False)
        await endpoint.stop()  # a second stop has nothing to do


async def test_stale_socket_is_replaced(tmp_path: Path, watcher: bool, path: Path, endpoint: Endpoint) -> None:
    """The socket that a killed agent left behind is no obstacle to the next one."""
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=4)


async def test_unusable_directory_is_told_and_tried_again(
    tmp_path: Path, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the socket can not be bound the log says so once, and the pool is offered as soon as it can."""
    path = tmp_path / "device-plugins" / "sriovdp-intel.com_sriov_dpdk.sock"
    async with Kubelet(tmp_path, watcher=False) as kubelet:
        path.mkdir()
        await endpoint.start()
        await asyncio.sleep(0.8)  # a second attempt
        assert caplog.text.count(f"can not serve on {path}") == 1
        path.rmdir()
        await kubelet.wait_for(RESOURCE, count=4)


@pytest_asyncio.fixture
async def endpoints(tmp_path: Path, plugin: DevicePlugin, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Endpoints]:
    """Two pools of four VFs, not started, that see by inotify only what happens in the kubelet's folders."""
    monkeypatch.setattr(registration, "_LOOK_INTERVAL", 600)
    other = DevicePlugin(OTHER, Service())
    for pool in (plugin, other):
        await pool.update(vfs(4))
    endpoints = Endpoints(tmp_path, {RESOURCE: plugin, OTHER: other})
    yield endpoints
    await endpoints.stop()


async def test_restarts_are_noticed_at_once(tmp_path: Path, watcher: bool, endpoints: Endpoints) -> None:
    """Each pool has its own socket, and all are back after a restart without anybody looking now and then."""
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await endpoints.start()
        for times in (1, 2, 3):
            for resource in (RESOURCE, OTHER):
                await kubelet.wait_for_registration(resource, times=times)
                await kubelet.wait_for(resource, count=4)
            while endpoints.unregistered():  # noqa: ASYNC110 - the kubelet asks for the list before it tells its verdict
                await asyncio.sleep(0.01)
            await kubelet.restart()


async def test_folders_that_are_made_anew_are_noticed_at_once(tmp_path: Path, endpoints: Endpoints) -> None:
    """An agent that is first is told of the kubelet's folders, and of those that replace them."""
    await endpoints.start()
    assert endpoints.unregistered().keys() == {RESOURCE, OTHER}
    assert "is not there" in endpoints.unregistered()[RESOURCE]
    for times in range(3):
        async with Kubelet(tmp_path, watcher=False) as kubelet:
            await kubelet.wait_for(RESOURCE, count=4)
            await kubelet.wait_for(OTHER, count=4)
        await asyncio.to_thread((tmp_path / "device-plugins").rename, tmp_path / f"old-{times}")


async def test_sockets_left_behind_are_removed(tmp_path: Path, watcher: bool, endpoints: Endpoints) -> None:
    """Sockets of pools that are no more, and those for the other kind of kubelet, go; other plugins' sockets stay."""
    for folder in ("plugins_registry", "device-plugins") if watcher else ("device-plugins",):
        (tmp_path / folder).mkdir()
        for name in ("sriovdp-intel.com_old.sock", name_socket(tmp_path / folder, RESOURCE), "csi.sock"):
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(tmp_path / folder / name))
    await endpoints.start()
    left = await asyncio.to_thread(lambda: {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")})
    used = "plugins_registry" if watcher else "device-plugins"
    others = {"device-plugins/csi.sock"} | ({"plugins_registry/csi.sock"} if watcher else set())
    assert left == {f"{used}/{name_socket(tmp_path / used, name)}" for name in (RESOURCE, OTHER)} | others


async def test_kubelet_that_hangs_holds_up_nothing(
    tmp_path: Path, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """A kubelet that accepts and never answers is left as soon as another takes its place."""
    (tmp_path / "device-plugins").mkdir()
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(tmp_path / "device-plugins/kubelet.sock"))
        hung.listen()
        await endpoint.start()
        await asyncio.sleep(1)  # the call is under way
        assert not endpoint.registered
        async with Kubelet(tmp_path, watcher=False) as kubelet:
            await kubelet.wait_for(RESOURCE, count=4, within=10)  # well below the call's own limit
        assert "went away while it was asked" in caplog.text


async def test_two_kubelets_that_fight(tmp_path: Path, endpoint: Endpoint) -> None:
    """The pool is known to the one that has the socket now, while the other is still there, and when it comes back."""
    async with Kubelet(tmp_path, watcher=False) as first:
        await endpoint.start()
        await first.wait_for(RESOURCE, count=4)
        async with Kubelet(tmp_path, watcher=False) as second:
            await second.wait_for(RESOURCE, count=4)
            await first.restart()
            await first.wait_for(RESOURCE, count=4)
            await first.restart()
            await first.wait_for(RESOURCE, count=4)


async def test_stream_that_breaks_is_opened_anew(tmp_path: Path, watcher: bool, plugin: DevicePlugin) -> None:
    """A stream broken in the middle harms neither the other one nor the next: each begins with the whole list."""
    await plugin.update(vfs(4))
    endpoint = Endpoint(tmp_path, RESOURCE, plugin)
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=4)
        await kubelet.break_stream(RESOURCE)
        await kubelet.wait_for(RESOURCE, count=4, healthy=False)
        await plugin.update(vfs(3), held=())
        await kubelet.open_stream(RESOURCE)
        assert await kubelet.wait_for(RESOURCE, count=3) == [device.id for device in vfs(3)]
        await endpoint.stop()


async def test_stop_that_is_not_heard_ends_all_the_same(
    tmp_path: Path, watcher: bool, path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation is lost while gRPC stops a server, as asyncio.wait_for before 3.12 may do: it ends yet."""
    stopping, stop = asyncio.Event(), PluginServer.stop

    async def lose(server: PluginServer) -> None:
        stopping.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)
        await stop(server)

    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=4)
        monkeypatch.setattr(PluginServer, "stop", lose)
        await asyncio.to_thread(path.unlink)
        await asyncio.wait_for(stopping.wait(), 30)
        monkeypatch.setattr(PluginServer, "stop", stop)
        await asyncio.wait_for(endpoint.stop(), 30)


def test_socket_of_a_long_name_fits(tmp_path: Path) -> None:
    """A resource whose name is too long for a socket's path gets a short one, which no other has."""
    folder = Path("/var/lib/kubelet/plugins_registry")
    long = [f"a-company-with-a-long-name.example.com/{'x' * 62}{n}" for n in (1, 2)]
    names = [name_socket(folder, resource) for resource in (RESOURCE, *long)]
    assert names[0] == "sriovdp-intel.com_sriov_dpdk.sock"
    assert len({*names}) == 3
    assert all(len(str(folder / name)) <= 107 for name in names)
