"""`python -m bench.native [--rounds N]`, as root: ADD and DEL on this machine, without SR-IOV and without emulation.

One end of a veth pair stands for a VF: it is moved, renamed, set up and given an address by the real kernel, in a
real sandbox, by the real launcher, agent socket, verbs, journal and host-local. Only sysfs is a tree in a folder, and
nothing is set on a PF. So this shows what the agent costs beside the same system calls of the floor, at this machine's
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
from cni.service.server import CniServer
from cni.verbs.dispatch import Verbs
from sriovdp.kernel import netdevs
from sriovdp.kernel.rtnl import link as links
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.sysfs import Sysfs, list_names
from sriovdp.state.journal import Journal
from sriovdp.state.locks import Locks
from tests.fakes.sysfs import PF, Tree, vf_address

_LIVE_NETDEVS = Path("/sys/class/net")
_COUNT = 14  # as many as the lab has


def _name(index: int) -> str:
    return f"benchvf{index}"


def _mac(index: int) -> str:
    return f"02:be:7c:00:00:{index:02x}"


@dataclass(eq=False)
class VethCase(Case):
    """A veth as a VF."""

    settings: ClassVar[dict[str, Any]] = {}
    pf_ifindex = 0
    is_kernel = True

    @cached_property
    def address(self) -> str:
        """Of the tree's VF."""
        return vf_address(PF, self.index)

    @property
    def identity(self) -> dict[str, Any]:
        """A peer finds the veth by its MAC; our plugin has no such key, and is given what the tree says."""
        return {"deviceID": self.address, "hwaddr": _mac(self.index)}

    @cached_property
    def netdev(self) -> tuple[int, str]:
        """The veth."""
        name = _name(self.index)
        return int((_LIVE_NETDEVS / name / "ifindex").read_text()), name


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.native", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="of ADD and DEL one after the other (default 300)")
    parser.add_argument("--at-once-rounds", type=int, default=40, help=f"of {_COUNT} at once (default 40)")
    parser.add_argument("--state", type=Path, default=Path("/dev/shm"), help="where the journal is (default /dev/shm)")
    options = parser.parse_args()
    made = []
    try:
        for index in range(_COUNT):
            pair = [_name(index), "address", _mac(index), "type", "veth", "peer", "name", f"{_name(index)}p"]
            subprocess.run(["ip", "link", "add", *pair], check=True)
            made.append(_name(index))
        with (
            tempfile.TemporaryDirectory(dir="/dev/shm") as folder,
            tempfile.TemporaryDirectory(dir=options.state) as state,
        ):
            _measure(Path(folder), Path(state), options)
    finally:
        for name in made:
            subprocess.run(["ip", "link", "delete", name], check=True)


def _measure(root: Path, state: Path, options: argparse.Namespace) -> None:
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
    vfs = [VethCase(tree.pci(PF), index, root / "leases") for index in range(_COUNT)]
    print(
        f"veths in place of VFs, ms, n={options.rounds}, {_COUNT} at once n={options.at_once_rounds}, state on {state}"
    )
    each = {"host-local": vfs[:1], "no IPAM": [VethCase(tree.pci(PF), 0, None)]}
    _measure_cases(each, candidates, watch, agent, options.rounds)
    _measure_cases({f"{_COUNT} at once": vfs}, candidates, watch, agent, options.at_once_rounds)
    for case in (*vfs, *each["no IPAM"]):
        case.remove()
    os.kill(agent, signal.SIGTERM)
    os.wait4(agent, 0)


def _measure_cases(
    cases: dict[str, list[VethCase]], candidates: list[Candidate], watch: Watch, agent: int, rounds: int
) -> None:
    """Until the last one of each case is done; and what it costs all processes, announcements included."""
    samples, spent = Samples(reference="floor"), defaultdict[tuple[str, str], float](float)
    for number in range(rounds + 5):
        for (name, vfs), candidate, verb in product(cases.items(), candidates, ("ADD", "DEL")):
            before = _cpu_of_children() + _cpu_of(agent)
            _, last = watch.run([candidate.job(verb, vf) for vf in vfs], may_fail=candidate.may_fail)
            if number >= 5:  # before, nothing is warm
                samples.take((name, verb), candidate.name, [last], watch.failure)
                used = _cpu_of_children() + _cpu_of(agent) - before
                spent[name, candidate.name] += used / rounds / len(vfs) / 2 * 1000
    samples.print()
    for (name, candidate_name), used in spent.items():
        print(f"CPU time, {name}, {candidate_name}: {used:.2f} ms for each verb, all processes")


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
    tree.add_pf(vfs=_COUNT, total=_COUNT, netdev=None)
    for index in range(_COUNT):
        address = vf_address(PF, index)
        tree.bind(address, "igbvf")
        shutil.rmtree(tree.pci(address) / "net", ignore_errors=True)
        (tree.pci(address) / "net").mkdir()
        (tree.pci(address) / "net" / _name(index)).touch()
    shutil.rmtree(root / "class/net", ignore_errors=True)
    (root / "class").mkdir(exist_ok=True)
    (root / "class/net").symlink_to(_LIVE_NETDEVS)
    return tree


def _serve(tree: Tree, socket: Path, state: Path) -> None:
    """The agent's part, until SIGTERM; does not return."""
    read = links.read_link  # a veth has no PCI device behind it
    parents = {_mac(index): vf_address(PF, index) for index in range(_COUNT)}

    def read_link(message: bytes) -> Link:
        link = read(message)
        return replace(link, parent=parents.get(link.mac, ""))

    def list_live(path: Path | str) -> list[str]:
        return [name for name in list_names(path) if (_LIVE_NETDEVS / name).exists()]

    vars(links)["read_link"] = read_link
    vars(netdevs)["list_names"] = list_live
    sys.setswitchinterval(0.001)
    gc.freeze()

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        journal = Journal(state / "journal")
        verbs = Verbs(Sysfs(tree.root), journal, Locks(journal.locks))
        server = CniServer(socket, verbs.handle)
        await server.start()
        await stop.wait()
        await server.stop()

    asyncio.run(run())
    os._exit(0)


if __name__ == "__main__":
    main()
