"""What this node allows to the author of a network. The agent builds it from its config; the plugin only asks it.

Who may create a NetworkAttachmentDefinition is not root on the node.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

STATE_FOLDER = Path("/var/lib/cni/sriov")
"""Where sriov-cni, and the plugin of 2017 unless `cniDir` says otherwise, keep their state."""


Allocation = Literal["required", "when-known", "ignored"]


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder that a network names, below a folder of the node's policy."""

    folder: Path
    relative: str

    def __str__(self) -> str:
        return str(self.folder / self.relative)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a network may ask of this node.

    A network names files only below these folders: `log_folders` for `logFile`, `device_info_folders` for
    `CNIDeviceInfoFile` (Multus has its own below the default), `state_folders` for `cniDir`.

    The rest is which values are allowed: `trust: on`, `spoofchk: off`, `promisc: true`, `allmulti: true`, any `mac`,
    any `guid`, these `drivers`, port VLANs within these ranges (both ends count), and sysctls of these patterns, like
    `net.ipv4.conf.IFNAME.*`. The defaults are those of sriov-cni: all of them. `bridges` are those that
    representors may be put into: none by default, as who is in a bridge reaches what the node has there.

    `allocation` says whether the kubelet must have given a VF to the pod: always, where that can be known, or never.
    """

    log_folders: tuple[Path, ...] = (Path("/var/log"),)
    device_info_folders: tuple[Path, ...] = (Path("/var/run/k8s.cni.cncf.io/devinfo/cni"),)
    state_folders: tuple[Path, ...] = (Path("/var/lib/cni"),)
    trust: bool = True
    spoofchk_off: bool = True
    promisc: bool = True
    allmulti: bool = True
    mac: bool = True
    guid: bool = True
    drivers: frozenset[str] = frozenset({"kernel", "vfio-pci", "igb_uio", "uio_pci_generic"})
    vlans: tuple[tuple[int, int], ...] = ((0, 4094),)
    bridges: frozenset[str] = frozenset()
    sysctls: tuple[str, ...] = ("*",)
    allocation: Allocation = "when-known"

    def allows_vlan(self, vlan: int) -> bool:
        """Whether a port VLAN is in one of the ranges; 0 is to have none."""
        return any(first <= vlan <= last for first, last in self.vlans)

    def allows_sysctl(self, path: str) -> bool:
        """Whether a pattern takes the path below /proc/sys, with IFNAME for the interface."""
        return any(fnmatchcase(path, pattern.replace(".", "/")) for pattern in self.sysctls)


def find_place(path: str, folders: Iterable[Path]) -> Place | None:
    """Where an absolute path is among the folders; None when it is below none of them.

    The folder's real path serves as well, as /run does for /var/run. What is below is not looked at.
    """
    parts = Path(path).parts
    if not path.startswith("/") or ".." in parts or "\0" in path:
        return None
    for folder in folders:
        for spelled in (folder, folder.resolve()):
            if Path(*parts).is_relative_to(spelled):
                return Place(folder, str(Path(*parts).relative_to(spelled)))
    return None
