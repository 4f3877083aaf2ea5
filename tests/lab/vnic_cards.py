"""The software NIC as tests in the guest use it: its cards, their habits, and stations at their netdevs.

`tests/lab/vnic/habits.h` lists the habits, each with the driver it comes from. `ip` is the oracle, not our own code.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.patience import own_time
from tests.lab.vm import VNIC_VARIABLE

_LOAD = Path(__file__).parent / "vnic/load.sh"
_DEBUGFS = Path("/sys/kernel/debug/vnic")
_PCI = Path("/sys/bus/pci/devices")
_PATIENCE = 60.0  # seconds; a wait ends as soon as what is waited for is there


def load(cards: str, **parameters: str | int) -> list["Card"]:
    """Put these cards into the machine in place of those that are there; "" takes all away.

    `parameters` are those of the module: `domain`, `wire`, `iommu`. Raises AssertionError with the kernel's words.
    """
    words = [f"{name}={value}" for name, value in parameters.items()]
    done = subprocess.run(
        ["sh", _LOAD, os.environ[VNIC_VARIABLE], cards, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"loading {cards}: {done.stderr}"
    return list_cards()


def load_beside(module: str, *needed: str) -> None:
    """Load `vnic_rdma` or `vnic_vdpa`, after the kernel's modules that it needs; gone with the cards."""
    done = run("modprobe", "-a", *needed)
    assert done.returncode == 0, done.stderr
    done = run("insmod", f"{os.environ[VNIC_VARIABLE]}/{module}.ko")
    assert done.returncode == 0, done.stderr


def list_cards() -> list["Card"]:
    """The cards of the machine, pulled ones too."""
    return [Card(path.name) for path in sorted(_DEBUGFS.iterdir())] if _DEBUGFS.exists() else []


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail."""
    return subprocess.run(command, capture_output=True, text=True, check=False)


def ip(words: str) -> None:
    """`ip` with these words, which must succeed."""
    done = run("ip", *words.split())
    assert done.returncode == 0, f"ip {words}: {done.stderr}"


@dataclass(frozen=True)
class Card:
    """One card. `address` is the PCI address of its PF."""

    address: str

    @property
    def pf(self) -> Path:
        """Sysfs directory of the PF."""
        return _PCI / self.address

    @property
    def netdev(self) -> str:
        """The PF's netdev; waits for it."""
        return netdev_of(self.pf, "0")

    def set_habits(self, **values: int) -> None:
        """Change habits from now on."""
        (_DEBUGFS / self.address / "habits").write_text(" ".join(f"{key}={value}" for key, value in values.items()))

    def habits(self) -> dict[str, int]:
        """All habits as they are now."""
        lines = (_DEBUGFS / self.address / "habits").read_text().splitlines()
        return {name: int(value) for name, _, value in (line.partition("=") for line in lines)}

    @contextlib.contextmanager
    def with_habits(self, **values: int) -> Iterator[None]:
        """Change habits, and change them back."""
        before = self.habits()
        self.set_habits(**values)
        try:
            yield
        finally:
            self.set_habits(**{name: before[name] for name in values})

    def pull(self) -> None:
        """Pull the card out; it is gone when this returns."""
        (_DEBUGFS / self.address / "plug").write_text("0")

    def plug(self) -> None:
        """Plug the card in again."""
        (_DEBUGFS / self.address / "plug").write_text("1")

    def write_numvfs(self, count: int) -> None:
        """Write `sriov_numvfs`. Raises OSError."""
        (self.pf / "sriov_numvfs").write_text(str(count))

    def numvfs(self) -> int:
        """VFs that there are."""
        return int((self.pf / "sriov_numvfs").read_text())

    def vf(self, index: int) -> Path:
        """Sysfs directory of a VF."""
        return _PCI / (self.pf / f"virtfn{index}").readlink().name

    def vf_netdev(self, index: int, port: str = "0") -> str:
        """A netdev of a VF; waits for it."""
        return netdev_of(self.vf(index), port)

    def listed(self) -> dict[int, dict[str, Any]]:
        """What `ip` lists of the VFs, by their indexes; what is left out is left out."""
        link = json.loads(run("ip", "-j", "-d", "link", "show", "dev", self.netdev).stdout)[0]
        return {one["vf"]: one for one in link.get("vfinfo_list", ())}

    def counter(self, index: int, direction: str, name: str) -> int:
        """A counter of a VF in the kernel's list, by the names that `ip` gives it."""
        link = json.loads(run("ip", "-s", "-j", "link", "show", "dev", self.netdev).stdout)[0]
        return int(link["vfinfo_list"][index]["stats"][direction][name])

    def unicasts(self, index: int) -> int:
        """Frames that a VF got, without those for all, as the PF's own netdev sends some."""
        link = json.loads(run("ip", "-s", "-j", "link", "show", "dev", self.netdev).stdout)[0]
        got = link["vfinfo_list"][index]["stats"]["rx"]
        return int(got["packets"] - got["multicast"] - got["broadcast"])

    def set_vf(self, index: int, words: str) -> str:
        """`ip link set PF vf INDEX WORDS`; "" or why the kernel refused it."""
        done = run("ip", "link", "set", "dev", self.netdev, "vf", str(index), *words.split())
        return "" if done.returncode == 0 else done.stderr.strip()

    def up(self) -> None:
        """Set the PF's netdev up and wait for its link."""
        ip(f"link set dev {self.netdev} up")
        wait_for(lambda: carrier(self.netdev))


