"""PFs and VFs that come and go, and links that fail, on a fake tree: there is no regular look, only what is noted."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sriovdp import agent as agent_module
from sriovdp.agent import Agent
from sriovdp.model import Node
from sriovdp.node.inventory import take_snapshot
from tests.agent.following import ask_status
from tests.agent.running import CONFIG, DPDK, KERNEL, run_agent, wait_until
from tests.fakes.kubelet import AdmissionError, Kubelet
from tests.fakes.sysfs import PF, PF_MAC, Tree, vf_address

SECOND = "0000:02:00.0"


@asynccontextmanager
async def quiet_agent(tree: Tree, folder: Path, kubelet: Kubelet, config: str = CONFIG) -> AsyncIterator[Agent]:
    """An agent that has provisioned the node and looks at it only when there is a reason."""
    async with run_agent(tree, folder, config, rescan_interval=3600) as agent:
        await kubelet.wait_for(DPDK, count=2)
        async with asyncio.timeout(30):
            await agent._idle.wait()
        yield agent


def rename_pf(tree: Tree, old: str, new: str) -> None:
    """As `ip link set … name` does."""
    (tree.root / "class/net" / old).unlink()
    net = tree.pci(PF) / "net"
    (net / old).rename(net / new)
    (tree.root / "class/net" / new).symlink_to(net / new)


def remove_pf(tree: Tree) -> None:
    """As `echo 1 > remove` does: its VFs go first."""
    tree._set_num_vfs(PF, 0, autoprobe=False)
    tree.remove(PF)
    shutil.rmtree(tree.root / "kernel", ignore_errors=True)


async def test_a_pf_that_is_removed_and_found_again(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """The pool is empty but for the pod's device, which is Unhealthy; then it is made as it was, though on no timer."""
    async with quiet_agent(tree, tmp_path, kubelet) as agent:
        await kubelet.admit("red", {DPDK: 1})
        for _ in range(2):
            remove_pf(tree)
            agent._watch.note("uevent remove")
            assert await kubelet.wait_for(DPDK, count=1, healthy=False) == [vf_address(PF, 2)]
            await kubelet.wait_for(KERNEL, count=0)
            tree.add_pf()
            agent._watch.note("uevent add")
            assert len(await kubelet.wait_for(KERNEL, count=2)) == 2
            assert len(await kubelet.wait_for(DPDK, count=2)) == 2


