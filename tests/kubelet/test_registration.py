"""A pool stays known to the kubelet, with and without a plugin watcher, whatever the kubelet does."""

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sriovdp.kubelet import endpoint as endpoint_module
from sriovdp.kubelet.endpoint import Endpoint
from sriovdp.kubelet.plugin import DevicePlugin
from sriovdp.kubelet.registration import Endpoints
from sriovdp.kubelet.server import PluginServer
from sriovdp.kubelet.sockets import name_socket
from sriovdp.kubelet.waits import Waits
from tests.agent.running import wait_until
from tests.fakes.kubelet import Kubelet
from tests.kubelet.conftest import RESOURCE, Service, vfs

OTHER = "intel.com/sriov"


@pytest.fixture(params=[True, False], ids=["watcher", "register"])
def watcher(request: pytest.FixtureRequest) -> bool:
    """Whether the kubelet watches for plugins, or they have to register themselves."""
    return bool(request.param)


@pytest.fixture
def folder(tmp_path: Path, watcher: bool) -> Path:
    """Where the pool's socket has to be."""
    return tmp_path / ("plugins_registry" if watcher else "device-plugins")


def list_sockets(folder: Path) -> list[Path]:
    """The sockets of our pools there."""
    return [path for path in folder.glob("sriovdp-*.sock") if path.is_socket()]


def leave_socket(path: Path) -> None:
    """A socket without a listener, as a power loss leaves it."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@pytest_asyncio.fixture
async def endpoint(tmp_path: Path, plugin: DevicePlugin) -> AsyncIterator[Endpoint]:
    """The endpoint of a pool of four VFs, not started."""
    await plugin.update(vfs(4))
    endpoint = Endpoint(tmp_path, RESOURCE, plugin)
    yield endpoint
    await endpoint.stop()


async def test_pool_is_offered_to_the_kubelet(tmp_path: Path, watcher: bool, folder: Path, endpoint: Endpoint) -> None:
    """A pool that starts under a running kubelet is offered on the socket that this kubelet looks at."""
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await endpoint.start()
        assert await kubelet.wait_for(RESOURCE, count=4) == [device.id for device in vfs(4)]
        assert len(await asyncio.to_thread(list_sockets, folder)) == 1
        assert kubelet.registrations == [RESOURCE]


async def test_refused_registration_is_tried_again(
    tmp_path: Path, watcher: bool, folder: Path, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """A kubelet that refuses is shown another socket until it accepts; its words are in the log once, and counted."""
    caplog.set_level(logging.INFO)
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await kubelet.refuse("the device manager is not ready", times=2)
        await endpoint.start()
        seen = set(await asyncio.to_thread(list_sockets, folder))
        await kubelet.wait_for(RESOURCE, count=4)
        assert len(seen | set(await asyncio.to_thread(list_sockets, folder))) == 2
        await wait_until(lambda: "registered with the kubelet after 2 refusals" in caplog.text)
        assert caplog.text.count("the device manager is not ready") == 1
        assert endpoint.trouble == ""


async def test_restarted_kubelet_knows_the_pool_again(tmp_path: Path, watcher: bool, endpoint: Endpoint) -> None:
    """After its restart the kubelet has the pool again, and a pod from before still has its VF."""
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=4)
        old = await kubelet.admit("old", {RESOURCE: 1})
        await kubelet.restart()
        await kubelet.wait_for(RESOURCE, count=4)
        assert kubelet.registrations == [RESOURCE, RESOURCE]
        new = await kubelet.admit("new", {RESOURCE: 3})
        assert old.devices[RESOURCE][0] not in new.devices[RESOURCE]


async def test_removed_socket_is_served_again(tmp_path: Path, watcher: bool, folder: Path, endpoint: Endpoint) -> None:
    """Somebody removes the socket, as a kubelet does that wipes its directory: it comes back."""
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=4)
        (removed,) = await asyncio.to_thread(list_sockets, folder)
        await asyncio.to_thread(removed.unlink)
        await kubelet.wait_for_registration(RESOURCE, times=2)
        await kubelet.wait_for(RESOURCE, count=4)
        assert await asyncio.to_thread(list_sockets, folder) != [removed]


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
    tmp_path: Path, watcher: bool, folder: Path, endpoint: Endpoint
) -> None:
    """The kubelet sees a stopped agent at once, keeps its devices as unhealthy, and no socket is left to dial."""
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=4)
        await endpoint.stop()
        assert await asyncio.to_thread(list_sockets, folder) == []
        await kubelet.wait_for(RESOURCE, count=4, healthy=False)
        await endpoint.stop()  # a second stop has nothing to do


async def test_folder_that_cannot_be_written_is_logged_and_tried_again(
    tmp_path: Path, endpoint: Endpoint, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the socket cannot be bound the log says so once, and the pool is offered as soon as it can."""
    folders = iter(["no-such-folder"] * 3)
    monkeypatch.setattr(endpoint_module, "name_socket", lambda *where: f"{next(folders, '.')}/{name_socket(*where)}")
    async with Kubelet(tmp_path, watcher=False) as kubelet:
        await endpoint.start()
        await wait_until(lambda: "cannot serve on" in caplog.text)
        assert "no-such-folder" in endpoint.trouble
        await kubelet.wait_for(RESOURCE, count=4)


