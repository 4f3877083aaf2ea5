"""A running agent on real NICs whose PFs go, come back, lose their link and get another name, as the kernel reports it.

The agent has no regular look in these tests: a minute between two looks is longer than each of them waits.
"""

import asyncio
import math
import re
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.kubelet import Kubelet
from tests.lab.monitor import set_link
from tests.lab.node import AgentProcess, LabNode, find_netdev, list_pfs
from tests.lab.patience import own_time

pytestmark = [pytest.mark.lab(pfs=2, roots=True, monitor=True), pytest.mark.asyncio(loop_scope="module")]

CONFIG = """
physicalFunctions:
  - select: {pciAddresses: ["PF0"]}
    numVfs: 5
  - select: {pfNames: [late0]}
    numVfs: 1
resourceList:
  - resourceName: plain
    selectors: {rootDevices: ["PF0#0"]}
    health: [driver, deviceNodes, {condition: pcieCorrectableErrors, action: warn}]
  - {resourceName: warn, selectors: {rootDevices: ["PF0#1"]}, health: [{condition: pfCarrier, action: warn}]}
  - {resourceName: ignore, selectors: {rootDevices: ["PF0#2"]}, health: [{condition: pfCarrier, action: ignore}]}
  - {resourceName: strict, selectors: {rootDevices: ["PF0#3"]}, health: [pfCarrier]}
  - {resourceName: held, selectors: {rootDevices: ["PF0#4"]}, health: [{condition: pfCarrier, hold: 5}]}
  - {resourceName: late, selectors: {pfNames: [late0]}}
"""
POOLS = ("plain", "warn", "ignore", "strict", "held")
REFUSAL = Path("/etc/modprobe.d/no-igbvf.conf")
NO_LINK = re.compile(r"its PF \S+ has no link \(pfCarrier\)")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabNode]:
    """The lab's node without VFs."""
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write_text(CONFIG.replace("PF0", list_pfs()[0].name))
    node = LabNode(config)
    yield node
    for pf in list_pfs():
        (pf / "sriov_numvfs").write_text("0")


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A folder with a short name."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kubelet(root: Path) -> AsyncIterator[Kubelet]:
    """A kubelet with a plugin watcher."""
    (root / "kubelet/plugins_registry").mkdir(parents=True)
    async with Kubelet(root / "kubelet") as kubelet:
        yield kubelet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent(node: LabNode, kubelet: Kubelet, root: Path) -> AsyncIterator[AgentProcess]:
    """A running agent, which made the VFs."""
    agent = AgentProcess(node.config, root, ("--verbose",))
    await asyncio.to_thread(agent.start)
    await wait_for_all(kubelet)
    yield agent
    await asyncio.to_thread(agent.stop)


async def wait_for_all(kubelet: Kubelet) -> None:
    """Each pool of the first PF has its VF, healthy."""
    for name in POOLS:
        await kubelet.wait_for(f"intel.com/{name}", count=1)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what the kubelet does not see."""
    end = own_time() + 120
    while not await asyncio.to_thread(condition):
        assert own_time() < end, "waited too long"
        await asyncio.sleep(0.1)


def count_looks(agent: AgentProcess) -> int:
    """How often the agent has looked at the node."""
    return agent.log().count("looking at the node: ")


async def test_a_cable_that_is_pulled_under_each_policy(
    node: LabNode, kubelet: Kubelet, agent: AgentProcess, root: Path
) -> None:
    """Only the pool that says so loses its VF; the others warn, or do not care."""

    def ask_status() -> str:
        return node.run_sriovdp("status", f"--run-dir={root / 'run'}").stdout

    set_link(0, up=False)
    await kubelet.wait_for("intel.com/strict", count=1, healthy=False)
    status = await asyncio.to_thread(ask_status)
    assert [len(kubelet.offered()[f"intel.com/{name}"]) for name in ("plain", "warn", "ignore")] == [1, 1, 1]
    assert {line.split(": ")[0] for line in status.splitlines() if NO_LINK.search(line)} >= {
        "intel.com/warn",
        "intel.com/strict",
    }
    assert "intel.com/ignore" not in status
    assert "intel.com/plain" not in status
    await kubelet.wait_for("intel.com/held", count=1, healthy=False)
    set_link(0, up=True)
    await kubelet.wait_for("intel.com/strict", count=1)
    await kubelet.wait_for("intel.com/held", count=1)
    assert not NO_LINK.search(await asyncio.to_thread(ask_status))


async def test_a_cable_that_is_loose(node: LabNode, kubelet: Kubelet, agent: AgentProcess) -> None:
    """It comes and goes faster than the hold time: nothing changes for the pool that has one."""
    before = agent.log().count("intel.com/held: ")
    for _ in range(5):
        set_link(0, up=False)
        await kubelet.wait_for("intel.com/strict", count=1, healthy=False)
        set_link(0, up=True)
        await kubelet.wait_for("intel.com/strict", count=1)
    assert agent.log().count("intel.com/held: ") == before


async def test_a_pf_that_is_removed_from_the_bus_and_found_again(
    node: LabNode, kubelet: Kubelet, agent: AgentProcess
) -> None:
    """The pod's device is Unhealthy, the others go; a rescan brings all of them back, made as the config says."""
    pf = node.pf
    pod = await kubelet.admit("red", {"intel.com/plain": 1})
    for _ in range(2):
        await asyncio.to_thread((pf / "remove").write_text, "1")
        assert await kubelet.wait_for("intel.com/plain", count=1, healthy=False) == pod.devices["intel.com/plain"]
        await kubelet.wait_for("intel.com/strict", count=0)
        await asyncio.to_thread(Path("/sys/bus/pci/rescan").write_text, "1")
        await wait_for_all(kubelet)
    await kubelet.remove("red")


