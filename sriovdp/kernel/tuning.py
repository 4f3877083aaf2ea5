"""All that a program with NET_ADMIN can change of a netdev and that stays with it when it changes its namespace.

Four interfaces of the kernel have it: rtnetlink, sysfs (NAPI, queues), ethtool (the driver) and BPF. The kernel itself
drops the rest, as `sriovdp.kernel.rtnl.tuning` says.
"""

import os

from sriovdp.errors import KernelError
from sriovdp.kernel.bpf import list_tcx_programs
from sriovdp.kernel.ethtool import read_ethtool
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.rtnl.tuning import Tuning

# Documentation/ABI/testing/sysfs-class-net and sysfs-class-net-queues; what the kernel only reports is left out
_NAPI = ("threaded", "gro_flush_timeout", "napi_defer_hard_irqs")
_RX_QUEUE = ("rps_cpus", "rps_flow_cnt")
_BYTE_LIMITS = tuple(f"byte_queue_limits/{name}" for name in ("limit_min", "limit_max", "hold_time", "stall_thrs"))
_TX_QUEUE = ("xps_cpus", "xps_rxqs", "tx_maxrate", *_BYTE_LIMITS)


def read_tuning(netlink: Netlink, netdev: str) -> tuple[Link, Tuning] | None:
    """A netdev of this namespace and how it is tuned; None when it is gone. `netdev` is its folder in sysfs.

    Raises KernelError when something of it cannot be read.
    """
    name = netdev.rpartition("/")[2]
    found = netlink.find_with_tuning(name)
    if found is None:
        return None
    link, tuning = found
    return link, {
        **tuning,
        **read_ethtool(name, link.ifindex),
        **list_tcx_programs(link.ifindex),
        **_read_sysfs(netdev),
    }


def _read_sysfs(netdev: str) -> dict[str, str]:
    try:
        folder = os.open(netdev, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(f"reading {netdev} failed: {error.strerror}", errno=error.errno or 0) from error
    try:
        found = {name: _read(folder, name) for name in _NAPI}
        for queue in os.listdir(f"/proc/self/fd/{folder}/queues"):  # noqa: PTH208 - names only
            names = _RX_QUEUE if queue.startswith("rx-") else _TX_QUEUE
            found[queue] = " ".join([_read(folder, f"queues/{queue}/{name}") for name in names])
    finally:
        os.close(folder)
    return found


def _read(folder: int, name: str) -> str:
    """An attribute; nothing for one that this kernel, driver or device does not have."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return "-"
    try:
        return os.read(descriptor, 4096).decode().strip()
    except OSError:
        return "-"
    finally:
        os.close(descriptor)
