"""What the agent does on a node, and what it offers as the node changes."""

import asyncio
import json
import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cni.protocol.wire import REPORT
from sriovdp import agent
from sriovdp.agent import Agent
from sriovdp.cli.status import ask
from sriovdp.config.file import parse
from sriovdp.errors import SriovdpError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import Node
from sriovdp.node.inventory import take_snapshot
from sriovdp.node.slow_lists import SlowLists
from sriovdp.provision import change
from sriovdp.state.journal import Journal, Original
from tests.agent.running import CONFIG, DPDK, KERNEL, find_roots, owe, run_agent, wait_until
from tests.fakes.kubelet import AdmissionError, Kubelet
from tests.fakes.sysfs import PF, Tree, vf_address


async def test_a_stop_does_not_wait_for_a_change_that_hangs(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel keeps the write of sriov_numvfs for itself; the agent's event loop and its stop go on."""
    hanging, let_go = threading.Event(), threading.Event()
    before = set(threading.enumerate())

    def write(path: Path, text: str) -> None:
        if path.name == "sriov_numvfs":
            hanging.set()
            let_go.wait(60)
        tree.write(path, text)

    monkeypatch.setattr(change, "write_text", write)
    try:
        async with run_agent(tree, tmp_path):
            assert await asyncio.to_thread(hanging.wait, 30)
        assert not let_go.is_set()
    finally:
        let_go.set()
        for thread in set(threading.enumerate()) - before:
            if not thread.name.startswith("asyncio"):  # those of the event loop's pool never end
                await asyncio.to_thread(thread.join, 60)  # it writes into this test's folder


async def test_provisions_and_offers_each_vf_in_its_pool(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """VFs are made, the kubelet sees them, and a container gets its device nodes."""
    async with run_agent(tree, tmp_path):
        assert await kubelet.wait_for(KERNEL, count=2) == [vf_address(PF, 0), vf_address(PF, 1)]
        assert await kubelet.wait_for(DPDK, count=2) == [vf_address(PF, 2), vf_address(PF, 3)]
        pod = await kubelet.admit("red", {DPDK: 1})
    assert pod.envs["PCIDEVICE_INTEL_COM_SRIOV_DPDK"] == vf_address(PF, 2)
    assert [node.host_path for node in pod.nodes] == ["/dev/vfio/vfio", "/dev/vfio/12"]


async def test_a_vf_that_loses_its_driver_is_unhealthy_until_it_has_one(
    tree: Tree, kubelet: Kubelet, tmp_path: Path
) -> None:
    """The node is looked at again and again, and the kubelet gets what changed."""
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        tree.unbind(vf_address(PF, 2))
        assert await kubelet.wait_for(DPDK, count=1, healthy=False) == [vf_address(PF, 2)]
        with pytest.raises(AdmissionError, match=vf_address(PF, 2)):
            await kubelet.allocate(DPDK, [vf_address(PF, 2)])
        tree.bind(vf_address(PF, 2), "vfio-pci")
        await kubelet.wait_for(DPDK, count=2)


async def test_a_vf_that_did_not_come_back_is_given_to_no_pod(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """A release that fails keeps the VF out of the kubelet's hands, and the reason names the pod."""
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(KERNEL, count=2)
        owe(tmp_path, vf_address(PF, 0))
        assert await kubelet.wait_for(KERNEL, count=1) == [vf_address(PF, 1)]
        with pytest.raises(AdmissionError, match="not back from pod default/red"):
            await kubelet.allocate(KERNEL, [vf_address(PF, 0)])
        report = json.loads((await asyncio.to_thread(ask, tmp_path / "run/agent.sock", REPORT)).stdout)
        assert [found["device"] for found in report["owed"]] == [vf_address(PF, 0)]
        assert report["owed"][0]["name"] == f"enp1s0 VF 0 ({vf_address(PF, 0)})"


async def test_a_node_that_can_not_be_provisioned_is_offered_as_it_is(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is refused is logged; the pods that can run shall run."""
    tree.write(tree.pci(PF) / "sriov_numvfs", "3")
    for index in range(3):
        tree.unbind(vf_address(PF, index))
        tree.bind(vf_address(PF, index), "igbvf")
    Journal(tmp_path / "state/journal").write_attachment(replace(owe(tmp_path, vf_address(PF, 0)), phase="attached"))
    async with run_agent(tree, tmp_path):
        assert len(await kubelet.wait_for(KERNEL, count=3)) == 3
        await wait_until(lambda: "the node is not as the config says: refused" in caplog.text)


async def test_what_the_kubelet_says_is_in_use_is_not_changed(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A pod that has a VF and did not attach it yet is as good as any: the next agent leaves the PF as it is."""
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        await kubelet.admit("red", {DPDK: 1})
    async with run_agent(tree, tmp_path, CONFIG.replace("numVfs: 4", "numVfs: 5")):
        await kubelet.wait_for(DPDK, count=2)
        assert len(await kubelet.wait_for(KERNEL, count=2)) == 2
        said = f"VF 2 ({vf_address(PF, 2)}) is used by pod default/red (container main)"
        await wait_until(lambda: said in caplog.text)


async def test_drift_is_reported_once(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A driver that somebody changed is in the log when it happens, then as drift, and when it is settled."""
    caplog.set_level(logging.INFO)
    drift = f"enp1s0 VF 2 ({vf_address(PF, 2)}): bind to vfio-pci: "
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        tree.unbind(vf_address(PF, 2))
        await wait_until(lambda: drift in caplog.text)
        assert f"enp1s0 VF 2 ({vf_address(PF, 2)}): its driver went from vfio-pci to no driver" in caplog.text
        looks = len(caplog.messages)
        tree.unbind(vf_address(PF, 3))
        await wait_until(lambda: f"VF 3 ({vf_address(PF, 3)}): bind" in caplog.text)
        assert len(caplog.messages) > looks
        assert caplog.text.count(drift) == 1
        tree.bind(vf_address(PF, 2), "vfio-pci")
        await wait_until(lambda: "; this is settled" in caplog.text)
    said = [message for message in caplog.messages if message.startswith(drift)]
    assert [message.rpartition("; ")[2] for message in said] == [
        "the node is not as its config says",
        "this is settled",
    ]


async def test_what_the_config_is_warned_of_is_reported(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who reads the agent's log sees what `validate` would have said of the file."""
    config = CONFIG + "  - {resourceName: late, selectors: {drivers: [vfio-pci]}}\n"
    async with run_agent(tree, tmp_path, config):
        await kubelet.wait_for(DPDK, count=2)
    assert "in the config: line 9: resourceList[2]: gets no device" in caplog.text


async def test_a_second_agent_is_refused(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """One agent serves a node; the second says so and leaves the first alone."""
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(KERNEL, count=2)
        with pytest.raises(SriovdpError, match="another sriovdp agent"):
            await Agent(parse(CONFIG, "test"), find_roots(tree, tmp_path)).run(asyncio.Event())
        assert len(await kubelet.wait_for(KERNEL, count=2)) == 2


async def test_health_by_the_pools_policy(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """A pool that wants a link loses its VFs with it, and the other one does not; a missing device node counts too."""
    config = CONFIG.replace("drivers: [vfio-pci]}", "drivers: [vfio-pci]}, health: [deviceNodes, pfCarrier]")
    async with run_agent(tree, tmp_path, config):
        await kubelet.wait_for(DPDK, count=2)
        carrier = tree.root / "class/net/enp1s0/carrier"
        await asyncio.to_thread(carrier.write_text, "0")
        await kubelet.wait_for(DPDK, count=2, healthy=False)
        with pytest.raises(AdmissionError, match="its PF enp1s0 has no link"):
            await kubelet.allocate(DPDK, [vf_address(PF, 2)])
        assert len(kubelet.offered()[KERNEL]) == 2
        await asyncio.to_thread(carrier.write_text, "1")
        await kubelet.wait_for(DPDK, count=2)
        await asyncio.to_thread((tmp_path / "dev/vfio/13").unlink)
        assert await kubelet.wait_for(DPDK, count=1, healthy=False) == [vf_address(PF, 3)]


async def test_the_kernels_events_are_followed_at_once(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """There is no regular look, and yet a change that the kernel reports reaches the kubelet."""
    async with run_agent(tree, tmp_path, rescan_interval=3600) as agent:
        await kubelet.wait_for(DPDK, count=2)
        for _ in range(2):
            tree.unbind(vf_address(PF, 2))
            agent._watch.note("a test")
            await kubelet.wait_for(DPDK, count=1, healthy=False)
            tree.bind(vf_address(PF, 2), "vfio-pci")
            agent._watch.note("a test")
            await kubelet.wait_for(DPDK, count=2)


async def test_no_entry_of_the_journal_stops_the_agent(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """Neither a running one nor its start: the device-info path is a folder, or no path at all."""
    (tmp_path / "folder").mkdir()
    for path in (str(tmp_path / "folder"), f"{tmp_path}/a\0b"):
        async with run_agent(tree, tmp_path):
            await kubelet.wait_for(DPDK, count=2)
            entry = replace(owe(tmp_path, vf_address(PF, 2)), mode="dpdk", device_info=path)
            journal = Journal(tmp_path / "state/journal")
            journal.write_attachment(replace(entry, original=Original("vfio-pci", None)))
            await wait_until(lambda journal=journal: journal.attachments() == [])  # type: ignore[misc]
        journal.write_attachment(replace(entry, original=Original("vfio-pci", None)))
        async with run_agent(tree, tmp_path):
            assert await kubelet.wait_for(DPDK, count=2)
            await wait_until(lambda journal=journal: journal.attachments() == [])  # type: ignore[misc]


async def test_no_look_at_the_node_stops_the_agent(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it runs into: it is logged, and the next look is as good as any."""
    failures = [OSError(24, "Too many open files"), ValueError("embedded null byte"), RecursionError()]

    def look(sysfs: Sysfs, lists: SlowLists) -> Node:
        if failures:
            raise failures.pop()
        return take_snapshot(sysfs, lists)

    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        monkeypatch.setattr(agent, "take_snapshot", look)
        tree.unbind(vf_address(PF, 2))
        assert await kubelet.wait_for(DPDK, count=1, healthy=False) == [vf_address(PF, 2)]
    assert failures == []


async def test_what_is_owed_keeps_nothing_waiting(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """The IPAM plugin of six pods of before a reboot hangs: both sockets serve, a dead VF is noticed, and it stops."""
    (tmp_path / "bin").mkdir()
    plugin = tmp_path / "bin/whereabouts"
    plugin.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.1; done\n")
    plugin.chmod(0o755)
    journal = Journal(tmp_path / "state/journal")
    for number in range(6):
        entry = owe(tmp_path, vf_address(PF, number))
        config = {**entry.config, "ipam": {"type": "whereabouts"}}
        entry = replace(entry, container_id=f"p{number}", config=config, path=str(tmp_path / "bin"))
        journal.write_attachment(replace(entry, phase="attached", boot_id="the-boot-before"))
    journal.remove_attachment(owe(tmp_path, vf_address(PF, 0)))
    async with run_agent(tree, tmp_path):
        await wait_until((tmp_path / "asked").exists)
        assert (await asyncio.to_thread(ask, tmp_path / "run/agent.sock")).exit_code in {0, 1}
        assert len(await kubelet.wait_for(DPDK, count=2)) == 2
        tree.unbind(vf_address(PF, 2))
        assert await kubelet.wait_for(DPDK, count=1, healthy=False) == [vf_address(PF, 2)]
        assert len(journal.attachments()) == 6
    async with run_agent(tree, tmp_path):
        (tmp_path / "go").touch()
        await wait_until(lambda: journal.attachments() == [])


async def test_it_stops_while_it_starts(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it waits for then: here its first look at the node hangs."""
    hanging, let_go = threading.Event(), threading.Event()

    def look(sysfs: Sysfs, lists: SlowLists) -> Node:
        hanging.set()
        let_go.wait(60)
        return take_snapshot(sysfs, lists)

    monkeypatch.setattr(agent, "take_snapshot", look)
    try:
        async with run_agent(tree, tmp_path):
            assert await asyncio.to_thread(hanging.wait, 30)
            assert (await asyncio.to_thread(ask, tmp_path / "run/agent.sock")).exit_code == 1
        assert not let_go.is_set()
    finally:
        let_go.set()


@pytest.mark.parametrize("delay", [3600.0, 0.0])
async def test_the_verbs_are_imported_after_the_pools_are_offered(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    """Neither the recovery nor the replay of the spool imports them where there is nothing to do."""
    monkeypatch.setattr(agent, "_LOAD_DELAY", delay)
    async with run_agent(tree, tmp_path) as running:
        await kubelet.wait_for(KERNEL, count=2)
        if delay:
            assert running._replay
            await asyncio.to_thread(running._replay.join)
            assert running._loaded is None
        else:
            await wait_until(lambda: running._loaded is not None)