async def test_a_pf_that_goes_and_comes_between_two_looks(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """As by a reset of its firmware: its address is the same, and its netdev a new one without VFs."""
    async with quiet_agent(tree, tmp_path, kubelet) as agent:
        remove_pf(tree)
        tree.add_pf()
        agent._watch.note("uevent add")
        await wait_until(lambda: (tree.pci(PF) / "sriov_numvfs").read_text() == "4\n")
        assert len(await kubelet.wait_for(KERNEL, count=2)) == 2


async def test_a_pf_that_gets_the_name_of_an_entry(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """It is split then; and the old one's VFs stay what they are."""
    config = CONFIG.replace("pfNames: [enp1s0]", "pfNames: [enp1s0, enp2s9]")
    async with quiet_agent(tree, tmp_path, kubelet, config) as agent:
        tree.add_pf(SECOND, None)
        tree.add_netdev(SECOND, "eth7", PF_MAC.replace("01", "02"))
        agent._watch.note("uevent add")
        await wait_until(lambda: agent._node is not None and len(agent._node.pfs) == 2)
        assert (tree.pci(SECOND) / "sriov_numvfs").read_text() == "0\n"
        (tree.root / "class/net/eth7").unlink()
        (tree.pci(SECOND) / "net/eth7").rename(tree.pci(SECOND) / "net/enp2s9")
        (tree.root / "class/net/enp2s9").symlink_to(tree.pci(SECOND) / "net/enp2s9")
        agent._watch.note("uevent move")
        await wait_until(lambda: (tree.pci(SECOND) / "sriov_numvfs").read_text() == "4\n")
        assert len(await kubelet.wait_for(KERNEL, count=4)) == 4


async def test_a_selected_pf_that_is_renamed(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """A pool by the PF's name loses its devices, and gets them back with the name."""
    config = CONFIG.replace("selectors: {drivers: [igbvf]}", "selectors: {pfNames: [enp1s0#0-1]}")
    async with quiet_agent(tree, tmp_path, kubelet, config) as agent:
        await kubelet.wait_for(KERNEL, count=2)
        rename_pf(tree, "enp1s0", "other")
        agent._watch.note("uevent move")
        await kubelet.wait_for(KERNEL, count=0)
        rename_pf(tree, "other", "enp1s0")
        agent._watch.note("uevent move")
        await kubelet.wait_for(KERNEL, count=2)


async def test_vfs_that_somebody_else_makes(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """Under externallyManaged: they get drivers and are offered, as soon as they are there."""
    config = CONFIG.replace("numVfs: 4", "numVfs: 4\n    externallyManaged: true")
    async with run_agent(tree, tmp_path, config, rescan_interval=3600) as agent:
        await kubelet.wait_for(KERNEL, count=0)
        async with asyncio.timeout(30):
            await agent._idle.wait()
        tree._set_num_vfs(PF, 4, autoprobe=False)
        agent._watch.note("uevent add")
        assert len(await kubelet.wait_for(KERNEL, count=2)) == 2
        assert len(await kubelet.wait_for(DPDK, count=2)) == 2


HEALTH = "drivers: [vfio-pci]}, health: [deviceNodes, {condition: pfCarrier, %s}]"


@pytest.mark.parametrize("action", ["ignore", "warn", "unhealthy"])
async def test_a_link_that_fails_under_each_policy(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, action: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What the kubelet sees, and what a person does."""
    config = CONFIG.replace("drivers: [vfio-pci]}", HEALTH % f"action: {action}")
    carrier = tree.root / "class/net/enp1s0/carrier"
    async with quiet_agent(tree, tmp_path, kubelet, config) as agent:
        carrier.write_text("0")
        before = agent._node
        agent._watch.note("rtnetlink: link 2 changed")
        await wait_until(lambda: agent._node is not before)

        def seen() -> str:
            """What is done about it, for any device."""
            faults = agent.offering.report_faults()
            return " ".join("unhealthy" if fault["is_fatal"] else "warn" for fault in faults)

        if action == "unhealthy":
            await kubelet.wait_for(DPDK, count=2, healthy=False)
            with pytest.raises(AdmissionError, match="its PF enp1s0 has no link"):
                await kubelet.allocate(DPDK, [vf_address(PF, 2)])
        await wait_until(lambda: (action in seen()) == (action != "ignore"))
        assert len(kubelet.offered()[DPDK]) == (0 if action == "unhealthy" else 2)
        status = await asyncio.to_thread(ask_status, tmp_path)
        assert ("its PF enp1s0 has no link (pfCarrier)" in status) == (action != "ignore")
        assert ("its PF enp1s0 has no link" in caplog.text) == (action != "ignore")
        carrier.write_text("1")
        agent._watch.note("rtnetlink: link 2 changed")
        await wait_until(lambda: not seen())
        await kubelet.wait_for(DPDK, count=2)


async def test_a_hold_time_ends_without_an_event(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """Nobody reports that a link is still down: the agent looks again by itself."""
    config = CONFIG.replace("drivers: [vfio-pci]}", HEALTH % "hold: 1")
    carrier = tree.root / "class/net/enp1s0/carrier"
    async with quiet_agent(tree, tmp_path, kubelet, config) as agent:
        for text, healthy in (("0", False), ("1", True)):
            carrier.write_text(text)
            agent._watch.note("rtnetlink: link 2 changed")
            await kubelet.wait_for(DPDK, count=2, healthy=healthy)


async def test_a_storm_of_events_costs_few_looks(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five hundred at once are one look."""
    looks = []

    def look(*arguments: Any) -> Node:
        looks.append(1)
        return take_snapshot(*arguments)

    async with quiet_agent(tree, tmp_path, kubelet) as agent:
        await wait_until(lambda: agent._watch._reasons.delay() is None)
        monkeypatch.setattr(agent_module, "take_snapshot", look)
        tree.unbind(vf_address(PF, 2))
        for number in range(500):
            agent._watch.note(f"uevent add {number}")
        await kubelet.wait_for(DPDK, count=1, healthy=False)
        assert len(looks) == 1


async def test_a_device_node_that_goes_is_noticed(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """By inotify alone; and one that comes."""
    async with quiet_agent(tree, tmp_path, kubelet):
        node = tmp_path / "dev/vfio/12"
        node.unlink()
        await kubelet.wait_for(DPDK, count=1, healthy=False)
        node.touch()
        await kubelet.wait_for(DPDK, count=2)


async def test_a_driver_that_comes_later(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed for want of it is tried again at once."""
    shutil.rmtree(tree.root / "bus/pci/drivers/vfio-pci")
    probes = []

    def probe(path: Path, text: str) -> None:
        if path.name == "drivers_probe" and not (tree.root / "bus/pci/drivers/vfio-pci").is_dir():
            probes.append(text)
            return
        tree.write(path, text)

    monkeypatch.setattr("sriovdp.kernel.drivers.write_text", probe)
    async with run_agent(tree, tmp_path, rescan_interval=3600) as agent:
        await wait_until(lambda: bool(agent._failure))
        (tree.root / "bus/pci/drivers/vfio-pci").mkdir()
        agent._watch.note("uevent add module vfio_pci")
        assert len(await kubelet.wait_for(DPDK, count=2)) == 2
