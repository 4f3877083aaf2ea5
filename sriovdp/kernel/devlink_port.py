"""The MAC of a VF as its devlink port has it: the way where a PF's netdev takes none, as some do in switchdev mode.

`devlink port function set … hw_addr` (Documentation/networking/devlink/devlink-port.rst), in our own few messages for
the reason of `sriovdp.kernel.eswitch`.
"""

import errno
import struct

from sriovdp.errors import KernelError
from sriovdp.kernel.generic import GENERIC, HEAD, find_family
from sriovdp.kernel.rtnl import codec
from sriovdp.kernel.rtnl.requests import Requests

_GET, _SET = 5, 6  # DEVLINK_CMD_PORT_*
_BUS, _DEVICE, _INDEX, _FLAVOUR, _VF, _FUNCTION, _EXTERNAL = 1, 2, 3, 77, 128, 145, 149  # DEVLINK_ATTR_*
_HW_ADDR = 1  # DEVLINK_PORT_FUNCTION_ATTR_HW_ADDR
_OF_VF = 4  # DEVLINK_PORT_FLAVOUR_PCI_VF
_U16 = struct.Struct("=H")


def set_vf_mac(pf: str, index: int, mac: str) -> None:
    """Set the MAC of a VF. `pf` is a PCI address. Raises KernelError, with EOPNOTSUPP where the VF has no port."""
    requests = Requests(GENERIC)
    try:
        device = codec.encode_text(_BUS, "pci") + codec.encode_text(_DEVICE, pf)
        port = _find_port(requests, pf, index)
        if port is None:
            raise KernelError(f"VF {index} has no devlink port", errno=errno.EOPNOTSUPP)
        function = codec.nest(_FUNCTION, codec.encode(_HW_ADDR, bytes.fromhex(mac.replace(":", ""))))
        body = HEAD.pack(_SET, 1, 0) + device + codec.encode(_INDEX, codec.U32.pack(port)) + function
        requests.ask(find_family("devlink"), codec.ACK, body, f"setting MAC {mac} of VF {index} by its devlink port")
    finally:
        requests.close()


def _find_port(requests: Requests, pf: str, index: int) -> int | None:
    """Number of a VF's port; those of another host's VFs are external. The kernel lists the ports of all devices."""
    answers = requests.ask(
        find_family("devlink"), codec.DUMP, HEAD.pack(_GET, 1, 0), f"listing the devlink ports of {pf}"
    )
    for answer in answers:
        places = codec.index_attributes(answer, HEAD.size)
        if _VF not in places or codec.read_text(answer, *places[_DEVICE]) != pf:
            continue
        number: int = _U16.unpack_from(answer, places[_VF][0])[0]
        flavour: int = _U16.unpack_from(answer, places[_FLAVOUR][0])[0]
        is_external = _EXTERNAL in places and bool(answer[places[_EXTERNAL][0]])
        if (number, flavour) == (index, _OF_VF) and not is_external:
            port: int = codec.U32.unpack_from(answer, places[_INDEX][0])[0]
            return port
    return None
