"""`python -m bench.steps [ROUNDS]` in the lab's guest: where the agent's part of an ADD and a DEL goes, step by step.

The verbs run in this process, without launcher and socket, and the functions that do something to the kernel, the disk
or the IPAM plugin are timed. A step's time is its own: what other steps did inside it is theirs.
"""

import functools
import inspect
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.__main__ import CONFIG, build
from bench.candidates import Case
from cni.ipam import delegate
from cni.protocol.wire import Request
from cni.verbs import dispatch
from sriovdp.kernel import drivers, netlink, netns, sysfs
from sriovdp.state import journal
from sriovdp.state.locks import Locks
from tests.lab.node import LabNode


class Steps:
    """Own time and number of calls of each step. A step that runs another one's thread waits for it."""

    def __init__(self) -> None:
        self.own: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner = threading.local()

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        @functools.wraps(function)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            outer, self._inner.spent = getattr(self._inner, "spent", 0.0), 0.0
            started = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                took = time.perf_counter() - started
                self.own[name] += took - self._inner.spent
                self.calls[name] += 1
                self._inner.spent = outer + took

        return timed

    def instrument(self) -> None:
        """Time what there is, in whatever module it was imported by its name."""
        for owner in (netlink.Netlink, journal.Journal, delegate.IpamCall):
            for name, member in list(vars(owner).items()):
                if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
                    setattr(owner, name, self.wrap(f"{owner.__name__}.{name}", member))
        for module in (drivers, netns, sysfs):
            for name, member in list(vars(module).items()):
                if inspect.isfunction(member) and member.__module__ == module.__name__ and not name.startswith("_"):
                    self._replace(member, self.wrap(f"{module.__name__.split('.')[-1]}.{name}", member))

    def _replace(self, old: Any, new: Any) -> None:
        for module in [found for found in sys.modules.values() if isinstance(found, ModuleType)]:
            if module.__name__.startswith(("cni", "sriovdp")):
                for name, member in list(vars(module).items()):
                    if member is old:
                        setattr(module, name, new)


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        root = Path(folder)
        (root / "config.yaml").write_text(CONFIG)
        LabNode(root / "config.yaml").apply()
        programs = build(root)
        entries = journal.Journal(root / "journal")
        subject = dispatch.Verbs(sysfs.Sysfs(), entries, Locks(entries.locks))
        leases = root / "leases"
        for name, case in (("kernel, host-local", Case.kernel(leases)), ("vfio-pci, no IPAM", Case.dpdk())):
            _measure(name, subject, case, programs, rounds)
            case.remove()
        for pf in Case.pfs():
            (pf / "sriov_numvfs").write_text("0")


def _measure(name: str, subject: dispatch.Verbs, case: Case, programs: Path, rounds: int) -> None:
    totals: dict[str, list[float]] = {"ADD": [], "DEL": []}
    steps = {verb: Steps() for verb in totals}
    plain = _remember()
    for number in range(rounds + 1):
        for verb, unhindered in totals.items():
            _restore(plain)
            if number % 2:  # every other round is timed step by step, as that costs time itself
                steps[verb].instrument()
            took = _call(subject, case, verb, programs)
            if number and not number % 2:
                unhindered.append(took)
    _restore(plain)
    for verb, found in steps.items():
        count = (rounds + 1) // 2
        print(
            f"\n{name}, {verb}: {statistics.median(totals[verb]):.1f} ms in the agent (median of {len(totals[verb])})"
        )
        for step, own in sorted(found.own.items(), key=lambda item: -item[1])[:22]:
            print(f"  {own * 1000 / count:8.2f} ms  {found.calls[step] / count:5.1f} x  {step}")


def _call(subject: dispatch.Verbs, case: Case, verb: str, programs: Path) -> float:
    told = case.environment(verb, programs)
    request = Request(
        verb, told["CNI_CONTAINERID"], told["CNI_NETNS"], "net1", told["CNI_ARGS"], told["CNI_PATH"], case.config
    )
    fd = os.open(case.sandbox.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        started = time.perf_counter()
        reply = subject.handle(request, fd, *([threading.Event()] if _takes_event(subject) else []))
        took = (time.perf_counter() - started) * 1000
    finally:
        os.close(fd)
    assert reply.exit_code == 0, reply.stdout.decode()
    return took


def _takes_event(subject: dispatch.Verbs) -> bool:
    return len(inspect.signature(subject.handle).parameters) > 2


_Members = list[tuple[Any, str, Any]]


def _remember() -> _Members:
    owners: list[Any] = [netlink.Netlink, journal.Journal, delegate.IpamCall]
    owners += [module for name, module in sys.modules.items() if name.startswith(("cni", "sriovdp"))]
    return [
        (owner, name, member)
        for owner in owners
        for name, member in list(vars(owner).items())
        if inspect.isfunction(member)
    ]


def _restore(members: _Members) -> None:
    for owner, name, member in members:
        setattr(owner, name, member)


if __name__ == "__main__":
    main()
