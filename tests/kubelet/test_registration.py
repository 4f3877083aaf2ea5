"""A pool stays known to the kubelet, with and without a plugin watcher, whatever the kubelet does."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sriovdp.kubelet.plugin import DevicePlugin
from sriovdp.kubelet.registration import Endpoint
from tests.fakes.kubelet import Kubelet
from tests.kubelet.conftest import RESOURCE, vfs


@pytest.fixture(params=[True, False], ids=["watcher", "register"])
def watcher(request: pytest.FixtureRequest) -> bool:
    """Whether the kubelet watches for plugins, or they have to register themselves."""
    return bool(request.param)


@pytest.fixture
def path(tmp_path: Path, watcher: bool) -> Path:
    """Where the pool's socket has to be."""
    return tmp_path / ("plugins_registry" if watcher else "device-plugins") / "intel.com_sriov_dpdk.sock"


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
    await asyncio.sleep(2.5)  # some rounds without a kubelet
    assert caplog.text.count("is not there") == 1
    async with Kubelet(tmp_path, watcher=watcher) as kubelet:
        await kubelet.wait_for(RESOURCE, count=4)


async def test_stopped_kubelet_is_waited_for(
    tmp_path: Path, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory without kubelet.sock is served, and the pool is registered when the kubelet comes."""
    (tmp_path / "device-plugins").mkdir()
    await endpoint.start()
    await asyncio.sleep(1.5)  # some rounds without a kubelet
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
    path = tmp_path / "device-plugins" / "intel.com_sriov_dpdk.sock"
    async with Kubelet(tmp_path, watcher=False) as kubelet:
        path.mkdir()
        await endpoint.start()
        await asyncio.sleep(1.5)  # a second attempt
        assert caplog.text.count(f"can not serve on {path}") == 1
        path.rmdir()
        await kubelet.wait_for(RESOURCE, count=4)
