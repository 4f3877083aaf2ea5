"""Device-info files: what Multus gives to the CNI plugin, and the pod's status, about a device.

Device Information Specification 1.1.0 of the Network Plumbing Working Group; names of files and of keys are those of
network-attachment-definition-client, pkg/utils/cniconfig.go and pkg/apis/k8s.cni.cncf.io/v1/types.go.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from sriovdp.config.values import Pool
from sriovdp.model import VirtualFunction
from sriovdp.pools.assignment import Offer
from sriovdp.state.files import check_writable, write_whole

_VERSION = "1.1.0"
_ENDING = "-device.json"
_ID = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def describe(pool: Pool, offer: Offer) -> dict[str, Any] | None:
    """The content of a device's file; None for what has none: subfunctions and accelerators, as upstream."""
    if pool.device_type != "netDevice":
        return None
    function = offer.candidate.function
    common: dict[str, str | None] = {"pci-address": offer.id}
    if isinstance(function, VirtualFunction):
        common |= {"pf-pci-address": function.pf_address, "representor-device": function.representor}
    kind = offer.selector.vdpa_type
    vdpa = next((device for device in offer.candidate.traits.vdpa if device.kind == kind), None) if kind else None
    if vdpa:
        own = {"parent-device": vdpa.name, "driver": vdpa.kind, "path": vdpa.node}
        return {"type": "vdpa", "version": _VERSION, "vdpa": _drop_empty(own | common)}
    rdma = ",".join(device.name for device in offer.candidate.traits.rdma) if offer.selector.is_rdma else None
    own = {"rdma-device": rdma, "vhost-net": "/dev/vhost-net" if offer.selector.need_vhost_net else None}
    return {"type": "pci", "version": _VERSION, "pci": _drop_empty(common | own)}


def _drop_empty(keys: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in keys.items() if value}


class DeviceInfoFiles:
    """The files of device plugins, usually in /var/run/k8s.cni.cncf.io/devinfo/dp."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, pool: Pool, offer: Offer) -> None:
        """Write a device's file, unless it has none or has it already. Raises OSError."""
        content = describe(pool, offer)
        if content is None:
            return
        path, text = self._directory / _name(pool, offer.id), json.dumps(content)
        if not path.is_file() or path.read_text() != text:
            write_whole(path, text, mode=0o444)

    def check_writable(self) -> None:
        """Raises OSError when no file can be written."""
        check_writable(self._directory)

    def remove_others(self, pool: Pool, held: Collection[str]) -> None:
        """Remove the files of the pool's devices that are not in `held`."""
        for path, id_ in self._list(pool):
            if id_ not in held:
                path.unlink(missing_ok=True)

    def _list(self, pool: Pool) -> Iterator[tuple[Path, str]]:
        """Files of a pool with their devices; those of a pool whose name only begins alike are not among them."""
        start = _name(pool, "").removesuffix(_ENDING)
        for path in self._directory.glob("*" + _ENDING):
            id_ = path.name.removeprefix(start).removesuffix(_ENDING)
            if path.name.startswith(start) and _ID.fullmatch(id_):
                yield path, id_


def _name(pool: Pool, id_: str) -> str:
    return f"{pool.resource}-{id_}".replace("/", "-") + _ENDING
