"""An agent in this process, on a fake sysfs tree and with a scripted kubelet."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from sriovdp.agent import Agent, Roots
from sriovdp.config.file import parse
from sriovdp.state.journal import Attachment, Journal, Original, read_boot_id
from tests.fakes.sysfs import Tree

KERNEL, DPDK = "intel.com/sriov", "intel.com/sriov_dpdk"
CONFIG = """
physicalFunctions:
  - select: {pfNames: [enp1s0]}
    numVfs: 4
    vfs: [{range: "2-3", driver: vfio-pci}]
resourceList:
  - {resourceName: sriov, selectors: {drivers: [igbvf]}}
  - {resourceName: sriov_dpdk, selectors: {drivers: [vfio-pci]}}
"""


def find_roots(tree: Tree, folder: Path) -> Roots:
    """Where this agent finds and keeps things: all of it below one folder, but for sysfs."""
    return Roots(
        sysfs=tree.root,
        dev=folder / "dev",
        kubelet=folder / "k",
        run=folder / "run",
        state=folder / "state",
        device_info=folder / "devinfo",
        cdi=folder / "cdi",
    )


@asynccontextmanager
async def run_agent(
    tree: Tree, tmp_path: Path, config: str = CONFIG, *, rescan_interval: float = 0.1
) -> AsyncIterator[Agent]:
    """An agent that runs as long as the block."""
    stop = asyncio.Event()
    agent = Agent(parse(config, "test"), find_roots(tree, tmp_path), rescan_interval=rescan_interval)
    task = asyncio.create_task(agent.run(stop))
    try:
        yield agent
    finally:
        stop.set()
        await task


def owe(tmp_path: Path, device: str) -> Attachment:
    """Write down that a VF did not come back from a pod, and cannot: its driver is not there any more."""
    config = {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov"}
    attachment = Attachment(
        container_id="c1",
        ifname="net1",
        network="net-a",
        device=device,
        mode="kernel",
        original=Original("no-such-driver", None, "eth1"),
        netns="/run/netns/gone",
        netns_dev=0,
        netns_ino=0,
        boot_id=read_boot_id(),
        config=config,
        args="K8S_POD_NAME=red",
        phase="releasing",
    )
    Journal(tmp_path / "state/journal").write_attachment(attachment)
    return attachment


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what the agent does beside the kubelet."""
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.02)