async def test_a_pf_that_gets_the_name_of_an_entry_and_loses_it(
    node: LabNode, kubelet: Kubelet, agent: AgentProcess
) -> None:
    """Its VFs are made then, and offered as long as it has that name."""
    second = list_pfs()[1]
    rename(find_netdev(second), "late0")
    assert await kubelet.wait_for("intel.com/late", count=1) == [(second / "virtfn0").readlink().name]
    rename("late0", "gone0")  # its VF may have its first name now
    await kubelet.wait_for("intel.com/late", count=0)
    assert f"gone0 ({second.name}): this PF has another name now, it was late0" in agent.log()


def rename(old: str, new: str) -> None:
    """Give a netdev another name."""
    for change in ([old, "down"], [old, "name", new], [new, "up"]):
        subprocess.run(["ip", "link", "set", *change], check=True)


async def test_a_storm_of_uevents(node: LabNode, kubelet: Kubelet, agent: AgentProcess) -> None:
    """Five hundred: at most a look for each second that they take, and what happens in the middle is seen."""
    attribute = node.pf / "uevent"
    before, began = count_looks(agent), time.monotonic()
    for _ in range(500):
        attribute.write_text("change")
    (node.pf / "virtfn3/driver/unbind").write_text(node.vf(3))
    took = time.monotonic() - began
    await kubelet.wait_for("intel.com/strict", count=1, healthy=False)
    looks = count_looks(agent) - before
    print(f"500 uevents in {took:.2f} s: {looks} looks")  # noqa: T201 - for the record
    assert 1 <= looks <= 2 + math.ceil(took)
    await asyncio.to_thread(Path("/sys/bus/pci/drivers/igbvf/bind").write_text, node.vf(3))
    await kubelet.wait_for("intel.com/strict", count=1)


async def test_a_driver_whose_module_is_loaded_later(node: LabNode, kubelet: Kubelet, agent: AgentProcess) -> None:
    """The agent could not load it; when somebody does, the VFs get it and are offered."""
    await asyncio.to_thread(REFUSAL.write_text, "install igbvf /bin/false\nblacklist igbvf\n")
    try:
        await asyncio.to_thread(subprocess.run, ["rmmod", "igbvf"], check=True)
        await kubelet.wait_for("intel.com/strict", count=1, healthy=False)
        await asyncio.to_thread((node.pf / "remove").write_text, "1")
        await kubelet.wait_for("intel.com/strict", count=0)
        await asyncio.to_thread(Path("/sys/bus/pci/rescan").write_text, "1")
        await wait_until(lambda: "the node is not as the config says" in agent.log())
    finally:
        await asyncio.to_thread(REFUSAL.unlink)
    await asyncio.to_thread(subprocess.run, ["modprobe", "igbvf"], check=True)
    await wait_for_all(kubelet)
