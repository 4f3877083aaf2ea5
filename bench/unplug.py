"""`python -m bench.unplug [ROUNDS]` in a guest: how soon the kubelet knows what happens to a NIC.

    python -m tests.lab --roots --monitor -- .venv/bin/python -m bench.unplug

A PF with two VFs, one of a pool that wants the PF's link, and a running agent. From pulling the cable at the machine's
monitor, unbinding the VF's driver, and removing the PF from the bus to the new list at the kubelet; and from the rescan
to both VFs offered again, which the agent has to make first. Then looks at the node in a storm of 500 uevents.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.table import quantile
from tests.fakes.kubelet import Kubelet
from tests.lab.monitor import set_link
from tests.lab.node import AgentProcess, list_pfs

_CONFIG = """
physicalFunctions: [{{select: {{pciAddresses: ["{pf}"]}}, numVfs: 2}}]
resourceList:
  - {{resourceName: plain, selectors: {{rootDevices: ["{pf}#0"]}}}}
  - {{resourceName: link, selectors: {{rootDevices: ["{pf}#1"]}}, health: [driver, deviceNodes, pfCarrier]}}
"""
_SPACE = 3.2  # seconds between rounds, so that no look waits for its pace
_STORM = 500
_LINK = "intel.com/link"


def main() -> None:
    """Measure and print."""
    asyncio.run(_measure(int(sys.argv[1]) if len(sys.argv) > 1 else 20))


async def _measure(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        root, pf = Path(name), list_pfs()[0]
        (root / "kubelet/plugins_registry").mkdir(parents=True)
        (root / "config.yaml").write_text(_CONFIG.format(pf=pf.name))
        async with Kubelet(root / "kubelet") as kubelet:
            agent = AgentProcess(root / "config.yaml", root, ("--verbose",))
            await asyncio.to_thread(agent.start)
            await _await_both(kubelet)
            await _measure_changes(kubelet, pf, rounds)
            await _storm(agent, pf)
            await asyncio.to_thread(agent.stop)


async def _measure_changes(kubelet: Kubelet, pf: Path, rounds: int) -> None:
    vf = (pf / "virtfn1").readlink().name
    driver = Path("/sys/bus/pci/drivers/igbvf")
    changes: dict[str, tuple[Callable[[], object], Callable[[], object], int]] = {
        "cable pulled": (lambda: set_link(0, up=False), lambda: set_link(0, up=True), rounds),
        "VF's driver unbound": (
            lambda: (driver / "unbind").write_text(vf),
            lambda: (driver / "bind").write_text(vf),
            rounds,
        ),
    }
    for what, (change, undo, count) in changes.items():
        times = []
        for _ in range(count):
            began = time.perf_counter()
            await asyncio.to_thread(change)
            await kubelet.wait_for(_LINK, count=1, healthy=False)
            times.append(time.perf_counter() - began)
            await asyncio.to_thread(undo)
            await kubelet.wait_for(_LINK, count=1)
            await asyncio.sleep(_SPACE)
        _print(f"{what}: Unhealthy at the kubelet", times)
    gone, back = [], []
    for _ in range(max(1, rounds // 4)):
        began = time.perf_counter()
        await asyncio.to_thread((pf / "remove").write_text, "1")
        await kubelet.wait_for(_LINK, count=0)
        gone.append(time.perf_counter() - began)
        began = time.perf_counter()
        await asyncio.to_thread(Path("/sys/bus/pci/rescan").write_text, "1")
        await _await_both(kubelet)
        back.append(time.perf_counter() - began)
        await asyncio.sleep(_SPACE)
    _print("PF removed: its VFs gone at the kubelet", gone)
    _print("PF found again: VFs made and offered", back)


async def _storm(agent: AgentProcess, pf: Path) -> None:
    await asyncio.sleep(10 * _SPACE)
    before, began = agent.log().count("looking at the node: "), time.perf_counter()
    for _ in range(_STORM):
        (pf / "uevent").write_text("change")
    took = time.perf_counter() - began
    await asyncio.sleep(_SPACE)
    print(f"{_STORM} uevents within {took:.1f} s: {agent.log().count('looking at the node: ') - before} looks")


async def _await_both(kubelet: Kubelet) -> None:
    for name in ("intel.com/plain", _LINK):
        await kubelet.wait_for(name, count=1)


def _print(what: str, times: list[float]) -> None:
    p50, p99 = quantile(times, 0.5) * 1000, quantile(times, 0.99) * 1000
    print(f"{what}: p50 {p50:.0f} ms, p99 {p99:.0f} ms, n={len(times)}")


if __name__ == "__main__":
    main()
