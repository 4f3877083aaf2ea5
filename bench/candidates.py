"""What is measured: cases (a VF and its configuration), candidates that attach it, and the stop watch."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tests.fakes.runtime import Sandbox
from tests.lab.node import list_pfs

_VLAN = 210
_DPDK_INDEX = 6  # as bench/__main__.py configures each PF
_MISSING = "the benchmark needs a PF: run it in the lab"


@dataclass(eq=False)
class Case:
    """A VF of a PF, the sandbox that it goes to, and its configuration."""

    pf: Path
    index: int
    leases: Path | None

    settings: ClassVar[Mapping[str, Any]] = {"vlan": _VLAN}

    @staticmethod
    def pfs() -> list[Path]:
        """Sysfs directories of all PFs."""
        found = list_pfs()
        assert found, _MISSING
        return found

    @classmethod
    def kernel(cls, leases: Path | None = None) -> "Case":
        """The first PF's first VF, which has a netdev. `leases` is host-local's folder; None is no IPAM."""
        return cls(cls.pfs()[0], 0, leases)

    @classmethod
    def dpdk(cls, leases: Path | None = None) -> "Case":
        """The first PF's VF on vfio-pci."""
        return cls(cls.pfs()[0], _DPDK_INDEX, leases)

    @classmethod
    def every(cls, leases: Path | None = None) -> "list[Case]":
        """All VFs of all PFs."""
        return [cls(pf, index, leases) for index in range(_DPDK_INDEX + 1) for pf in cls.pfs()]

    @property
    def is_kernel(self) -> bool:
        """Whether the VF has a netdev."""
        return self.index != _DPDK_INDEX

    @cached_property
    def sandbox(self) -> Sandbox:
        """A network namespace that stays for all rounds."""
        ipam = "ipam" if self.leases else "plain"
        return Sandbox(f"bench-{self.address.replace(':', '-')}-{ipam}").create()

    @cached_property
    def address(self) -> str:
        """PCI address of the VF."""
        return (self.pf / f"virtfn{self.index}").readlink().name

    @cached_property
    def netdev(self) -> tuple[int, str]:
        """Interface index and host name of the VF's netdev; 0 and nothing in DPDK mode."""
        for path in (self.pf / f"virtfn{self.index}/net").glob("*"):
            return int((path / "ifindex").read_text()), path.name
        return 0, ""

    @cached_property
    def pf_ifindex(self) -> int:
        """Interface index of the PF's netdev."""
        return int(next((self.pf / "net").glob("*/ifindex")).read_text())

    @property
    def identity(self) -> dict[str, Any]:
        """How the configuration names the VF: in the key that Multus fills in, and in the one that runtimes fill in."""
        return {"deviceID": self.address, "runtimeConfig": {"deviceID": self.address}}

    @cached_property
    def config(self) -> bytes:
        """The network configuration. Version 1.0.0: host-local of Debian 12 knows no later one."""
        config: dict[str, Any] = {"cniVersion": "1.0.0", "name": "bench", "type": "sriov", **self.settings}
        config |= self.identity
        if self.leases:
            ranges = [[{"subnet": "10.56.217.0/24"}]]
            config["ipam"] = {"type": "host-local", "ranges": ranges, "dataDir": str(self.leases)}
        return json.dumps(config).encode()

    def environment(self, verb: str, programs: Path) -> dict[str, str]:
        """What the runtime sets."""
        return {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": self.sandbox.container_id,
            "CNI_NETNS": self.sandbox.path,
            "CNI_IFNAME": "net1",
            "CNI_ARGS": "IgnoreUnknown=true;K8S_POD_NAMESPACE=default;K8S_POD_NAME=bench",
            "CNI_PATH": str(programs),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }

    def remove(self) -> None:
        """Remove the sandbox."""
        self.sandbox.remove()


@dataclass(frozen=True)
class Job:
    """One exec: strings of its command line, its environment, and stdin."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    stdin: bytes


class Candidate(Protocol):
    """A program that attaches VFs."""

    name: str
    may_fail: bool

    def job(self, verb: str, case: Case) -> Job:
        """What is to be executed for a verb."""
        ...


@dataclass
class Plugin:
    """A CNI plugin: ours, or a peer's."""

    name: str
    program: Path
    programs: Path
    socket: Path
    may_fail: bool = False

    def job(self, verb: str, case: Case) -> Job:
        """As a runtime does it."""
        environment = {**case.environment(verb, self.programs), "SRIOVDP_SOCKET": str(self.socket)}
        return Job([str(self.program)], environment, case.config)


@dataclass
class Floor:
    """bench/floor.c, which is given all that the others have to find out."""

    name: str
    program: Path
    programs: Path
    may_fail: bool = False

    def job(self, verb: str, case: Case) -> Job:
        """The VF by its numbers."""
        ifindex, name = case.netdev
        mode = "kernel" if case.is_kernel else "dpdk"
        vf = [str(number) for number in (case.pf_ifindex, case.index, _VLAN, ifindex)]
        target = ["net1" if verb == "ADD" else name or "-", case.sandbox.path]
        ipam = [str(self.programs / "host-local")] if case.leases else []
        arguments = [str(self.program), verb.lower(), mode, *vf, *target, *ipam]
        return Job(arguments, case.environment(verb, self.programs), case.config)


class Watch:
    """Runs jobs at once by the stop watch of bench/floor.c."""

    def __init__(self, program: Path, root: Path) -> None:
        self._program = program
        self._root = root
        self.failure = ""
        """What a job said that failed in the last run, empty when none did."""

    def run(self, jobs: Sequence[Job], *, may_fail: bool = False) -> tuple[list[float], float]:
        """Run all at once. Gives the ms of each, and those until the last one was done."""
        folders = [self._prepare(number, job) for number, job in enumerate(jobs)]
        done = subprocess.run([self._program, "time", *folders], capture_output=True, text=True, check=True)
        *lines, last = done.stdout.splitlines()
        times, self.failure = [], ""
        for line in lines:
            number, code, nanoseconds = (int(field) for field in line.split())
            answer = (folders[number] / "stdout").read_text(errors="replace")
            if code != 0:
                self.failure = f"{jobs[number].arguments} ended with {code}: {answer}{done.stderr}"
            assert may_fail or not self.failure, self.failure
            times.append(nanoseconds / 1e6)
        return times, int(last) / 1e6

    def _prepare(self, number: int, job: Job) -> Path:
        folder = self._root / f"job-{number}"
        folder.mkdir(exist_ok=True)
        (folder / "argv").write_bytes(b"".join(argument.encode() + b"\0" for argument in job.arguments))
        environment = (f"{name}={value}".encode() + b"\0" for name, value in job.environment.items())
        (folder / "environ").write_bytes(b"".join(environment))
        (folder / "stdin").write_bytes(job.stdin)
        return folder
