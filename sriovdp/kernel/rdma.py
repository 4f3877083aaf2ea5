"""RDMA devices of a function, from the folders that its driver makes below it in sysfs.

Soft RoCE on a function's netdev is not below the function: it names its netdev as its parent. The kernel removes it
when that netdev changes its network namespace (drivers/infiniband/sw/rxe/rxe_net.c, rxe_notify), so no pod can get it.
"""

from collections.abc import Mapping

from sriovdp.kernel.sysfs import Folder
from sriovdp.model import RdmaDevice, RdmaMode

_CHARACTER_CLASSES = ("infiniband_verbs", "infiniband_mad", "infiniband_cm")
_AUXILIARY = (
    ".rdma.",
    ".roce.",
    ".iwarp.",
)  # drivers/net/ethernet/mellanox/mlx5/core/dev.c, include/linux/net/intel/iidc.h
_MODES: Mapping[str, RdmaMode] = {"Y": "shared", "N": "exclusive"}


def read_mode(root: Folder) -> RdmaMode | None:
    """In which mode the RDMA subsystem is (`rdma system show`): a parameter of its module, which follows each change.

    None when no driver has loaded it, or for a kernel without modes (before Linux 5.3).
    """
    return _MODES.get(root.folder("module/ib_core/parameters").text("netns_mode") or "")


def list_soft_rdma(root: Folder) -> dict[str, list[str]]:
    """Names of soft RoCE devices, by their netdev (drivers/infiniband/sw/rxe/rxe_verbs.c, parent_show)."""
    found: dict[str, list[str]] = {}
    for device in root.folder("class").folders("infiniband"):
        if netdev := device.text("parent"):
            found.setdefault(netdev, []).append(device.name)
    return found


def list_rdma(function: Folder, *, has_cm: bool) -> tuple[RdmaDevice, ...]:
    """RDMA devices of a function that this network namespace sees. `has_cm`: the node has /dev/infiniband/rdma_cm."""
    nodes = [node for name in _CHARACTER_CLASSES for node in function.folders(name)]
    cm = "/dev/infiniband/rdma_cm" if has_cm else None
    found = []
    for device in function.folders("infiniband"):
        paths = {
            node.name.rstrip("0123456789"): f"/dev/infiniband/{node.name}" for node in nodes if _is_of(node, device)
        }
        kinds = {kind: paths.get(kind) for kind in ("uverbs", "umad", "issm", "ucm")}
        found.append(RdmaDevice(device.name, **kinds, cm=cm))
    return tuple(found)


def is_rdma(function: Folder) -> bool:
    """Whether a function can do RDMA, also while its RDMA device is in another namespace: its driver's part stays."""
    if "infiniband" in function.names:
        return True
    listed = " ".join(function.names)
    if not any(word in listed for word in _AUXILIARY):  # quick, as nearly all functions end here
        return False
    parts = (name for name in function.names if any(word in name for word in _AUXILIARY))
    return any(function.folder(part).link("driver") for part in parts)


def read_p_key(function: Folder) -> str | None:
    """Default partition key of the first port, like `0xffff`."""
    for device in function.folders("infiniband"):
        for port in device.folders("ports"):
            return port.folder("pkeys").text("0")
    return None


def _is_of(node: Folder, device: Folder) -> bool:
    return node.text("ibdev") == device.name
