"""`python -m bench.idle [SECONDS] [--against FOLDER]` on this machine: what the agent costs while nothing happens.

On generated trees of 7 VFs and of 1,024 VFs in 8 resources, with a kubelet that follows the lists and no pod: CPU
time, and how often a thread of the agent was woken (voluntary context switches, proc(5)). Then how soon the kubelet
knows that a device node is gone: from unlink(2) to the new list at the kubelet. With `--against` the idle agent of
another checkout comes first. Events of the machine's own kernel reach the agent too: measure on a quiet one.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.kubelet import build, read_cpu_ms, start_agent
from bench.table import quantile
from tests.fakes.kubelet import Kubelet

_SETTLED = 12.0  # seconds after which the start is over
_ROUNDS, _SPACE = 25, 3.2  # and seconds between them, so that no look waits for its pace
_SHAPES = ((1, 7, 1), (8, 128, 8))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("seconds", type=float, nargs="?", default=120.0)
    parser.add_argument("--against", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    asyncio.run(_measure_all(options.seconds, options.against and options.against.resolve()))


async def _measure_all(seconds: float, other: Path | None) -> None:
    for pfs, vfs, resources in _SHAPES:
        for checkout in [*([other] if other else []), Path.cwd()]:
            with tempfile.TemporaryDirectory() as folder:
                build(Path(folder), pfs, vfs, resources)
                async with _run(Path(folder), checkout, pfs * vfs, resources) as (pid, kubelet):
                    cpu, woken = await _watch(pid, seconds)
                    print(
                        f"{checkout}: {pfs * vfs} VFs: {cpu:.1f} s of CPU time an hour, {woken:.0f} wake-ups a minute"
                    )
                    if checkout == Path.cwd():
                        await _unplug(Path(folder) / "dev/vfio/0", kubelet)


@asynccontextmanager
async def _run(root: Path, checkout: Path, vfs: int, resources: int) -> AsyncIterator[tuple[int, Kubelet]]:
    """An agent whose lists a kubelet has."""
    (root / "k/plugins_registry").mkdir(parents=True)
    async with Kubelet(root / "k") as kubelet:
        agent = await start_agent(root, checkout)
        try:
            for number in range(resources):
                await kubelet.wait_for(f"intel.com/pool{number}", count=vfs // resources)
            await asyncio.sleep(_SETTLED)
            yield agent.pid, kubelet
        finally:
            agent.kill()
            await agent.wait()


async def _watch(pid: int, seconds: float) -> tuple[float, float]:
    """CPU seconds an hour, and wake-ups a minute."""
    cpu, woken, began = read_cpu_ms(pid), _count_wakeups(pid), time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    return (read_cpu_ms(pid) - cpu) / 1000 * 3600 / took, (_count_wakeups(pid) - woken) * 60 / took


def _count_wakeups(pid: int) -> int:
    return sum(
        int(line.split()[1])
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


async def _unplug(node: Path, kubelet: Kubelet) -> None:
    times = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        os.unlink(node)  # noqa: PTH108 - what is measured
        await kubelet.wait_for("intel.com/pool0", count=1, healthy=False)
        times.append((time.perf_counter() - began) * 1000)
        await asyncio.to_thread(node.touch)
        await kubelet.wait_for("intel.com/pool0", count=0, healthy=False)
        await asyncio.sleep(_SPACE * 2)
    p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
    print(f"    a device node goes: the kubelet knows after {p50:.0f} ms (p99 {p99:.0f})")


if __name__ == "__main__":
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    main()