@pytest_asyncio.fixture
async def endpoints(tmp_path: Path, plugin: DevicePlugin, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Endpoints]:
    """Two pools of four VFs, not started, that see by inotify only what happens in the kubelet's folders."""
    monkeypatch.setattr(endpoint_module, "_LOOK_INTERVAL", 600)
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
            while endpoints.unregistered():  # noqa: ASYNC110 - the kubelet asks for the list before it answers
                await asyncio.sleep(0.01)
            await kubelet.restart()


async def test_folders_that_are_made_again_are_noticed_at_once(tmp_path: Path, endpoints: Endpoints) -> None:
    """An agent that is first notices the kubelet's folders, and those that replace them."""
    await endpoints.start()
    assert endpoints.unregistered().keys() == {RESOURCE, OTHER}
    assert "is not there" in endpoints.unregistered()[RESOURCE]
    for times in range(3):
        async with Kubelet(tmp_path, watcher=False) as kubelet:
            await kubelet.wait_for(RESOURCE, count=4)
            await kubelet.wait_for(OTHER, count=4)
        await asyncio.to_thread((tmp_path / "device-plugins").rename, tmp_path / f"old-{times}")


async def test_sockets_left_behind_are_removed(tmp_path: Path, watcher: bool, endpoints: Endpoints) -> None:
    """Sockets of pools that are no more, and those for the other kind of kubelet, go.

    Other plugins' sockets stay, and one of ours on which another agent still listens.
    """
    for folder in ("plugins_registry", "device-plugins") if watcher else ("device-plugins",):
        (tmp_path / folder).mkdir()
        for name in ("sriovdp-intel.com_old.sock", name_socket(tmp_path / folder, RESOURCE), "csi.sock"):
            leave_socket(tmp_path / folder / name)
    used = tmp_path / ("plugins_registry" if watcher else "device-plugins")
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(used / "sriovdp-alive.sock"))
        alive.listen()
        await endpoints.start()
        left = {path.name.rpartition("-")[0] or path.name for path in used.iterdir()}
    assert left == {"sriovdp-intel.com_sriov_dpdk", "sriovdp-intel.com_sriov", "sriovdp", "csi.sock"}
    if watcher:
        assert [path.name for path in (tmp_path / "device-plugins").iterdir()] == ["csi.sock"]


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


async def test_stream_that_the_kubelet_ends_is_no_loss(tmp_path: Path, watcher: bool, endpoint: Endpoint) -> None:
    """A kubelet that ends a stream by mistake, and does not know it, is shown another socket."""
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=4)
        await kubelet.disconnect(RESOURCE)
        await kubelet.wait_for_registration(RESOURCE, times=2)
        await kubelet.wait_for(RESOURCE, count=4)


async def test_kubelet_that_does_not_look_is_asked(
    tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that watches a folder which is no more never sees a socket: the pool registers itself."""
    monkeypatch.setattr(endpoint_module, "_ANSWER_TIME", 0.5)
    async with Kubelet(tmp_path) as kubelet:
        await asyncio.to_thread((tmp_path / "plugins_registry").rename, tmp_path / "old")
        await asyncio.to_thread((tmp_path / "plugins_registry").mkdir)
        await endpoint.start()
        await kubelet.wait_for(RESOURCE, count=4)
        assert await asyncio.to_thread(list_sockets, tmp_path / "plugins_registry") == []
        await kubelet.restart()
        await kubelet.wait_for(RESOURCE, count=4)
        assert len(await asyncio.to_thread(list_sockets, tmp_path / "plugins_registry")) == 1


async def test_stop_that_is_not_heard_ends_all_the_same(
    tmp_path: Path, watcher: bool, folder: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
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
        (path,) = await asyncio.to_thread(list_sockets, folder)
        await asyncio.to_thread(path.unlink)
        await asyncio.wait_for(stopping.wait(), 30)
        monkeypatch.setattr(PluginServer, "stop", stop)
        await asyncio.wait_for(endpoint.stop(), 30)


def test_names_of_sockets() -> None:
    """Each call gives another name, as the kubelet remembers them; one that is too long for a path is shortened."""
    folder = Path("/var/lib/kubelet/plugins_registry")
    long = [f"a-company-with-a-long-name.example.com/{'x' * 62}{n}" for n in (1, 2)]
    names = [name_socket(folder, resource) for resource in (RESOURCE, RESOURCE, *long, *long)]
    assert re.fullmatch(r"sriovdp-intel\.com_sriov_dpdk-[0-9a-f]{8}\.sock", names[0])
    assert len({*names}) == 6
    assert len({name.rpartition("-")[0] for name in names}) == 3
    assert all(len(str(folder / name)) <= 107 for name in names)


def test_waits_grow_and_fall_out_of_step() -> None:
    """From about a second to about a minute, no two pools in step for long; a success begins again."""
    waits = Waits()
    seen = [waits.current]
    for _ in range(8):
        waits.grow()
        seen.append(waits.current)
    assert all(0.8 * most <= wait <= most for wait, most in zip(seen, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True))
    waits.reset()
    assert waits.current <= 1
