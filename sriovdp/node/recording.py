"""Recorded nodes: a small copy of a node's sysfs, and in `netlink.json` beside it what sysfs does not have.

Nothing in it identifies people or pieces of hardware: no serial numbers, no IP addresses; MACs and switch ids are
replaced by numbers that are the same wherever the originals were.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from sriovdp.errors import DeviceError
from sriovdp.kernel.sysfs import Folder
from sriovdp.model import ZERO_MAC, Eswitch, Node, VfSettings
from sriovdp.reading import build, parse_object, read_file

FACTS = "netlink.json"

_ATTRIBUTES = frozenset(
    (
        *("class", "vendor", "device", "numa_node", "acpi_index", "sriov_totalvfs", "sriov_numvfs", "sriov_offset"),
        *("sriov_drivers_autoprobe", "sriov_vf_device", "sriov_stride", "modalias", "driver_override", "sfnum"),
        *("ifindex", "address", "mtu", "flags", "operstate", "carrier", "type", "phys_port_name", "phys_switch_id"),
        *("ibdev", "name", "dev_port"),
    )
)
_LISTINGS = frozenset(("net", "uio", "infiniband", "infiniband_verbs", "infiniband_mad", "infiniband_cm", "ports"))
_PARTS = re.compile(r"virtio\d+|[\w-]+\.(?:sf|rdma|roce|iwarp)(?:\.\d+)?|vdpa\w*|vhost-vdpa-\d+")
_LINKS = re.compile(r"driver|iommu_group|physfn|virtfn\d+|upper_.+")
_MAC = re.compile(r"(?:[0-9a-f]{2}:)+[0-9a-f]{2}")
_NAME_WITH_MAC = re.compile(r"enx[0-9a-f]{12}")
_LONG = 8  # bytes of a GUID
_IB_CORE = "module/ib_core/parameters"
_MISC = ("rdma_cm", "vhost-net", "tun")


@dataclass(frozen=True, slots=True)
class Facts:
    """What sysfs does not have of a node.

    `settings` goes by PF address and VF index, `ddp` and `eswitches` by PCI address, `permanent_macs` by a PF's netdev;
    `default_routes` and `addressed` are names of netdevs; `loadable` are drivers that are not loaded, but could be.
    `is_recorded` is False for a bare copy of sysfs, beside which nothing was recorded.
    """

    settings: Mapping[str, Mapping[int, VfSettings]] = field(default_factory=dict)
    permanent_macs: Mapping[str, str] = field(default_factory=dict)
    default_routes: frozenset[str] = frozenset()
    addressed: frozenset[str] = frozenset()
    ddp: Mapping[str, str] = field(default_factory=dict)
    eswitches: Mapping[str, Eswitch] = field(default_factory=dict)
    loadable: frozenset[str] = frozenset()
    is_recorded: bool = True


@dataclass(frozen=True, slots=True)
class _Tree:
    """`netlink.json`: the keys of Facts under the names of the file."""

    vf_settings: Mapping[str, Mapping[str, VfSettings]] = field(default_factory=dict)
    permanent_macs: Mapping[str, str] = field(default_factory=dict)
    default_routes: tuple[str, ...] = ()
    addressed: tuple[str, ...] = ()
    ddp_profiles: Mapping[str, str] = field(default_factory=dict)
    eswitches: Mapping[str, Eswitch] = field(default_factory=dict)
    loadable_drivers: tuple[str, ...] = ()


def read_facts(root: Path) -> Facts:
    """Read what was recorded beside a sysfs tree; where nothing was, nothing is known. Raises DeviceError on junk."""
    try:
        tree = build(_Tree, parse_object(read_file(root / FACTS)))
        return Facts(
            settings={
                pf: {int(index): values for index, values in vfs.items()} for pf, vfs in tree.vf_settings.items()
            },
            permanent_macs=tree.permanent_macs,
            default_routes=frozenset(tree.default_routes),
            addressed=frozenset(tree.addressed),
            ddp=tree.ddp_profiles,
            eswitches=tree.eswitches,
            loadable=frozenset(tree.loadable_drivers),
        )
    except FileNotFoundError:
        return Facts(is_recorded=False)
    except (OSError, ValueError) as error:
        raise DeviceError(f"reading the recorded node {root} failed: {FACTS} is not as written: {error}") from error


def write_facts(root: Path, facts: Facts) -> None:
    """Write what `read_facts` reads."""
    tree = {
        "vf_settings": {
            pf: {str(index): asdict(settings) for index, settings in vfs.items()} for pf, vfs in facts.settings.items()
        },
        "permanent_macs": dict(facts.permanent_macs),
        "default_routes": sorted(facts.default_routes),
        "addressed": sorted(facts.addressed),
        "ddp_profiles": dict(facts.ddp),
        "eswitches": {address: asdict(eswitch) for address, eswitch in facts.eswitches.items()},
        "loadable_drivers": sorted(facts.loadable),
    }
    (root / FACTS).write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def record(root: Path, node: Node, facts: Facts, target: Path, names: "Pseudonyms | None" = None) -> None:
    """Save a node, whose sysfs is at `root`, in an empty or new folder. Raises DeviceError when that cannot be.

    `names` are those that stand for MACs and ids already, where more than this is written of the node.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise DeviceError(f"recording into {target} failed: the folder is not empty", hint="name a new one")
        _Recorder(root, target, names or Pseudonyms()).record(node, facts)
    except OSError as error:
        raise DeviceError(f"recording into {target} failed: {error.strerror}: {error.filename}") from error


