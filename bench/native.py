"""`python -m bench.native [--rounds N]`, as root: ADD and DEL on this machine, without SR-IOV and without emulation.

One end of a veth pair stands for the VF: it is moved, renamed, set up and given an address by the real kernel, in a
real sandbox, by the real launcher, agent socket, verbs, journal and host-local. Only sysfs is a tree in a folder, and
nothing is set on a PF. So this tells what the agent costs beside the same system calls of the floor, at this machine's
speed; a real NIC's driver adds the same waits to both. The journal is on /dev/shm unless --state says otherwise.
"""

import argparse
import asyncio
import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from bench.__main__ import build, find_peer
from bench.candidates import Candidate, Case, Floor, Plugin, Watch
from bench.table import Samples
from cni import restoration, vf
from cni.locks import Locks
from cni.server import CniServer
from cni.verbs import Verbs
from sriovdp.journal import Journal
from sriovdp.kernel import rtnl
from sriovdp.kernel.sysfs import Sysfs, list_names
from tests.fakes.sysfs import PF, Tree, vf_address

_LIVE_NETDEVS = Path("/sys/class/net")
_NAME = "benchvf0"


@dataclass(eq=False)
class VethCase(Case):
    """A veth as a VF."""

    settings: ClassVar[dict[str, Any]] = {}
    pf_ifindex = 0

    @cached_property
    def address(self) -> str:
        """Of the tree's first VF."""
        return vf_address(PF, 0)

    @property
    def identity(self) -> dict[str, Any]:
        """A peer finds the veth by its MAC; our plugin has no such key, and is told what the tree says."""
        return {"deviceID": self.address, "hwaddr": (_LIVE_NETDEVS / _NAME / "address").read_text().strip()}

    @cached_property
    def netdev(self) -> tuple[int, str]:
        """The veth."""
        return int((_LIVE_NETDEVS / _NAME / "ifindex").read_text()), _NAME


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.native", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="of ADD and DEL one after the other (default 300)")
    parser.add_argument("--state", type=Path, default=Path("/dev/shm"), help="where the journal is (default /dev/shm)")
    options = parser.parse_args()
    pair = [_NAME, "type", "veth", "peer", "name", f"{_NAME}p"]
    subprocess.run(["ip", "link", "add", *pair], check=True)
    try:
        with (
            tempfile.TemporaryDirectory(dir="/dev/shm") as folder,
            tempfile.TemporaryDirectory(dir=options.state) as state,
        ):
            _measure(Path(folder), Path(state), options.rounds)
    finally:
        subprocess.run(["ip", "link", "delete", _NAME], check=True)


def _measure(root: Path, state: Path, rounds: int) -> None:
    tree = _make_tree(root / "sys")
    agent = os.fork()
    if agent == 0:
        _serve(tree, root / "agent.sock", state)
    programs = build(root)
    watch = Watch(programs / "floor", root)
    candidates: list[Candidate] = [
        Plugin("sriovdp", programs / "sriov", programs, root / "agent.sock"),
        Floor("floor", programs / "floor", programs),
        *find_peer(programs),
    ]
    cases = {
        "host-local": VethCase(tree.pci(PF), 0, root / "leases"),
        "no IPAM": VethCase(tree.pci(PF), 0, None),
    }
    samples, spent = Samples(reference="floor"), defaultdict[tuple[str, str], float](float)
    for number in range(rounds + 5):
        for (name, case), candidate, verb in product(cases.items(), candidates, ("ADD", "DEL")):
            before = _cpu_of_children() + _cpu_of(agent)
            times, _ = watch.run([candidate.job(verb, case)], may_fail=candidate.may_fail)
            if number >= 5:  # before, nothing is warm
                samples.take((name, verb), candidate.name, times, watch.failure)
                spent[name, candidate.name] += _cpu_of_children() + _cpu_of(agent) - before
    print(f"a veth in place of a VF, ms, n={rounds}, state on {state}")
    samples.print()
    for (name, candidate_name), seconds in spent.items():
        print(f"CPU time, {name}, {candidate_name}: {seconds / rounds / 2 * 1000:.2f} ms for each verb, all processes")
    for case in cases.values():
        case.remove()
    os.kill(agent, signal.SIGTERM)
    _, _, used = os.wait4(agent, 0)
    user, system = (seconds / (rounds + 5) / 4 * 1000 for seconds in (used.ru_utime, used.ru_stime))
    print(f"the agent: {user:.2f} ms in user mode, {system:.2f} ms in the kernel for each verb, announcements included")


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu_of(process: int) -> float:
    """CPU seconds of a process that runs (proc(5): utime and stime, in ticks)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _make_tree(root: Path) -> Tree:
    root.mkdir()
    tree = Tree(root)
    tree.add_pf(vfs=1, netdev=None)
    address = vf_address(PF, 0)
    tree.bind(address, "igbvf")
    shutil.rmtree(tree.pci(address) / "net", ignore_errors=True)
    (tree.pci(address) / "net").mkdir()
    (tree.pci(address) / "net" / _NAME).touch()
    return tree


def _serve(tree: Tree, socket: Path, state: Path) -> None:
    """The agent's part, until SIGTERM; does not return."""
    read = rtnl._read_link  # noqa: SLF001 - a veth has no PCI device behind it

    def read_link(message: bytes) -> rtnl.Link:
        return replace(read(message), parent=vf_address(PF, 0))

    def list_live(path: Path | str) -> list[str]:
        return [name for name in list_names(path) if (_LIVE_NETDEVS / name).exists()]

    rtnl._read_link = read_link  # noqa: SLF001
    for module in (vf, restoration):
        vars(module)["list_names"] = list_live
    sys.setswitchinterval(0.001)
    gc.freeze()

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        verbs = Verbs(Sysfs(tree.root), Journal(state / "journal"), Locks())
        server = CniServer(socket, verbs.handle)
        await server.start()
        await stop.wait()
        await server.stop()

    asyncio.run(run())
    os._exit(0)


if __name__ == "__main__":
    main()
