"""What this node allows to the author of a network. The agent builds it from its config; the plugin only asks it.

Who may create a NetworkAttachmentDefinition is not root on the node.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

STATE_FOLDER = Path("/var/lib/cni/sriov")
"""Where sriov-cni, and the plugin of 2017 unless `cniDir` says otherwise, keep their state."""


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
    """

    log_folders: tuple[Path, ...] = (Path("/var/log"),)
    device_info_folders: tuple[Path, ...] = (Path("/var/run/k8s.cni.cncf.io/devinfo/cni"),)
    state_folders: tuple[Path, ...] = (Path("/var/lib/cni"),)


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