class _Recorder:
    """Copies one node."""

    def __init__(self, root: Path, target: Path, names: "Pseudonyms") -> None:
        self._root = root
        self._target = target
        self._names = names

    def record(self, node: Node, facts: Facts) -> None:
        """Copy everything that a snapshot looks at."""
        pfs = (*node.pfs, *node.accelerators)
        for address in (*(pf.address for pf in pfs), *(vf.address for pf in pfs for vf in pf.vfs)):
            folder = self._copy_entry("bus/pci/devices", address)
            self._copy_group(Folder(str(folder)))
        for name in Folder(str(self._root / "bus/vdpa/devices")).names:
            self._copy_entry("bus/vdpa/devices", name)
        for name in Folder(str(self._root / "bus/pci/drivers")).names:
            (self._target / "bus/pci/drivers" / name).mkdir(parents=True, exist_ok=True)
        for name in _MISC:
            if (self._root / "class/misc" / name).exists():
                (self._target / "class/misc" / name).mkdir(parents=True)
        self._copy_text(Folder(str(self._root / _IB_CORE)), "netns_mode", self._target / _IB_CORE)
        netdevs = [n.name for pf in pfs for n in (pf.netdev, *(vf.netdev for vf in pf.vfs)) if n]
        stacked = self._copy_stack(netdevs)
        write_facts(self._target, self._disguise(facts, {*netdevs, *stacked}))

    def _copy_entry(self, bus: str, name: str) -> Path:
        """Copy a device and the link of its bus to it; gives the device's folder."""
        link = self._root / bus / name
        (self._target / bus).mkdir(parents=True, exist_ok=True)
        target = os.readlink(link)  # noqa: PTH115 (the text matters: it stays as it is)
        (self._target / bus / name).symlink_to(target)
        inner = os.path.relpath(os.path.normpath(self._root / bus / target), self._root)
        self._copy(Folder(str(self._root / inner)), self._target / inner)
        return self._root / inner

    def _copy(self, folder: Folder, target: Path, *, all_parts: bool = False) -> None:
        """Copy what we know of a folder: attributes, links, and folders of the parts that a function has."""
        target.mkdir(parents=True, exist_ok=True)
        for name in sorted(folder.names):
            path, copied = Path(folder.path) / name, target / self._names.replace(name)
            if path.is_symlink():
                if _LINKS.fullmatch(name) and not copied.is_symlink():
                    copied.symlink_to(folder.target(name) or "")
            elif path.is_dir():
                listing = name in _LISTINGS
                if name == "pkeys":
                    self._copy_text(folder.folder(name), "0", copied)
                elif listing or (all_parts and folder.name in _LISTINGS) or _PARTS.fullmatch(name):
                    self._copy(folder.folder(name), copied, all_parts=listing)
            elif name in _ATTRIBUTES:
                self._copy_text(folder, name, target)

    def _copy_text(self, folder: Folder, name: str, target: Path) -> None:
        text = folder.text(name)
        if text is not None:
            target.mkdir(parents=True, exist_ok=True)
            hidden = self._names.replace_id(text) if name == "phys_switch_id" else self._names.replace(text)
            (target / name).write_text(f"{hidden}\n", encoding="utf-8")

    def _copy_group(self, folder: Folder) -> None:
        group = folder.link("iommu_group")
        if group:
            inner = f"kernel/iommu_groups/{group}"
            (self._target / inner).mkdir(parents=True, exist_ok=True)
            self._copy_text(Folder(str(self._root / inner)), "name", self._target / inner)

    def _copy_stack(self, netdevs: Iterable[str]) -> list[str]:
        """Copy what is stacked on netdevs, as folders of `class/net`; gives their names."""
        waiting, seen = list(netdevs), set[str]()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            uppers = [u for u in Folder(str(self._root / "class/net" / name)).names if u.startswith("upper_")]
            folder = self._target / "class/net" / self._names.replace(name)
            folder.mkdir(parents=True, exist_ok=True)
            for upper in uppers:
                (folder / upper).symlink_to(f"../{upper.removeprefix('upper_')}")
            waiting += [upper.removeprefix("upper_") for upper in uppers]
        return sorted(seen)

    def _disguise(self, facts: Facts, netdevs: set[str]) -> Facts:
        """Leave out interfaces that are none of the node's PCI functions, and replace MACs."""
        settings = {
            pf: {index: self._disguise_vf(vf) for index, vf in vfs.items()} for pf, vfs in facts.settings.items()
        }
        return replace(
            facts,
            settings=settings,
            permanent_macs={
                self._names.replace(name): self._names.replace(mac) for name, mac in facts.permanent_macs.items()
            },
            default_routes=frozenset(map(self._names.replace, facts.default_routes & netdevs)),
            addressed=frozenset(map(self._names.replace, facts.addressed & netdevs)),
        )

    def _disguise_vf(self, vf: VfSettings) -> VfSettings:
        mac, *guids = (self._names.replace(text) if text else None for text in (vf.mac, vf.node_guid, vf.port_guid))
        return replace(vf, mac=mac or vf.mac, node_guid=guids[0], port_guid=guids[1])


class Pseudonyms:
    """Numbers in place of MACs and ids, the same number for the same original."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def replace(self, text: str) -> str:
        """A MAC, a GUID, an address of IPoIB, or a name with a MAC in it, with another one; anything else as it is."""
        if _NAME_WITH_MAC.fullmatch(text):
            return f"enx{self._make_mac(':'.join(re.findall('..', text[3:]))).replace(':', '')}"
        return self._make_mac(text) if _MAC.fullmatch(text) and len(text) >= len(ZERO_MAC) else text

    def replace_id(self, text: str) -> str:
        """A switch id with another one."""
        return f"{self._number(text):016x}" if text else text

    def _make_mac(self, mac: str) -> str:
        if not mac.replace(":", "").strip("0"):
            return mac
        octets = mac.count(":") + 1
        number = self._number(mac if octets <= _LONG else mac[-3 * _LONG + 1 :])  # an address of IPoIB ends in a GUID
        own = bytes([2, *bytes(min(octets, _LONG) - 4), *number.to_bytes(3, "big")])
        return (bytes(octets - len(own)) + own).hex(":")

    def _number(self, original: str) -> int:
        return self._numbers.setdefault(original, len(self._numbers) + 1)
