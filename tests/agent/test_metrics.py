"""Metrics of an agent that runs as a process, read over HTTP."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cni.protocol.wire import Request, encode_request
from sriovdp.cli.status import ask
from tests.agent.running import DPDK, KERNEL, owe, wait_until
from tests.cni.conversing import converse
from tests.fakes.kubelet import Kubelet
from tests.fakes.sysfs import PF, Tree, vf_address
from tests.scraping import Samples, scrape

CONFIG = """
resourceList:
  - {resourceName: sriov, selectors: {drivers: [igbvf]}}
  - {resourceName: sriov_dpdk, selectors: {drivers: [vfio-pci]}}
"""


@pytest.fixture
def tree(tree: Tree) -> Tree:
    """A node with two VFs for each pool: an agent in another process cannot have this tree make them."""
    tree.write(tree.pci(PF) / "sriov_numvfs", "4")
    for index in range(4):
        tree.unbind(vf_address(PF, index))
        tree.bind(vf_address(PF, index), "igbvf" if index < 2 else "vfio-pci")
    return tree


@pytest.fixture
async def port(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> AsyncIterator[int]:
    """The port at which an agent serves metrics; one VF did not come back before it was started."""
    owe(tmp_path, vf_address(PF, 0))
    (tmp_path / "config.yaml").write_text(CONFIG)
    options = [f"--config={tmp_path / 'config.yaml'}", "--metrics=127.0.0.1:0"]
    log = tmp_path / "log"
    with log.open("wb") as stream:
        agent = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.agent.process", tmp_path, *options, stdout=stream, stderr=stream
        )
    try:
        await wait_until(lambda: "the agent is ready" in log.read_text() or agent.returncode is not None)
        found = re.search(r"metrics are served at http://127\.0\.0\.1:(\d+)/metrics", log.read_text())
        assert found, log.read_text()
        yield int(found[1])
    finally:
        agent.send_signal(signal.SIGTERM)
        assert await agent.wait() == 0, log.read_text()


async def _scrape_until(port: int, condition: Callable[[Samples], bool]) -> Samples:
    """Scrape until the agent has seen what the test did."""
    last: Samples = {}

    def look() -> bool:
        last.update(scrape(port))
        return condition(last)

    await wait_until(look)
    return last


async def test_devices_pods_and_attachments(kubelet: Kubelet, port: int) -> None:
    """Health and use of each resource's devices, registration, phases of attachments, and which version this is."""
    await kubelet.wait_for(DPDK, count=2)
    samples = await _scrape_until(port, lambda found: found.get(("sriovdp_resource_registered", KERNEL)) == 1)
    assert {key[1:]: value for key, value in samples.items() if key[0] == "sriovdp_devices"} == {
        ("healthy", DPDK): 2,
        ("unhealthy", DPDK): 0,
        ("healthy", KERNEL): 1,
        ("unhealthy", KERNEL): 1,
    }
    faults = {key[1:]: value for key, value in samples.items() if key[0] == "sriovdp_device_faults"}
    assert faults == {("unhealthy", "quarantined", KERNEL): 1}
    assert samples["sriovdp_resource_registered", DPDK] == 1
    assert {key[1]: value for key, value in samples.items() if key[0] == "sriovdp_attachments"} == {
        "adding": 0,
        "attached": 0,
        "releasing": 1,
    }
    assert samples["sriovdp_build_info", "0.1.0"] == 1
    await kubelet.admit("red", {DPDK: 1})
    used = await _scrape_until(port, lambda found: found["sriovdp_devices_in_use", DPDK] == 1)
    assert used["sriovdp_devices_in_use", KERNEL] == 0


async def test_a_kubelet_that_is_gone(kubelet: Kubelet, port: int, tmp_path: Path) -> None:
    """What the kubelet does not report is not taken for zero: that metric is gone, and another one says why."""
    await kubelet.wait_for(DPDK, count=2)
    assert ("sriovdp_devices_in_use", DPDK) in await _scrape_until(
        port, lambda found: found["sriovdp_pod_resources_known",] == 1
    )
    await asyncio.to_thread((tmp_path / "k/pod-resources/kubelet.sock").unlink)
    await wait_until(lambda: scrape(port)["sriovdp_pod_resources_known",] == 0)
    assert ("sriovdp_devices_in_use", DPDK) not in await asyncio.to_thread(scrape, port)


async def test_requests_of_the_cni_plugin(port: int, tmp_path: Path) -> None:
    """Each is counted by verb and outcome; a request with a name that is no verb makes no label of its own."""
    socket = tmp_path / "run/agent.sock"
    await asyncio.to_thread(ask, socket)
    for command in ("ADD", "FOO", "BAR"):
        request = Request(command, "c1", "", "net1", "", "/opt/cni/bin", b'{"cniVersion": "1.0.0"}')
        await asyncio.to_thread(converse, socket, encode_request(request))
    samples = await asyncio.to_thread(scrape, port)
    count = "sriovdp_cni_request_duration_seconds_count"
    assert {key[1:]: value for key, value in samples.items() if key[0] == count} == {
        ("ok", "STATUS"): 1,
        ("4", "ADD"): 1,
        ("4", "unknown"): 2,
    }
    buckets = [value for key, value in samples.items() if key[0].endswith("_bucket") and key[-1] == "STATUS"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 1


async def test_spooled_requests(port: int, tmp_path: Path) -> None:
    """What waits for the agent, and what it has put aside as no request at all; what is half written is neither."""
    assert (await asyncio.to_thread(scrape, port))["sriovdp_spooled_requests", "waiting"] == 0
    spool = tmp_path / "state/spool"
    spool.mkdir(parents=True, exist_ok=True)
    for name in ("1", "2", "0.rejected", ".half-written"):
        (spool / name).touch()
    counts = await _count_spooled(port)
    assert sum(counts) == 3  # the agent may have looked at some already
    while counts != (0, 3):
        await asyncio.sleep(0.1)
        counts = await _count_spooled(port)


async def _count_spooled(port: int) -> tuple[float, float]:
    samples = await asyncio.to_thread(scrape, port)
    return samples["sriovdp_spooled_requests", "waiting"], samples["sriovdp_spooled_requests", "rejected"]


async def test_a_new_config_file_shows(port: int, tmp_path: Path) -> None:
    """The agent runs with what it has read; another file shows, and so does one that would be refused."""
    names = "sriovdp_config_file_valid", "sriovdp_config_current"
    seen = []
    for text in (CONFIG, CONFIG.replace("sriov_dpdk", "fast"), CONFIG + "  - nonsense\n", CONFIG):
        new = tmp_path / "new.yaml"
        new.write_text(text)
        await asyncio.to_thread(os.replace, new, tmp_path / "config.yaml")
        samples = await asyncio.to_thread(scrape, port)
        seen.append(tuple(samples[name,] for name in names))
    assert seen == [(1, 1), (1, 0), (0, 0), (1, 1)]


async def test_a_port_in_use_keeps_the_agent_from_starting(port: int, tmp_path: Path) -> None:
    """Before anything is touched: the error is one line, and the exit code that of a failure."""
    (tmp_path / "other.yaml").write_text(CONFIG)
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sriovdp.cli.main", "agent", f"--config={tmp_path / 'other.yaml'}",
        f"--state-dir={tmp_path / 'other'}", f"--metrics=127.0.0.1:{port}", stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await agent.communicate()
    assert agent.returncode == 1
    assert said.decode().startswith(f"sriovdp: error: metrics cannot be served at 127.0.0.1:{port}: Address already")
    assert not (tmp_path / "other").exists()
