"""What devlink tells of PCI functions. A kernel or a driver without devlink tells nothing, which is no error."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg, nla
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

_INFO_GET = 51  # DEVLINK_CMD_INFO_GET of linux/devlink.h
_DDP_DRIVER = Path("/sys/bus/pci/drivers/ice")  # the only one that tells of it
_DDP_NAME = "fw.app.name"  # Documentation/networking/devlink/ice.rst


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


def list_ddp_profiles() -> Mapping[str, str]:
    """Name of the DDP package that is loaded, by PCI address; functions without one are left out."""
    if not _DDP_DRIVER.is_dir():
        return {}  # the agent asks every few seconds, and this way to ask costs half of its look at the node
    found = {}
    for info in _dump_info():
        if info.get("DEVLINK_ATTR_BUS_NAME") != "pci":
            continue
        for version in info.get_attrs("DEVLINK_ATTR_INFO_VERSION_RUNNING"):
            if version.get("DEVLINK_ATTR_INFO_VERSION_NAME") == _DDP_NAME:
                found[info.get("DEVLINK_ATTR_DEV_NAME")] = version.get("DEVLINK_ATTR_INFO_VERSION_VALUE")
    return found


def _dump_info() -> list[Any]:
    message = _Info()
    message["cmd"], message["version"] = _INFO_GET, 1
    with GenericNetlinkSocket() as socket:
        try:
            socket.bind("devlink", _Info)
            return list(socket.nlm_request(message, msg_type=socket.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP))
        except NetlinkError:
            return []
