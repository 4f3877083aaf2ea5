"""RDMA devices that go with a VF into a pod's network namespace, and come back.

They go before the netdev does and come back before it: IPoIB makes a new netdev on the host when its RDMA device
changes its namespace. A device is known by its index there, as the pod may rename it.
"""

import errno
import logging
import time
from collections.abc import Mapping, Sized

from cni.protocol.spec import DEVICE_FAILURE
from cni.vf.homecoming import host_namespace
from sriovdp.errors import CniError, KernelError, VerifyError
from sriovdp.kernel import netns, rdma_netlink
from sriovdp.kernel.device_name import DeviceName
from sriovdp.kernel.netdevs import find_netdev
from sriovdp.kernel.rdma import list_soft_rdma, read_mode
from sriovdp.kernel.sysfs import Folder, Sysfs, list_names
from sriovdp.model import PciAddress
from sriovdp.state.journal import Attachment

logger = logging.getLogger(__name__)

_NODES = ("infiniband_verbs", "infiniband_mad")
_PATIENCE = 0.5  # seconds; the kernel takes some 10-100 ms to bring a dead namespace's devices home
_BIND_PATIENCE = 10.0  # seconds; some drivers make their RDMA device a while after the probe
_PAUSE = 0.02
_LOOKS = 3


def list_names_of(sysfs: Sysfs, address: PciAddress) -> list[str]:
    """Names of a VF's RDMA devices that are on the host."""
    return list_names(sysfs.pci(address) / "infiniband")


def list_nodes_of(sysfs: Sysfs, address: PciAddress) -> list[str]:
    """Names of the device nodes of a VF's RDMA devices, like `uverbs1`; those of devices in a pod too."""
    return [name for kind in _NODES for name in list_names(sysfs.pci(address) / kind)]


def check_isolation(sysfs: Sysfs, vf: object, address: PciAddress, *, is_bound: bool) -> None:
    """Raise CniError when the VF's RDMA device cannot go into a pod's network namespace.

    Where the VF is not yet `is_bound` to its kernel driver, it has no RDMA device to look for.
    """
    if soft := _list_soft(sysfs, address):
        raise CniError(
            DEVICE_FAILURE,
            f"{vf}: rdmaIsolation is true, but it has soft RoCE only ({', '.join(soft)}), which cannot go into a pod: "
            "the kernel removes it when the netdev does",
            hint="leave rdmaIsolation out, or use a NIC with RDMA of its own",
        )
    if not _is_exclusive(sysfs):
        raise CniError(
            DEVICE_FAILURE,
            f"{vf}: rdmaIsolation is true, but the RDMA subsystem of this node is in shared mode",
            hint="write `options ib_core netns_mode=0` into a file of /etc/modprobe.d and boot this node again, or "
            "leave rdmaIsolation out; `sriovdp discover` shows the mode",
        )
    if is_bound:
        _require(list_names_of(sysfs, address), vf)


def mention_device(sysfs: Sysfs, vf: object, address: PciAddress) -> None:
    """Log that the VF's RDMA device stays on the host, where a network in exclusive mode leaves it, or is removed."""
    if soft := _list_soft(sysfs, address):
        logger.warning(
            "%s: its soft RoCE (%s) is lost: the kernel removes it when its netdev goes into the pod",
            vf,
            ", ".join(soft),
        )
    if (names := list_names_of(sysfs, address)) and _is_exclusive(sysfs):
        logger.info(
            "%s: RDMA device %s stays on the host, where the pod cannot use it, unless the plugin `rdma` of this chain "
            "moves it; set rdmaIsolation to let it go with the VF",
            *(vf, ", ".join(names)),
        )


def _is_exclusive(sysfs: Sysfs) -> bool:
    return read_mode(Folder(str(sysfs.root))) == "exclusive"


def _list_soft(sysfs: Sysfs, address: PciAddress) -> list[str]:
    """Names of the soft RoCE devices on a VF's netdev; of a VF with an RDMA device of its own nobody asks."""
    if list_names_of(sysfs, address):
        return []
    soft = list_soft_rdma(Folder(str(sysfs.root)))
    return soft.get(find_netdev(sysfs, address) or "", []) if soft else []


def _require(devices: Sized, vf: object) -> None:
    if not devices:
        raise CniError(
            DEVICE_FAILURE,
            f"{vf}: rdmaIsolation is true, but it has no RDMA device",
            hint="load the RDMA module of its driver, like mlx5_ib, or leave rdmaIsolation out",
        )


