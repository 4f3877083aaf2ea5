"""`python -m bench.full_size [--rounds N]` in a guest with cards: eight PFs of 128 VFs each, against one with 7.

    CARDS=$(python -m bench.full_size --cards)
    python -m tests.lab --pfs 0 --timeout 5400 --vnic "$CARDS" -- python -m bench.full_size

The node has 7 VFs, then all, then 7 again, so that what drifts with time is seen. Each time: CPU time of one look at
the node; the commands, as processes; the agent from its exec to the first ListAndWatch message; ADD and DEL of one VF
of the first PF. At the end `apply` of all VFs takes turns with a C program that does nothing but the writes to sysfs
(bench/provision.py).
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.__main__ import build
from bench.candidates import Case, Plugin, Watch
from bench.kubelet import follow, read_cpu_ms
from bench.provision import build_floor
from bench.table import quantile
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.node.inventory import take_snapshot
from tests.lab.node import AgentProcess, list_pfs

_PFS, _VFS, _FEW = 8, 128, 7
_DRIVER = "mlx5_core"
_CONFIG = """
physicalFunctions:
  - select: {{pciAddresses: [{pfs}]}}
    numVfs: {count}
    vfs: [{{range: 0-{last}, driver: kernel{more}}}]
resourceList:
  - {{resourceName: pool0, selectors: {{pfNames: [{names}]}}}}
