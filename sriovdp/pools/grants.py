"""What containers were given, on disk.

The kubelet starts a container again with what its checkpoint says, even after a reboot. By then a VF can be another one
at the same address, or be in another VFIO group.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sriovdp.pools.allocation import Access
from sriovdp.pools.assignment import Offer
from sriovdp.reading import UnreadableError, build, parse_object, read_file
from sriovdp.state.files import check_writable, write_whole

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Grant:
    """What a device was when it was given. `part` says which part of its PF it is, like `VF 3 of 0000:3b:00.0`.

    `mac` is that of a function without a PF here, as in a virtual machine: another one can be at its address later.
    """

    device: str
    part: str
    driver: str | None
    nodes: tuple[tuple[str, str], ...] = ()
    mounts: tuple[tuple[str, str], ...] = ()
    mac: str | None = None

    @classmethod
    def of(cls, offer: Offer, access: Access) -> "Grant":
        """What giving this device now gives."""
        whole = offer.candidate.kind == "PF" and offer.candidate.device_type == "netDevice"
        return cls(
            offer.id,
            f"{offer.candidate.kind} {offer.candidate.index} of {offer.candidate.pf.address}",
            offer.candidate.function.driver,
            tuple((node.host_path, node.container_path) for node in access.nodes),
            tuple((mount.host_path, mount.container_path) for mount in access.mounts),
            offer.candidate.netdev.mac if whole and offer.candidate.netdev else None,
        )

    def differences(self, now: "Grant") -> list[str]:
        """What is no longer as it was given, a sentence each. What came on top does not matter."""
        found = []
        if self.part != now.part:
            found.append(f"it was {self.part} and is {now.part}")
        if self.mac and now.mac and self.mac != now.mac:
            found.append(f"its MAC was {self.mac} and is {now.mac}: it is another function")
        if self.driver != now.driver:
            found.append(f"its driver was {self.driver or 'none'} and is {now.driver or 'none'}")
        for what, before, after in (("node", self.nodes, now.nodes), ("mount", self.mounts, now.mounts)):
            for source, target in before:
                if (source, target) not in after:
                    instead = ", ".join(pair[0] for pair in after if pair not in before)
                    found.append(f"the container has {what} {source}, and needs {instead or 'none'}")
        return found


class Grants:
    """The folder of grants: one JSON file for each device. `resource` is the pool's, like `intel.com/sriov`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, resource: str, grants: Sequence[Grant]) -> None:
        """Keep what was given. Raises OSError."""
        for grant in grants:
            text = json.dumps({"version": _VERSION, "resource": resource, **asdict(grant)})
            write_whole(self._path(resource, grant.device), text, mode=0o600)

    def find(self, resource: str, device: str) -> Grant | None:
        """What was given; None when that is not known: given by another device plugin, or its file is lost."""
        try:
            record = parse_object(read_file(self._path(resource, device)))
            is_ours = record.get("version") == _VERSION and record.get("resource") == resource
            return build(Grant, record) if is_ours else None
        except (OSError, UnreadableError):
            return None

    def remove_others(self, resource: str, held: Collection[str]) -> None:
        """Forget what the resource's devices were given for that are not in `held`, except for those with a MAC."""
        for path in self._directory.glob(f"{_folder(resource)}/*.json"):
            if path.stem not in held and not ((grant := self.find(resource, path.stem)) and grant.mac):
                path.unlink(missing_ok=True)

    def list_returned(self, resource: str) -> dict[str, str]:
        """Functions without a PF here that were given to a pod at any time, each with its MAC."""
        grants = (self.find(resource, path.stem) for path in self._directory.glob(f"{_folder(resource)}/*.json"))
        return {grant.device: grant.mac for grant in grants if grant and grant.mac}

    def check_writable(self) -> None:
        """Raises OSError when nothing can be kept."""
        check_writable(self._directory)

    def _path(self, resource: str, device: str) -> Path:
        return self._directory / _folder(resource) / f"{device}.json"


def _folder(resource: str) -> str:
    return resource.replace("/", "_")
