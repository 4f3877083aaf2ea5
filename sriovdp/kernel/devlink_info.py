"""The devlink request for what runs on NICs, by pyroute2: imported only on a node whose driver answers it."""

from collections.abc import Iterator
from typing import Any

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg, nla
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from sriovdp.errors import KernelError

_INFO_GET = 51  # DEVLINK_CMD_INFO_GET of linux/devlink.h


class _Info(genlmsg):  # type: ignore[misc]
    """The attributes of linux/devlink.h that are read here, by number."""

    nla_map = (
        (1, "DEVLINK_ATTR_BUS_NAME", "asciiz"),
        (2, "DEVLINK_ATTR_DEV_NAME", "asciiz"),
        (101, "DEVLINK_ATTR_INFO_VERSION_RUNNING", "version"),
    )

    class version(nla):  # type: ignore[misc] # noqa: N801 (pyroute2 finds it by this name)
        """One version: what of, and which."""

        nla_map = (
            (103, "DEVLINK_ATTR_INFO_VERSION_NAME", "asciiz"),
            (104, "DEVLINK_ATTR_INFO_VERSION_VALUE", "asciiz"),
        )


def list_running() -> Iterator[tuple[str, str, str]]:
    """PCI address, name and value of each version that runs on a NIC. Raises KernelError."""
    for info in _dump():
        if info.get("DEVLINK_ATTR_BUS_NAME") == "pci":
            for version in info.get_attrs("DEVLINK_ATTR_INFO_VERSION_RUNNING"):
                name, value = (version.get(f"DEVLINK_ATTR_INFO_VERSION_{part}") for part in ("NAME", "VALUE"))
                yield info.get("DEVLINK_ATTR_DEV_NAME"), name, value


def _dump() -> list[Any]:
    message = _Info()
    message["cmd"], message["version"] = _INFO_GET, 1
    try:
        with GenericNetlinkSocket() as socket:
            socket.bind("devlink", _Info)
            return list(socket.nlm_request(message, msg_type=socket.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP))
    except (NetlinkError, OSError) as error:
        number = error.code if isinstance(error, NetlinkError) else error.errno
        raise KernelError(f"reading the devlink information of all NICs failed: {error}", errno=number or 0) from error
