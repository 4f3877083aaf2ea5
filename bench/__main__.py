"""`python -m bench [--rounds N]` in the lab's guest: how long a runtime waits for ADD and DEL, against what must be.

Each row is a candidate: our launcher with the agent behind it; the floor (bench/floor.c), which makes the system calls
that the kernel needs and nothing else; and the program that PEER_CNI names, if it does. They take turns on the same VF
with the same configuration, so that noise of the machine falls on all alike. Time is that of the whole process, from
vfork to exit, by a stop watch in C. Everything that is executed is copied to tmpfs first: the guest's root is a network
file system, on which an exec costs hundreds of milliseconds.
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from itertools import product
from pathlib import Path

from bench.candidates import Candidate, Case, Floor, Job, Plugin, Watch
from bench.table import Samples
from tests.lab.node import AgentProcess, LabNode

CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 7
    vfs: [{range: "0-5", driver: kernel}, {range: "6", driver: vfio-pci}]
resourceList:
  - {resourceName: sriov, selectors: {drivers: [igbvf]}}
"""
_MUSL = ("musl-gcc", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="of ADD and DEL one after the other (default 100)")
    parser.add_argument("--at-once-rounds", type=int, default=20, help="of many at once (default 20)")
    parser.add_argument(
        "--rest", type=float, default=0.5, help="seconds from ADD to DEL, in which announcements end (default 0.5)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        root = Path(folder)
        (root / "config.yaml").write_text(CONFIG)
        node = LabNode(root / "config.yaml")
        node.apply()
        agent = AgentProcess(node.config, root)
        started = time.perf_counter()
        agent.start()
        print(f"agent: answers {(time.perf_counter() - started) * 1000:.0f} ms after its exec, {_resident(agent)}")
        try:
            _measure(root, agent, options)
            print(f"\nagent: {_resident(agent)} afterwards")
        finally:
            agent.stop()
            for pf in Case.pfs():
                (pf / "sriov_numvfs").write_text("0")


def _measure(root: Path, agent: AgentProcess, options: argparse.Namespace) -> None:
    programs = build(root)
    watch = Watch(programs / "floor", root)
    _measure_launcher(watch, programs, options.rounds)
    candidates: list[Candidate] = [
        Plugin("sriovdp", programs / "sriov", programs, agent.socket),
        Floor("floor", programs / "floor", programs),
    ]
    candidates += find_peer(programs)
    _measure_each(watch, candidates, root / "leases", options)
    _measure_all(watch, candidates, root / "leases", options)


def _measure_each(watch: Watch, candidates: list[Candidate], leases: Path, options: argparse.Namespace) -> None:
    print(f"\none after the other, {options.rest} s from ADD to DEL, ms, n={options.rounds}", flush=True)
    cases = {
        "kernel, host-local": Case.kernel(leases),
        "kernel, no IPAM": Case.kernel(),
        "vfio-pci, host-local": Case.dpdk(leases),
        "vfio-pci, no IPAM": Case.dpdk(),
    }
    samples = Samples(reference="floor")
    for _ in range(options.rounds):
        for (name, case), candidate, verb in product(cases.items(), candidates, ("ADD", "DEL")):
            if verb == "DEL":
                time.sleep(options.rest)
            times, _ = watch.run([candidate.job(verb, case)], may_fail=candidate.may_fail)
            samples.take((name, verb), candidate.name, times, watch.failure)
    samples.print()
    for case in cases.values():
        case.remove()


def _measure_all(watch: Watch, candidates: list[Candidate], leases: Path, options: argparse.Namespace) -> None:
    cases = Case.every(leases)
    dpdk = sum(not case.is_kernel for case in cases)
    n = options.at_once_rounds
    print(f"\n{len(cases)} at once, {dpdk} of them in DPDK mode, all with host-local, ms, n={n}", flush=True)
    samples = Samples(reference="floor")
    for _ in range(n):
        for candidate, verb in product(candidates, ("ADD", "DEL")):
            if verb == "DEL":
                time.sleep(options.rest)
            each, last = watch.run([candidate.job(verb, case) for case in cases], may_fail=candidate.may_fail)
            samples.take((verb, "all done"), candidate.name, [last], watch.failure)
            samples.take((verb, "each"), candidate.name, each, watch.failure)
    samples.print()
    for case in cases:
        case.remove()


def _measure_launcher(watch: Watch, programs: Path, rounds: int) -> None:
    """The launcher alone, against a static program that does nothing."""
    samples = Samples(reference="return 0")
    for _ in range(rounds):
        for name, command, program in (
            ("return 0", "", "nothing"),
            ("VERSION", "VERSION", "sriov"),
            ("ADD without agent", "ADD", "sriov"),
        ):
            environment = {"CNI_COMMAND": command, "SRIOVDP_SOCKET": str(programs / "none.sock")}
            [took], _ = watch.run([Job([str(programs / program)], environment, b"{}")], may_fail=True)
            samples.add(("launcher alone",), name, took)
    size = (programs / "sriov").stat().st_size
    print(f"\nthe launcher alone, {size} bytes, ms from exec to exit, n={rounds}")
    samples.print()
    print(f"resident while it waits for the agent's answer: {_read_resident(programs)} KiB")


def _read_resident(programs: Path) -> int:
    """KiB of a launcher that sent its request. By pages: the kernel's counters are too coarse for so few."""
    path = programs / "hung.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        environment = {"CNI_COMMAND": "ADD", "SRIOVDP_SOCKET": str(path)}
        with subprocess.Popen([programs / "sriov"], env=environment, stdin=subprocess.DEVNULL) as launcher:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1)
                mapped = Path(f"/proc/{launcher.pid}/smaps_rollup").read_text()
                launcher.kill()
    return int(re.findall(r"^Rss:\s*(\d+) kB", mapped, re.MULTILINE)[0])


def build(root: Path) -> Path:
    """What is executed, in a folder on tmpfs: the launcher, the floor, a program that does nothing, host-local."""
    programs = root / "programs"
    programs.mkdir()
    machine = subprocess.run(["gcc", "-dumpmachine"], capture_output=True, text=True, check=True).stdout.strip()
    headers = ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{machine}"]  # the kernel's, musl has none
    subprocess.run([*_MUSL, *headers, "-o", programs / "floor", "bench/floor.c"], check=True)
    (root / "nothing.c").write_text("int main(void) { return 0; }\n")
    subprocess.run([*_MUSL, "-o", programs / "nothing", root / "nothing.c"], check=True)
    for program in (Path("build/sriov"), Path("/usr/lib/cni/host-local")):
        shutil.copy(program, programs)
    return programs


def find_peer(programs: Path) -> list[Candidate]:
    """The plugin that PEER_CNI names, if it does; it may not be able to do all that is asked of it."""
    path = os.environ.get("PEER_CNI")
    if not path:
        return []
    shutil.copy(path, programs / "peer")
    return [Plugin("peer", programs / "peer", programs, programs / "none.sock", may_fail=True)]


def _resident(agent: AgentProcess) -> str:
    return f"resident {agent.resident_kib() / 1024:.1f} MiB"


if __name__ == "__main__":
    main()
