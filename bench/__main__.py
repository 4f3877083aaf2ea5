"""`python -m bench [ROUNDS]` in the lab's guest: the agent's start and memory, and ADD and DEL in each mode.

Everything that is executed is copied to tmpfs first: the guest's root is a network file system, on which an exec costs
hundreds of milliseconds. Time is that of the whole launcher process, as a runtime sees it.
"""

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes.runtime import Runtime, Sandbox
from tests.lab.node import AgentProcess, LabNode

_CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 7
    vfs: [{range: "0-3", driver: kernel}, {range: "4-6", driver: vfio-pci}]
resourceList:
  - {resourceName: sriov, selectors: {drivers: [igbvf]}}
"""


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        root = Path(folder)
        (root / "config.yaml").write_text(_CONFIG)
        node = LabNode(root / "config.yaml")
        node.apply()
        agent = AgentProcess(node.config, root)
        started = _time(agent.start)
        try:
            print(f"agent: answers {started:.0f} ms after its exec, resident {agent.resident_kib() / 1024:.1f} MiB")
            _measure_verbs(node, _build_runtime(root, agent), root, rounds)
            print(f"agent: resident {agent.resident_kib() / 1024:.1f} MiB afterwards")
        finally:
            agent.stop()
            node.remove_vfs()


def _measure_verbs(node: LabNode, runtime: Runtime, root: Path, rounds: int) -> None:
    ranges = [[{"subnet": "10.56.217.0/24"}]]
    ipam = {"type": "host-local", "ranges": ranges, "dataDir": str(root / "leases")}
    cases: dict[str, dict[str, Any]] = {
        "kernel, host-local": {"deviceID": node.vf(0), "ipam": ipam},
        "kernel, no IPAM": {"deviceID": node.vf(0)},
        "vfio-pci, host-local": {"deviceID": node.vf(4), "ipam": ipam},
        "vfio-pci, no IPAM": {"deviceID": node.vf(4)},
    }
    print(f"{'mode':22} {'verb':4} {'median':>8} {'min':>8} {'max':>8}   (ms, n={rounds})")
    samples: dict[tuple[str, str], list[float]] = {}
    for index in range(rounds):  # interleaved, so that noise of the machine falls on all cases alike
        for mode, keys in cases.items():
            config = {"cniVersion": "1.1.0", "name": "bench", "type": "sriov", "vlan": 210} | keys
            sandbox = Sandbox(f"bench-{index}").create()
            for verb, call in (("ADD", runtime.add), ("DEL", runtime.delete)):
                samples.setdefault((mode, verb), []).append(_time(call, sandbox, config))
            sandbox.remove()
    for (mode, verb), times in samples.items():
        print(f"{mode:22} {verb:4} {statistics.median(times):8.1f} {min(times):8.1f} {max(times):8.1f}")


def _build_runtime(root: Path, agent: AgentProcess) -> Runtime:
    plugins = root / "plugins"
    plugins.mkdir()
    for program in (Path("build/sriov"), Path("/usr/lib/cni/host-local")):
        shutil.copy(program, plugins)
    return Runtime(plugins / "sriov", agent.socket, str(plugins))


def _time(function: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    function(*arguments)
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
