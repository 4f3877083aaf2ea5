"""RDMA devices of a function, from the folders that its driver makes below it in sysfs.

Soft RoCE on a function's netdev is not below the function: it names its netdev as its parent.
"""

from collections.abc import Sequence

from sriovdp.kernel.sysfs import Folder
from sriovdp.model import RdmaDevice

_CHARACTER_CLASSES = ("infiniband_verbs", "infiniband_mad", "infiniband_cm")
_AUXILIARY = (
    ".rdma.",
    ".roce.",
    ".iwarp.",
)  # drivers/net/ethernet/mellanox/mlx5/core/dev.c, include/linux/net/intel/iidc.h


def list_soft_rdma(root: Folder) -> dict[str, list[Folder]]:
    """Folders of soft RoCE devices, by their netdev (drivers/infiniband/sw/rxe/rxe_verbs.c, parent_show)."""
    found: dict[str, list[Folder]] = {}
    for device in root.folder("class").folders("infiniband"):
        if netdev := device.text("parent"):
            found.setdefault(netdev, []).append(device)
    return found


def list_rdma(function: Folder, *, has_cm: bool, soft: Sequence[Folder] = ()) -> tuple[RdmaDevice, ...]:
    """RDMA devices of a function that this network namespace sees. `has_cm`: the node has /dev/infiniband/rdma_cm.

    `soft` are the folders of its soft RoCE devices in `class/infiniband`; their nodes are beside them in `class`.
    """
    nodes = [node for name in _CHARACTER_CLASSES for node in function.folders(name)]
    own = function.folders("infiniband")
    others = [device for device in soft if device.name not in {known.name for known in own}]
    for device in others:
        classes = Folder(device.path.rpartition("/")[0].rpartition("/")[0])
        nodes += [node for name in _CHARACTER_CLASSES for node in classes.folders(name)]
    cm = "/dev/infiniband/rdma_cm" if has_cm else None
    found = []
    for device in (*own, *others):
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