def wait_for(condition: Any) -> Any:
    """What a condition gives once it is neither false nor empty. Raises AssertionError when it never is."""
    deadline = own_time() + _PATIENCE
    while not (found := condition()):
        assert own_time() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def netdevs_of(function: Path) -> dict[str, str]:
    """Netdevs of a PCI function by their `dev_port`."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for path in (function / "net").iterdir():
            if not is_representor(path):
                found[(path / "dev_port").read_text().strip()] = path.name
    return found


def is_representor(netdev: Path) -> bool:
    """Whether a netdev stands for a VF, by the name of its devlink port."""
    try:
        return re.fullmatch(r"pf\d+vf\d+", (netdev / "phys_port_name").read_text().strip()) is not None
    except OSError:
        return False


def netdev_of(function: Path, port: str) -> str:
    """A netdev of a PCI function, once it is there."""
    name: str = wait_for(lambda: netdevs_of(function).get(port))
    return name


def carrier(netdev: str) -> bool:
    """Whether a netdev of this network namespace has a link; it has to be up."""
    return Path(f"/sys/class/net/{netdev}/carrier").read_text().strip() == "1"


@dataclass(frozen=True)
class Station:
    """A network namespace with one netdev, at 192.0.2.NUMBER, and without IPv6, whose own frames would be counted."""

    name: str
    netdev: str
    number: int

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return run("ip", "netns", "exec", self.name, *command)

    def reaches(self, other: "Station") -> bool:
        """Whether a ping gets through; one of three, as the first may wait for ARP."""
        address = f"192.0.2.{other.number}"
        return self.run("ping", "-q", "-c", "3", "-i", "0.2", "-W", "1", address).returncode == 0

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace, which is much cheaper than a program that is started there."""
        own, other = Path("/proc/thread-self/ns/net"), Path(f"/run/netns/{self.name}")
        with own.open("rb") as home, other.open("rb") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def mac(self) -> bytes:
        """Address of its netdev (netdevice(7), SIOCGIFHWADDR)."""
        with self.inside(), socket.socket() as any_socket:
            answer = fcntl.ioctl(any_socket, 0x8927, struct.pack("256s", self.netdev.encode()))
        return answer[18:24]

    def send(self, frame: bytes, count: int) -> None:
        """Send a frame so often, as it is."""
        with self.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
            link.bind((self.netdev, 0))
            for _ in range(count):
                link.send(frame)

    def set_up(self) -> None:
        """Address its netdev and set it up."""
        with self.inside():
            for scope in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
        address = f"address add 192.0.2.{self.number}/24 dev {self.netdev}"
        _ip_batch("-n", self.name, lines=[address, f"link set dev {self.netdev} up"])


def _enter(namespace: int) -> None:
    """setns(2); Python has it from 3.12 on."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _ip_batch(*options: str, lines: Iterable[str]) -> None:
    command = ["ip", *options, "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{lines}: {done.stderr}"


@contextlib.contextmanager
def stations(*netdevs: str) -> Iterator[list[Station]]:
    """A station for each netdev. At the end the namespaces are gone, and the netdevs are back."""
    made = [Station(f"station{number}", netdev, number) for number, netdev in enumerate(netdevs, 1)]
    try:
        _ip_batch(lines=[f"netns add {one.name}" for one in made])
        _ip_batch(lines=[f"link set dev {one.netdev} netns {one.name}" for one in made])
        for one in made:
            one.set_up()
        yield made
    finally:
        for one in made:
            run("ip", "-n", one.name, "link", "set", "dev", one.netdev, "netns", "1")
        _ip_batch("-force", lines=[f"netns delete {one.name}" for one in made])
