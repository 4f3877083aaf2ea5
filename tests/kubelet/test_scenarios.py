"""What a pool and a kubelet do together: the same with the kubelet's own managers as with the fake.

Each scenario states the steps that the kubelet takes, so that the fake cannot do what no kubelet does.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sriovdp.kubelet.plugin import DevicePlugin
from sriovdp.kubelet.registration import Endpoints
from tests.fakes.kubelet import AdmissionError, Kubelet
from tests.kubelet.conftest import RESOURCE, STUCK, Service, vfs
from tests.kubelet.real import PROGRAM, RealKubelet

AnyKubelet = Kubelet | RealKubelet

TEXT = "failed to dial device plugin: context deadline exceeded"


@pytest.fixture(params=["fake", "real"])
def make(request: pytest.FixtureRequest) -> Callable[[Path], AnyKubelet]:
    """Makes a kubelet below a folder."""
    if request.param == "fake":
        return Kubelet
    if not PROGRAM.exists():
        pytest.skip("the kubelet's managers are not built: `python3 -m setup.cluster kubelet-managers`")
    return RealKubelet


@asynccontextmanager
async def agent(root: Path) -> AsyncIterator[DevicePlugin]:
    """An agent with one pool of four VFs."""
    plugin = DevicePlugin(RESOURCE, Service())
    await plugin.update(vfs(4))
    endpoints = Endpoints(root, {RESOURCE: plugin})
    await endpoints.start()
    try:
        yield plugin
    finally:
        await endpoints.stop()


async def test_a_pool_registers(tmp_path: Path, make: Callable[[Path], AnyKubelet]) -> None:
    """Connected, accepted, listed; and forgotten when the agent stops."""
    async with make(tmp_path) as kubelet:
        async with agent(tmp_path):
            await kubelet.wait_for(RESOURCE, count=4)
            await kubelet.wait_for_step("registered")
        await kubelet.wait_for(RESOURCE, count=4, healthy=False)
        await kubelet.wait_for_step("deregistered")
        assert kubelet.log.settled() == ["connected", "registered #1", "disconnected", "deregistered #1"]
        assert kubelet.log.lists == ["4+0"]


@pytest.mark.parametrize("times", [1, 3], ids=["once", "for a while"])
async def test_a_refused_pool_comes_again(tmp_path: Path, make: Callable[[Path], AnyKubelet], times: int) -> None:
    """Under a new name each time: the kubelet never asks for a refused socket again."""
    async with make(tmp_path) as kubelet:
        await kubelet.refuse(TEXT, times=times)
        async with agent(tmp_path):
            await kubelet.wait_for(RESOURCE, count=4)
            await kubelet.wait_for_step("registered")
            refused = [step for n in range(1, times + 1) for step in (f"refused #{n}: {TEXT}", f"deregistered #{n}")]
            # the kubelet forgets a refused socket by its resource's name: that can meet the next one's connection
            steps = [step for step in kubelet.log.settled() if step != "disconnected"]
            assert steps == [*refused, "connected", f"registered #{times + 1}"]


async def test_the_kubelet_restarts(tmp_path: Path, make: Callable[[Path], AnyKubelet]) -> None:
    """It finds the socket that is there, and its pods keep their devices."""
    async with make(tmp_path) as kubelet, agent(tmp_path):
        await kubelet.wait_for(RESOURCE, count=4)
        before = await kubelet.admit("before", {RESOURCE: 1})
        await kubelet.restart()
        await kubelet.wait_for_step("registered", times=2)
        await kubelet.wait_for(RESOURCE, count=4)
        assert kubelet.log.settled() == ["connected", "registered #1"] * 2
        assert kubelet.log.lists == ["4+0", "4+0"]
        after = await kubelet.admit("after", {RESOURCE: 3})
        assert sorted(before.devices[RESOURCE] + after.devices[RESOURCE]) == [device.id for device in vfs(4)]


async def test_the_kubelet_is_away_for_a_while(tmp_path: Path, make: Callable[[Path], AnyKubelet]) -> None:
    """The agent restarts meanwhile, and makes no socket after the other for a kubelet that is not there."""
    async with make(tmp_path) as kubelet, AsyncExitStack() as agents:
        first = agent(tmp_path)
        await first.__aenter__()
        await kubelet.wait_for_step("registered")
        await kubelet.stop()
        await first.__aexit__(None, None, None)
        await agents.enter_async_context(agent(tmp_path))
        before = sorted((tmp_path / "plugins_registry").iterdir())
        await asyncio.sleep(2.5)  # longer than the first waits
        assert sorted((tmp_path / "plugins_registry").iterdir()) == before
        await kubelet.start()
        await kubelet.wait_for_step("registered", times=2)
        await kubelet.wait_for(RESOURCE, count=4)
        assert kubelet.log.settled() == ["connected", "registered #1", "connected", "registered #2"]


async def test_the_agent_restarts(tmp_path: Path, make: Callable[[Path], AnyKubelet]) -> None:
    """The next one has another socket, and the pod's device is still the pod's."""
    async with make(tmp_path) as kubelet:
        async with agent(tmp_path):
            await kubelet.wait_for(RESOURCE, count=4)
            old = await kubelet.admit("old", {RESOURCE: 1})
        await kubelet.wait_for_step("deregistered")
        async with agent(tmp_path):
            await kubelet.wait_for_step("registered", times=2)
            await kubelet.wait_for(RESOURCE, count=4)
            new = await kubelet.admit("new", {RESOURCE: 3})
            assert not set(old.devices[RESOURCE]) & set(new.devices[RESOURCE])
            assert kubelet.log.settled() == [
                "connected", "registered #1", "disconnected", "deregistered #1", "connected", "registered #2",
            ]  # fmt: skip


async def test_a_stale_socket_costs_nothing(tmp_path: Path, make: Callable[[Path], AnyKubelet]) -> None:
    """The kubelet dials the socket of an agent that lost its power; the next agent is not asked to wait for that."""
    stale = tmp_path / "plugins_registry/sriovdp-intel.com_sriov_dpdk-0123abcd.sock"
    stale.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    async with make(tmp_path) as kubelet:
        await asyncio.sleep(1.5)  # it dials, for ten seconds
        async with agent(tmp_path):
            await kubelet.wait_for(RESOURCE, count=4, within=8)
            assert not await asyncio.to_thread(stale.exists)
            assert kubelet.log.settled() == ["connected", "registered #1"]


ELSEWHERE = {
    "mounted": (("plugins_registry", "device-plugins", "pod-resources"), "registered"),
    "another root-dir": (("plugins_registry", "pod-resources"), "registered"),  # device-plugins/ does not go with it
    "no registry": (("device-plugins",), "connected"),  # the pool registers itself
}


@pytest.mark.parametrize(("folders", "last"), ELSEWHERE.values(), ids=ELSEWHERE)
async def test_the_kubelets_folder_is_elsewhere_for_us(
    tmp_path: Path, make: Callable[[Path], AnyKubelet], folders: tuple[str, ...], last: str
) -> None:
    """Its paths are not ours, and some of its folders are not there for us; a restart is noticed all the same."""
    theirs, ours = tmp_path / "k", tmp_path / "v"
    ours.mkdir()
    steps = ["connected", "registered #1"] if last == "registered" else ["connected"]
    async with make(theirs) as kubelet:
        for name in folders:
            (ours / name).symlink_to(theirs / name)
        async with agent(ours):
            await kubelet.wait_for_step(last)
            await kubelet.wait_for(RESOURCE, count=4)
            assert kubelet.log.settled() == steps
            await kubelet.restart()
            await kubelet.wait_for_step(last, times=2)
            await kubelet.wait_for(RESOURCE, count=4)
            # where the pool registers itself, it may ask the new kubelet twice: it cannot see which one answered
            assert kubelet.log.settled()[: 2 * len(steps)] == steps * 2
            assert len(kubelet.log.steps) == 2 * len(steps) or last == "connected"


async def test_two_agents_overlap(tmp_path: Path, make: Callable[[Path], AnyKubelet]) -> None:
    """The kubelet takes the end of the first for the end of the second, which then shows another socket."""
    async with make(tmp_path) as kubelet, AsyncExitStack() as agents:
        async with agent(tmp_path):
            await kubelet.wait_for_step("registered")
            await agents.enter_async_context(agent(tmp_path))
            await kubelet.wait_for_step("registered", times=2)
            await kubelet.wait_for(RESOURCE, count=4)
        await kubelet.wait_for_step("registered", times=3)
        await kubelet.wait_for(RESOURCE, count=4)
        await kubelet.wait_for_step("deregistered", times=2)
        steps = kubelet.log.settled()
        assert steps[:4] == ["connected", "registered #1", "connected", "registered #2"]
        assert sorted(steps[4:]) == ["connected", "deregistered #1", "deregistered #2", "disconnected", "registered #3"]


async def test_a_device_falls_ill_and_recovers(tmp_path: Path, make: Callable[[Path], AnyKubelet]) -> None:
    """The stream stays, and each list is taken over."""
    async with make(tmp_path) as kubelet, agent(tmp_path) as plugin:
        await kubelet.wait_for(RESOURCE, count=4)
        ill = replace(vfs(4)[0], healthy=False, reason="its PF has no link")
        await plugin.update([ill, *vfs(4)[1:]])
        assert await kubelet.wait_for(RESOURCE, count=1, healthy=False) == [ill.id]
        await plugin.update(vfs(4))
        await kubelet.wait_for(RESOURCE, count=0, healthy=False)
        assert kubelet.log.lists == ["4+0", "3+1", "4+0"]
        assert kubelet.log.settled() == ["connected", "registered #1"]


async def test_a_device_is_unplugged(tmp_path: Path, make: Callable[[Path], AnyKubelet]) -> None:
    """One that a pod has is listed as unhealthy, as long as the pod is there; the other one goes."""
    async with make(tmp_path) as kubelet, agent(tmp_path) as plugin:
        await kubelet.wait_for(RESOURCE, count=4)
        held = (await kubelet.admit("web", {RESOURCE: 1})).devices[RESOURCE][0]
        other = next(device for device in vfs(4) if device.id != held)
        await plugin.update([device for device in vfs(4) if device.id not in {held, other.id}], held={held})
        assert await kubelet.wait_for(RESOURCE, count=1, healthy=False) == [held]
        assert len(await kubelet.wait_for(RESOURCE, count=2)) == 2
        await plugin.update([device for device in vfs(4) if device.id not in {held, other.id}], held=())
        await kubelet.wait_for(RESOURCE, count=0, healthy=False)
        assert kubelet.log.lists == ["4+0", "2+1", "2+0"]


async def test_pods_are_admitted(tmp_path: Path, make: Callable[[Path], AnyKubelet]) -> None:
    """By the plugin's preference, until there are none, and again when a pod is gone; a refusal costs no device."""
    async with make(tmp_path) as kubelet, agent(tmp_path) as plugin:
        await kubelet.wait_for(RESOURCE, count=4)
        ids = [device.id for device in vfs(4)]
        assert sorted((await kubelet.admit("one", {RESOURCE: 3})).devices[RESOURCE]) == sorted(_prefer(ids, 3))
        with pytest.raises(AdmissionError, match=f"unavailable for {RESOURCE}. Requested: 2, Available: 1"):
            await kubelet.admit("two", {RESOURCE: 2})
        await kubelet.remove("one")
        assert len((await kubelet.admit("three", {RESOURCE: 4})).devices[RESOURCE]) == 4
        await kubelet.remove("three")
        await plugin.update([*vfs(1), replace(vfs(1)[0], id=STUCK)])
        await kubelet.wait_for(RESOURCE, count=2)
        with pytest.raises(AdmissionError, match=f"{STUCK} is not bound to vfio-pci"):
            await kubelet.admit("four", {RESOURCE: 2})
        await plugin.update(vfs(1), held=())
        await kubelet.wait_for(RESOURCE, count=1)
        assert (await kubelet.admit("five", {RESOURCE: 1})).devices == {RESOURCE: ids[:1]}


def _prefer(ids: list[str], count: int) -> list[str]:
    return ids[-count:]
