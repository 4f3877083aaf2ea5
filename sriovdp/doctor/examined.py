"""The node that is examined: its files, devices, config, journal. Each is read when a check asks for it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from sriovdp.config.file import Loaded
from sriovdp.config.ranges import VfIndices
from sriovdp.config.values import Config, PfConfig, VfConfig
from sriovdp.doctor.check import SkipError
from sriovdp.doctor.view import UnseenError, View
from sriovdp.errors import ConfigError, SriovdpError
from sriovdp.kernel.abilities import BIFURCATED
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import (
    KERNEL_DRIVER,
    USERSPACE_DRIVERS,
    Node,
    PhysicalFunction,
    VirtualFunction,
    is_userspace,
    name_vf,
)
from sriovdp.node.inventory import take_snapshot
from sriovdp.reading import UnreadableError
from sriovdp.state.journal import Attachment, Damage, Journal

_NO_ANSWER: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the programs of a node have their files."""

    state: str = "/var/lib/sriovdp"
    run: str = "/run/sriovdp"
    kubelet: str = "/var/lib/kubelet"
    plugins: str = "/opt/cni/bin"
    networks: str = "/etc/cni/net.d"


@dataclass(frozen=True, slots=True)
class Peers:
    """Who can be asked on a node that runs: each gives lines, the first says `ok` or what the problem is."""

    kubelet: Callable[[], Collection[str]] = lambda: _NO_ANSWER
    agent: Callable[[], Collection[str]] = lambda: _NO_ANSWER


@dataclass
class Examined:
    """One node. `config` is None where there is no file; `fault` is what is wrong with one that is not valid.

    `is_hidden`: this user may not read it.
    """

    view: View
    config: Loaded | None = None
    fault: ConfigError | None = None
    config_path: str = ""
    config_text: str = ""
    is_hidden: bool = False
    folders: Folders = field(default_factory=Folders)
    peers: Peers = field(default_factory=Peers)

    @cached_property
    def _taken(self) -> Node | SriovdpError:
        try:
            return take_snapshot(Sysfs(self.view.sysfs))
        except SriovdpError as error:
            return error

    @property
    def node_fault(self) -> str:
        """Why the devices of the node cannot be looked at; empty when they can."""
        return "" if isinstance(self._taken, Node) else str(self._taken)

    @property
    def node(self) -> Node:
        """Its devices. Raises SkipError when they cannot be looked at, which is the finding of one check alone."""
        if isinstance(self._taken, SriovdpError):
            raise SkipError("the devices of this node cannot be looked at: see the check `devices`")
        return self._taken

    @property
    def journal(self) -> Journal:
        """The journal, which is only read."""
        return Journal(Path(self.view.place(f"{self.folders.state}/journal")))

    @cached_property
    def surveyed(self) -> tuple[list[Attachment], list[Damage]]:
        """The entries of the journal, and its files that cannot be understood. Raises UnseenError, JournalError."""
        self.view.names(f"{self.folders.state}/journal", "^$")  # raises where it may not be read
        return self.journal.survey()

    @property
    def has_journal(self) -> bool:
        """Whether there is a journal that can be read."""
        try:
            return self.view.has(f"{self.folders.state}/journal") and bool(self.surveyed)
        except (SriovdpError, UnreadableError):
            return False

    def settle(self) -> Config:
        """The config. Raises SkipError when there is none that is valid, UnseenError when it cannot be read."""
        if self.is_hidden:
            raise UnseenError(f"{self.config_path}: Permission denied; run it as root")
        if self.config is None:
            raise SkipError("the config file is not valid" if self.fault else "no config file was found or named")
        return self.config.config

    def entries(self) -> Iterator[tuple[PhysicalFunction, PfConfig]]:
        """Each PF with its entry of the config; nothing without a valid config."""
        config = self.config.config if self.config else None
        for pf in self.node.pfs if config else ():
            if config and (entry := config.find_pf(pf)):
                yield pf, entry

    def wishes(self) -> Iterator[tuple[PhysicalFunction, VfConfig]]:
        """What the config wants of VFs: each range of each PF that it splits."""
        for pf, entry in self.entries():
            ranges = entry.vfs or (entry.vf(0),)
            if entry.num_vfs != 0:
                yield from ((pf, replace(wish, driver=choose_driver(pf, wish))) for wish in ranges)

    def wanted_drivers(self) -> set[str]:
        """Drivers for user space that the config wants, or that VFs are on."""
        wanted = {wish.driver for _, wish in self.wishes()}
        bound = {vf.driver for _, vf in self.vfs() if vf.driver}
        return {driver for driver in wanted | bound if is_userspace(driver)}

    def vfs(self) -> Iterator[tuple[PhysicalFunction, VirtualFunction]]:
        """Each VF with its PF, accelerators too."""
        for pf in (*self.node.pfs, *self.node.accelerators):
            yield from ((pf, vf) for vf in pf.vfs)

    def sriov_pfs(self) -> list[PhysicalFunction]:
        """PFs that are split, can be, or are in the config."""
        selected = {pf.address for pf, _ in self.entries()}
        return [pf for pf in self.node.pfs if pf.total_vfs or pf.vfs or pf.address in selected]


def choose_driver(pf: PhysicalFunction, wish: VfConfig) -> str:
    """The driver that VFs of a range get: DPDK uses a bifurcated one through the kernel, as `plan` has it."""
    return KERNEL_DRIVER if pf.driver in BIFURCATED and wish.driver in USERSPACE_DRIVERS else wish.driver


def name_vfs(pf: PhysicalFunction, vfs: Sequence[VirtualFunction]) -> str:
    """Some VFs of a PF as messages name them: `eth0 VF 3 (0000:3b:02.3)`, `eth0 VF 0-3`."""
    if len(vfs) == 1:
        return name_vf_of(pf, vfs[0])
    return f"{pf.name} VF {VfIndices.parse(','.join(str(vf.index) for vf in vfs))}"


def name_vf_of(pf: PhysicalFunction, vf: VirtualFunction) -> str:
    """A VF as messages name it."""
    return name_vf(pf.name, vf.index, vf.address)


def name_pf(pf: PhysicalFunction) -> str:
    """A PF as messages name it: `eth0 (0000:3b:00.0)`."""
    return f"{pf.name} ({pf.address})" if pf.netdev else str(pf.address)
