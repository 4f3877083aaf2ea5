"""What devlink reports of PCI functions. A kernel or a driver without devlink reports nothing, which is no error."""

import errno
import struct
from collections.abc import Mapping
from pathlib import Path

from sriovdp.errors import KernelError
from sriovdp.kernel.rtnl import codec
from sriovdp.kernel.rtnl.codec import encode_text, index_attributes, list_attributes, read_text
from sriovdp.kernel.rtnl.requests import Requests

_GENERIC = 16  # NETLINK_GENERIC
_CONTROLLER = 16  # GENL_ID_CTRL of linux/genetlink.h
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2  # CTRL_*
_INFO_GET, _BUS, _DEVICE, _RUNNING, _VERSION_NAME, _VERSION = 51, 1, 2, 101, 103, 104  # DEVLINK_* of linux/devlink.h
_HEAD = struct.Struct("=BBH")  # struct genlmsghdr
_ID = struct.Struct("=H")
_WITHOUT = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EPERM})  # no devlink to ask

_DDP_DRIVER = Path("/sys/bus/pci/drivers/ice")  # the only one that reports it
_DDP_NAME = "fw.app.name"  # Documentation/networking/devlink/ice.rst


def list_ddp_profiles() -> Mapping[str, str]:
    """Name of the loaded DDP package by PCI address; functions without one are left out. Raises KernelError."""
    if not _DDP_DRIVER.is_dir():
        return {}  # the agent asks every few seconds, and this way to ask costs half of its look at the node
    requests = Requests(_GENERIC)
    try:
        answers = _dump_info(requests)
    except KernelError as error:
        if error.errno not in _WITHOUT:
            raise
        return {}
    finally:
        requests.close()
    return {address: name for address, name in map(_read_ddp, answers) if name}


def _dump_info(requests: Requests) -> list[bytes]:
    query = _HEAD.pack(_GET_FAMILY, 1, 0) + encode_text(_FAMILY_NAME, "devlink")
    found = requests.ask(_CONTROLLER, 0, query, "looking up devlink")[0]
    family = _ID.unpack_from(found, index_attributes(found, _HEAD.size)[_FAMILY_ID][0])[0]
    return requests.ask(family, codec.DUMP, _HEAD.pack(_INFO_GET, 1, 0), "reading the devlink information of all NICs")


def _read_ddp(message: bytes) -> tuple[str, str]:
    """PCI address of a device, and the name of its DDP package; empty where it has none."""
    found = index_attributes(message, _HEAD.size)
    bus, device = (read_text(message, *found[kind]) if kind in found else "" for kind in (_BUS, _DEVICE))
    for kind, start, end in list_attributes(message, _HEAD.size):
        if kind == _RUNNING and bus == "pci":
            parts = index_attributes(message, start, end)
            version = {part: read_text(message, *place) for part, place in parts.items()}
            if version.get(_VERSION_NAME) == _DDP_NAME:
                return device, version.get(_VERSION, "")
    return device, ""
