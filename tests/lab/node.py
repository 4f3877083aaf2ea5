"""The lab's node as tests and the demo use it: its PF, its VFs as `ip` sees them, and an agent as a process."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from sriovdp.cli.main import cli
from tests.lab.patience import own_time

_SRIOVDP = [sys.executable, "-m", "sriovdp.cli.main"]
_START_TIMEOUT = 180.0  # seconds of the guest's own time; the interpreter alone takes several on an emulated machine
_PCI = Path("/sys/bus/pci/devices")


def list_pfs() -> list[Path]:
    """Sysfs directories of all PFs."""
    return [path for path in sorted(_PCI.iterdir()) if (path / "sriov_totalvfs").exists()]


def find_netdev(function: Path) -> str:
    """Name of a function's netdev; that of a virtio function lies one device deeper."""
    return next(path.name for pattern in ("net/*", "virtio*/net/*") for path in function.glob(pattern))


@dataclass(frozen=True)
class LabNode:
    """One PF of the guest, counted from 0. `config` is the agent's config file."""

    config: Path
    number: int = 0

    @property
    def pf(self) -> Path:
        """Sysfs directory of the PF."""
        return list_pfs()[self.number]

    @property
    def pf_netdev(self) -> str:
        """The PF's netdev."""
        return find_netdev(self.pf)

    def run_sriovdp(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of sriovdp, which may fail."""
        return subprocess.run([*_SRIOVDP, *arguments], capture_output=True, text=True, check=False)

    def sriovdp(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of sriovdp, which must succeed."""
        done = self.run_sriovdp(*arguments)
        assert done.returncode == 0, f"sriovdp {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done

    def apply(self) -> None:
        """Make the node as the config says."""
        self.sriovdp("apply", "--config", str(self.config))

    def remove_vfs(self) -> None:
        """Back to no VFs."""
        (self.pf / "sriov_numvfs").write_text("0")

    def vf(self, index: int) -> str:
        """PCI address of a VF."""
        return (self.pf / f"virtfn{index}").readlink().name

    def netdev(self, index: int) -> str:
        """A VF's netdev on the host."""
        return find_netdev(_PCI / self.vf(index))

    def look_vf(self, index: int) -> dict[str, Any]:
        """What `ip` says of a VF's settings on the PF."""
        return self._settings()[index]

    def vlan(self, index: int) -> int:
        """A VF's port VLAN, 0 for none."""
        listed = self.look_vf(index).get("vlan_list") or [{}]
        return int(listed[0].get("vlan", 0))

    def look(self) -> dict[str, Any]:
        """Everything a pod could have changed: settings on the PF, drivers, and the netdevs of the host."""
        links = json.loads(subprocess.run(["ip", "-d", "-j", "link"], capture_output=True, check=True).stdout)
        kept = ("ifname", "address", "mtu", "altnames", "promiscuity", "allmulti")
        return {
            "settings": self._settings(),
            "drivers": {
                path.name: (path.resolve() / "driver").resolve().name for path in sorted(self.pf.glob("virtfn*"))
            },
            "links": sorted(
                (
                    {key: link.get(key) for key in kept} | {"up": "UP" in link["flags"]}
                    for link in links
                ),
                key=lambda link: str(link["ifname"]),
            ),
        }  # fmt: skip

    def send_by_testpmd(self, address: str, target_mac: str, seconds: float = 2) -> int:
        """Let DPDK's testpmd send on a VF to a MAC for a while; gives the number of packets that it counted as sent."""
        command = [
            "stdbuf", "--output=L", "dpdk-testpmd", "-l", "0-1", "-m", "200", "--no-telemetry", "-a", address, "--",
            "--forward-mode=txonly", f"--eth-peer=0,{target_mac}", "--total-num-mbufs=4096",
            "--auto-start",
        ]  # fmt: skip
        with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.STDOUT, text=True, bufsize=1) as process:
            assert process.stdin
            assert process.stdout
            output = ""
            for line in process.stdout:
                output += line
                if line.startswith("Press enter to exit"):
                    time.sleep(seconds)
                    process.stdin.write("\n")
                    process.stdin.flush()
        counted = re.findall(r"TX-packets:\s*(\d+)", output)
        assert counted, f"testpmd printed no counters:\n{output}"
        return int(counted[-1])

    def _settings(self) -> list[dict[str, Any]]:
        shown = subprocess.run(["ip", "-d", "-j", "link", "show", self.pf_netdev], capture_output=True, check=True)
        settings: list[dict[str, Any]] = json.loads(shown.stdout)[0].get("vfinfo_list", [])
        return settings


class QuickNode(LabNode):
    """The lab's node, with commands in this process: an interpreter of their own takes seconds to start here."""

    def run_sriovdp(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command, which may fail."""
        done = CliRunner().invoke(cli, arguments)
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


@dataclass
class AgentProcess:
    """An agent as its own process, with its state below `root`. It can be killed and started again."""

    config: Path
    root: Path
    options: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def socket(self) -> Path:
        """The agent's socket for the CNI launcher."""
        return self.root / "run/agent.sock"

    @property
    def kubelet(self) -> Path:
        """Where this agent looks for its kubelet."""
        return self.root / "kubelet"

    def start(self) -> None:
        """Start and wait until the agent answers the CNI launcher."""
        self.launch()
        self.wait_until(self.socket.exists)

    def launch(self) -> None:
        """Start, and wait for nothing."""
        log = (self.root / "agent.log").open("ab")
        roots = [f"--{name}-dir={self.root / name}" for name in ("run", "state", "kubelet")]
        command = [*_SRIOVDP, "agent", "--config", str(self.config), *roots, *self.options]
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the agent does; fails with the agent's log when it dies or takes too long."""
        deadline = own_time() + _START_TIMEOUT
        while not condition():
            ended = self.process is not None and self.process.poll() is not None
            if ended or own_time() > deadline:
                what = "ended" if ended else "took too long"
                raise AssertionError(f"the agent {what}; its log:\n{self.log()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL: no time to put anything in order."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, and the agent must end in peace."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            code = self.process.wait(timeout=60)
            assert code == 0, f"the agent ended with {code}:\n{self.log()}"

    def log(self) -> str:
        """What the agent wrote."""
        return (self.root / "agent.log").read_text(errors="replace")

    def attachments(self) -> list[str]:
        """Files of attachments in the journal."""
        return sorted(path.name for path in (self.root / "state/journal").glob("attachment-*"))

    def resident_kib(self) -> int:
        """Resident memory of the agent's process, in KiB."""
        assert self.process
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s*(\d+) kB", status)
        assert found
        return int(found[1])