"""
_COMMANDS = (["discover"], ["discover", "--json"], ["explain"], ["plan"])


@dataclass(frozen=True)
class Node:
    """The guest with some VFs. `name` heads the column."""

    name: str
    root: Path
    pfs: Sequence[Path]
    vfs: int

    @property
    def config(self) -> Path:
        """The config file that makes it."""
        return self.root / f"{len(self.pfs)}-{self.vfs}.yaml"

    def write_config(self, more: str = "") -> None:
        """Select these PFs only. `more` is added to the range of all VFs."""
        listed = ", ".join(f"'{pf.name}'" for pf in self.pfs)
        names = ", ".join(next((pf / "net").iterdir()).name for pf in self.pfs)
        text = _CONFIG.format(pfs=listed, names=names, count=self.vfs, last=self.vfs - 1, more=more)
        self.config.write_text(text)

    def apply(self) -> float:
        """Make the VFs. Gives the seconds that it took, of the whole process."""
        started = time.perf_counter()
        subprocess.run([*_sriovdp("apply"), f"--config={self.config}"], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    def run_floor(self, program: Path) -> float:
        """The same by the C program, without MACs."""
        started = time.perf_counter()
        drivers = ",".join([_DRIVER] * self.vfs)
        subprocess.run([program, drivers, *(pf.name for pf in self.pfs)], check=True)
        return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.full_size", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25, help="of ADD and DEL for each state of the node (default 25)")
    parser.add_argument("--cards", action="store_true", help="print the cards that the guest must have, and end")
    options = parser.parse_args()
    if options.cards:
        print(",".join([f"mlx5:{_VFS}"] * _PFS))
        return
    pfs = list_pfs()
    for pf in pfs:
        subprocess.run(["ip", "link", "set", next((pf / "net").iterdir()).name, "up"], check=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        root = Path(folder)
        programs = build(root)
        few = Node("7 VFs", root, pfs[:1], _FEW)
        full = Node(f"{_PFS * _VFS:,} VFs", root, pfs, _VFS)
        print(f"10,000 rounds of a Python loop: {_time_loop():.2f} ms", flush=True)
        for node in (few, full, few):
            _remove_vfs(pfs)
            node.write_config()
            node.apply()
            print(f"\n{node.name}", flush=True)
            _measure_looks(node)
            _measure_agent(node, programs, options.rounds)
        _measure_apply(full, root)
        _remove_vfs(pfs)


def _time_loop() -> float:
    """How much slower than the machine itself the emulated one computes: run the same there."""
    times = []
    for _ in range(9):
        started = time.process_time()
        for _number in range(10_000):
            pass
        times.append((time.process_time() - started) * 1000)
    return statistics.median(times)


def _measure_looks(node: Node) -> None:
    times = [_time_cpu(partial(take_snapshot, Sysfs())) for _ in range(5)]
    _print("one look at the node, CPU ms", times)
    for words in _COMMANDS:
        more = [] if words[0] == "discover" else [f"--config={node.config}"]
        runs = [_run([*_sriovdp(*words), *more]) for _ in range(3)]
        _print(f"{' '.join(words)}, CPU s", [cpu for cpu, _ in runs])
        _print(f"{' '.join(words)}, s", [wall for _, wall in runs])


def _measure_agent(node: Node, programs: Path, rounds: int) -> None:
    agent = AgentProcess(node.config, node.root / node.name)
    (agent.kubelet / "plugins_registry").mkdir(parents=True, exist_ok=True)
    agent.root.mkdir(exist_ok=True)
    firsts, cpu = [], []
    for number in range(3):
        if number:
            agent.stop()
        for left in (agent.kubelet / "plugins_registry").iterdir():
            left.unlink()
        started = time.perf_counter()
        devices = asyncio.run(_start(agent))
        firsts.append(time.perf_counter() - started)
        assert agent.process
        cpu.append(read_cpu_ms(agent.process.pid) / 1000)
        assert len(devices) == len(node.pfs) * node.vfs, len(devices)
    agent.wait_until(agent.socket.exists)
    _print("agent: exec to the first ListAndWatch, s", firsts)
    _print("agent: CPU until then, s", cpu)
    _measure_verbs(node, agent, programs, rounds)
    _print("agent: RSS afterwards, MiB", [agent.resident_kib() / 1024])
    agent.stop()


async def _start(agent: AgentProcess) -> list[str]:
    await asyncio.to_thread(agent.launch)
    return await asyncio.wait_for(follow(agent.kubelet / "plugins_registry", 0), 300)


def _measure_verbs(node: Node, agent: AgentProcess, programs: Path, rounds: int) -> None:
    watch = Watch(programs / "floor", node.root)
    plugin = Plugin("sriovdp", programs / "sriov", programs, agent.socket)
    case = Case(node.pfs[0], 0, None)
    times: dict[str, list[float]] = {"ADD": [], "DEL": []}
    for _ in range(rounds):
        for verb, found in times.items():
            if verb == "DEL":
                time.sleep(0.5)  # announcements of the ADD end meanwhile
            found.extend(watch.run([plugin.job(verb, case)])[0])
    case.remove()
    for verb, found in times.items():
        print(f"{verb + ', ms: p50, p90':44} {quantile(found, 0.5):9.1f} {quantile(found, 0.9):9.1f}", flush=True)


def _measure_apply(full: Node, root: Path) -> None:
    floor = build_floor(root)
    print("\napply of all PFs from no VFs, whole process, s")
    samples: dict[str, list[float]] = {"writes only": [], "apply, mac: keep": [], "apply, mac: stable": []}
    again: list[float] = []
    for _ in range(3):
        for name, times in samples.items():
            _remove_vfs(full.pfs)
            if name == "writes only":
                times.append(full.run_floor(floor))
                continue
            full.write_config(f", {name.removeprefix('apply, ')}")
            times.append(full.apply())
        again.append(full.apply())
    for name, times in samples.items():
        _print(name, times)
    _print("apply again, nothing to do", again)
    base = statistics.median(samples["writes only"])
    for name, times in samples.items():
        print(f"{name}: {statistics.median(times) / base:.2f} times the writes")


def _remove_vfs(pfs: Sequence[Path]) -> None:
    for pf in pfs:
        (pf / "sriov_numvfs").write_text("0")


def _sriovdp(*words: str) -> list[str]:
    return [sys.executable, "-m", "sriovdp.cli.main", *words]


def _time_cpu(call: Callable[[], object]) -> float:
    """CPU milliseconds."""
    started = time.process_time()
    call()
    return (time.process_time() - started) * 1000


def _run(command: Sequence[str]) -> tuple[float, float]:
    """CPU seconds and seconds of a command, which must succeed."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - started


def _print(what: str, values: Sequence[float]) -> None:
    spread = f"({min(values):.2f}-{max(values):.2f}, n={len(values)})" if len(values) > 1 else ""
    print(f"{what:44} {statistics.median(values):9.2f}  {spread}", flush=True)


if __name__ == "__main__":
    main()
