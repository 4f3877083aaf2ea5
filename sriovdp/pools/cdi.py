"""CDI specs: what a container runtime adds to a container that has a device, by the device's qualified name.

Container Device Interface 0.5.0, SPEC.md of tags.cncf.io/container-device-interface: the first version in which a
device may have another path on the host, and a name may begin with a digit. Kinds are those of
sriov-network-device-plugin, so that containers which it started can be started again.
"""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sriovdp.config.terms import DeviceType
from sriovdp.config.values import Pool
from sriovdp.errors import SriovdpError
from sriovdp.pools.allocation import Access
from sriovdp.state.files import write_whole

_VERSION = "0.5.0"
_START = "sriovdp-"
_UPSTREAM_START = "sriov-dp-"
_CLASSES: Mapping[DeviceType, str] = {"netDevice": "net-pci", "accelerator": "net-accel", "auxNetDevice": "net-sf"}
_VENDOR = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?")


def name_device(pool: Pool, id_: str) -> str:
    """Qualified name of a device. Raises SriovdpError when CDI cannot name it."""
    if not _VENDOR.fullmatch(pool.prefix):
        raise SriovdpError(
            f"{pool.resource} cannot be given through CDI, where {pool.prefix!r} would be the vendor",
            hint="a vendor begins with a letter: choose another resourcePrefix",
        )
    return f"{_kind(pool)}={id_}"


def write_spec(pool: Pool, accesses: Mapping[str, Access]) -> dict[str, Any]:
    """The spec of a pool's devices, which is a JSON object."""
    devices = [{"name": id_, "containerEdits": _edit(id_, access)} for id_, access in accesses.items()]
    return {"cdiVersion": _VERSION, "kind": _kind(pool), "devices": devices}


def _edit(id_: str, access: Access) -> dict[str, Any]:
    """What a device adds to a container. Never nothing, which no runtime accepts: a netdev VF needs nothing else."""
    edits: dict[str, Any] = {"env": [f"SRIOVDP_DEVICE_{re.sub('[^0-9A-Za-z]', '_', id_).upper()}={id_}"]}
    if access.nodes:
        edits["deviceNodes"] = [
            {"path": node.container_path, "hostPath": node.host_path, "permissions": node.permissions}
            for node in access.nodes
        ]
    if access.mounts:
        edits["mounts"] = [
            {
                "hostPath": mount.host_path,
                "containerPath": mount.container_path,
                "options": ["ro" if mount.read_only else "rw", "nosuid", "nodev", "bind"],
            }
            for mount in access.mounts
        ]
    return edits


def _kind(pool: Pool) -> str:
    return f"{pool.prefix}/{_CLASSES[pool.device_type]}"


class CdiSpecs:
    """Our spec files in a CDI folder, usually /var/run/cdi: one for each pool, with all devices it can give.

    `enabled`: containers are given their devices by these. Where they are no longer, a spec that is there stays and is
    kept true until no pod has a device of it: containers of a pod are started again with the names they were given.
    """

    def __init__(self, directory: Path, *, enabled: bool = True) -> None:
        self._directory = directory
        self.enabled = enabled

    def write(self, pool: Pool, accesses: Mapping[str, Access]) -> None:
        """Write a pool's spec, unless it is there already or not wanted. One without devices is invalid, and removed.

        Goes with it the file that upstream's plugin left for this pool: a device in two files is in none for a runtime.
        Raises SriovdpError when the folder cannot be written.
        """
        if not self.enabled and not self.has(pool):
            return
        path, text = self._path(pool), json.dumps(write_spec(pool, accesses), indent=1)
        try:
            if not accesses:
                path.unlink(missing_ok=True)
            elif not path.is_file() or path.read_text() != text:
                write_whole(path, text)
            for left in self._directory.glob(f"{_UPSTREAM_START}{_kind(pool).replace('/', '-')}-{pool.name}.*"):
                left.unlink(missing_ok=True)
        except OSError as error:
            raise SriovdpError(
                f"the CDI spec {path} cannot be written: {error.strerror}", hint="the folder has to be writable"
            ) from error

    def has(self, pool: Pool) -> bool:
        """Whether a spec of this pool is there."""
        return self._path(pool).is_file()

    def remove_unused(self, pool: Pool) -> None:
        """Remove the spec of a pool of which no pod has a device, unless specs are what containers are given."""
        if not self.enabled:
            self.remove(pool)

    def remove(self, pool: Pool) -> None:
        """Remove the spec of a pool. Raises OSError."""
        self._path(pool).unlink(missing_ok=True)

    def remove_others(self, pools: Collection[Pool]) -> None:
        """Remove our specs of all other pools: those of an earlier config."""
        kept = {self._path(pool) for pool in pools}
        for path in self._directory.glob(f"{_START}*.json"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _path(self, pool: Pool) -> Path:
        return self._directory / f"{_START}{_kind(pool).replace('/', '-')}-{pool.name}.json"
