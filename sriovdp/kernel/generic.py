"""Generic netlink families: the number that the kernel gave to each, which is the same until the next boot."""

import struct
from functools import cache

from sriovdp.kernel.rtnl.codec import encode_text, index_attributes
from sriovdp.kernel.rtnl.requests import Requests

GENERIC = 16  # NETLINK_GENERIC
HEAD = struct.Struct("=BBH")
"""struct genlmsghdr: command, version, reserved."""

_CONTROLLER, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2  # of linux/genetlink.h
_ID = struct.Struct("=H")


@cache
def find_family(name: str) -> int:
    """The number of a family. Raises KernelError, with ENOENT when this kernel does not have it."""
    requests = Requests(GENERIC)
    try:
        query = HEAD.pack(_GET_FAMILY, 1, 0) + encode_text(_FAMILY_NAME, name)
        found = requests.ask(_CONTROLLER, 0, query, f"looking up the netlink family {name}")[0]
    finally:
        requests.close()
    family: int = _ID.unpack_from(found, index_attributes(found, HEAD.size)[_FAMILY_ID][0])[0]
    return family
