"""RDMA devices and network namespaces, by the kernel's own netlink protocol (rdma/rdma_netlink.h); pyroute2 lacks it.

In exclusive mode an RDMA device is in one network namespace, and only programs there can use it. When that namespace
ends, the kernel brings the device back to the host's by itself (drivers/infiniband/core/device.c, rdma_dev_exit_net).
A device's name is unique on the whole node, but who has it may change it; its index stays until its driver is bound
again.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sriovdp.kernel.rtnl import codec
from sriovdp.kernel.rtnl.codec import U32, encode, encode_text, index_attributes, read_text
from sriovdp.kernel.rtnl.requests import Requests

_RDMA = 20  # NETLINK_RDMA
_NLDEV = 5 << 10  # RDMA_NL_GET_TYPE of RDMA_NL_NLDEV
_GET, _SET, _SYS_SET = _NLDEV + 1, _NLDEV + 2, _NLDEV + 7
_DEV_INDEX, _DEV_NAME, _NETNS_MODE, _NET_NS_FD = 1, 2, 66, 68
# without it there is no RDMA here, and the socket alone would load the module
_CLASS = Path("/sys/class/infiniband")


def set_exclusive(*, enabled: bool) -> None:
    """Put the RDMA subsystem into exclusive or shared mode. Raises KernelError.

    With EBUSY while there is another network namespace than the host's (drivers/infiniband/core/device.c,
    rdma_compatdev_set).
    """
    what = f"setting RDMA mode {'exclusive' if enabled else 'shared'}"
    with _requests() as requests:
        requests.ask(_SYS_SET, codec.ACK, encode(_NETNS_MODE, bytes([not enabled])), what)


def list_devices() -> Mapping[int, str]:
    """Names of the RDMA devices of this thread's network namespace, by their indices. Raises KernelError."""
    if not _CLASS.is_dir():
        return {}
    with _requests() as requests:
        answers = requests.ask(_GET, codec.DUMP, b"", "listing the RDMA devices")
    found = [(answer, index_attributes(answer, 0)) for answer in answers]
    return {
        U32.unpack_from(answer, at[_DEV_INDEX][0])[0]: read_text(answer, *at[_DEV_NAME])
        for answer, at in found
        if _DEV_INDEX in at and _DEV_NAME in at
    }


def move_device(index: int, netns_fd: int, what: str) -> None:
    """Move an RDMA device of this thread's network namespace to another one; what has it open loses it.

    All that is built on it is made again: IPoIB makes a new netdev, in the host's namespace. Raises KernelError
    beginning with `what`; with EOPNOTSUPP in shared mode, or for a driver that cannot do it.
    """
    with _requests() as requests:
        requests.ask(_SET, codec.ACK, _encode(index) + encode(_NET_NS_FD, U32.pack(netns_fd)), what)


def rename_device(index: int, name: str) -> None:
    """Rename an RDMA device of this thread's network namespace. Raises KernelError, with EEXIST for a name in use."""
    with _requests() as requests:
        requests.ask(_SET, codec.ACK, _encode(index) + encode_text(_DEV_NAME, name), f"renaming RDMA device to {name}")


def _encode(index: int) -> bytes:
    return encode(_DEV_INDEX, U32.pack(index))


@contextmanager
def _requests() -> Iterator[Requests]:
    requests = Requests(_RDMA)
    try:
        yield requests
    finally:
        requests.close()