def identify(sysfs: Sysfs, address: PciAddress) -> dict[str, int]:
    """A VF's RDMA devices on the host: their names, with the kernel's indices. Raises KernelError.

    Looked for again when udev renames one meanwhile.
    """
    found: dict[str, int] = {}
    for _ in range(_LOOKS):
        names = list_names_of(sysfs, address)
        found = {name: index for index, name in rdma_netlink.list_devices().items() if name in names}
        if len(found) == len(names):
            break
    return found


def identify_all(sysfs: Sysfs, vf: object, address: PciAddress) -> dict[str, int]:
    """As `identify`. Raises CniError when there is none."""
    found = identify(sysfs, address)
    _require(found, vf)
    return found


def move_into(devices: Mapping[str, int], netns_fd: int) -> None:
    """Move RDMA devices of the host into a sandbox, and look for them there. Raises KernelError, VerifyError."""
    for name, index in devices.items():
        try:
            rdma_netlink.move_device(index, netns_fd, f"moving RDMA device {name} into the sandbox")
        except KernelError as error:
            if error.errno == errno.EOPNOTSUPP:
                error.hint = "its driver cannot take it away from programs that have it open; leave rdmaIsolation out"
            raise
    if missing := find_missing(devices, netns_fd):
        raise VerifyError(f"RDMA device {', '.join(missing)} was moved into the sandbox but is not there")


def find_missing(devices: Mapping[str, int], netns_fd: int) -> list[str]:
    """Those of the devices that are not in a sandbox. Raises KernelError."""
    there = netns.run_in(netns_fd, rdma_netlink.list_devices) if devices else {}
    return [name for name, index in devices.items() if index not in there]


def fetch_home(sysfs: Sysfs, attachment: Attachment, netns_fd: int | None) -> bool:
    """Get the RDMA devices that went with the VF back. Gives whether they are.

    They are not when the pod moved one on to another namespace, or when the kernel is not done with the sandbox in
    time.
    """
    devices = dict(attachment.rdma)
    if not devices:
        return True
    if netns_fd is not None:
        try:
            with host_namespace() as host_fd:
                netns.run_in(netns_fd, _send_home, devices, host_fd)
        except KernelError as error:
            name = DeviceName(sysfs, attachment.device)
            logger.warning("%s: its RDMA device did not leave the sandbox of %s: %s", name, attachment.owner, error)
    address = PciAddress(attachment.device)
    return _wait(sysfs, address, len(devices), _PATIENCE if netns_fd is None else 0)


def _send_home(devices: Mapping[str, int], host_fd: int) -> None:
    """Run in the sandbox."""
    there = rdma_netlink.list_devices()
    for index in sorted(set(devices.values()) & set(there)):
        rdma_netlink.move_device(index, host_fd, f"moving RDMA device {there[index]} to the host")


def _wait(sysfs: Sysfs, address: PciAddress, count: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while len(list_names_of(sysfs, address)) < count:
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def restore_names(sysfs: Sysfs, address: PciAddress, names: list[str]) -> None:
    """Give the RDMA devices of a VF the names of before; to be called when its driver has made them.

    A name that another device has by now is a warning. Raises VerifyError when one is missing, KernelError.
    """
    if not _wait(sysfs, address, len(names), _BIND_PATIENCE):
        raise VerifyError(f"its RDMA device {', '.join(names)} did not come back: it has {_list(sysfs, address)}")
    present = identify(sysfs, address)
    free = sorted(set(names) - set(present))
    for name, other in zip(free, sorted(set(present) - set(names)), strict=False):
        try:
            rdma_netlink.rename_device(present[other], name)
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
            vf = DeviceName(sysfs, address)
            logger.warning("%s: another RDMA device has its name %s now, so it is called %s", vf, name, other)


def check_nodes(sysfs: Sysfs, address: PciAddress, before: list[str]) -> None:
    """Raise VerifyError when the device nodes are others than those that the container was given."""
    if (now := list_nodes_of(sysfs, address)) != before:
        raise VerifyError(
            f"binding its driver again changed its device nodes from {', '.join(before)} to {', '.join(now) or 'none'}",
            hint="the pod has the old ones: delete it, so that another one gets the new ones",
        )


def _list(sysfs: Sysfs, address: PciAddress) -> str:
    return ", ".join(list_names_of(sysfs, address)) or "none"
