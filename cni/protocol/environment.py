"""The CNI_* variables of a request, judged as libcni's skeleton for plugins judges them (pkg/skel, pkg/utils)."""

import os
import re
from collections.abc import Mapping
from functools import cache

from cni.protocol.keys import is_ifname
from cni.protocol.spec import INVALID_CONFIG, INVALID_ENVIRONMENT, INVALID_NETNS
from cni.protocol.wire import Request
from sriovdp.errors import CniError
from sriovdp.kernel import netns

_CONTAINER_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "STATUS": (),
    "GC": (),
    "VERSION": (),
}
COMMANDS = frozenset(_REQUIRED)
"""All that CNI_COMMAND can be."""


def check_environment(request: Request) -> None:
    """Raise CniError for an unknown command, missing variables (all of them at once), and names that cannot be."""
    if request.command not in _REQUIRED:
        raise CniError(
            INVALID_ENVIRONMENT, f"unknown CNI_COMMAND: {request.command}", hint=f"it is one of {', '.join(_REQUIRED)}"
        )
    if request.is_delegated:
        raise CniError(
            INVALID_CONFIG, "ipam.type leads to sriovdp itself", hint="set it to an IPAM plugin, like host-local"
        )
    values = {"CNI_CONTAINERID": request.container_id, "CNI_NETNS": request.netns, "CNI_IFNAME": request.ifname}
    required = _REQUIRED[request.command]
    if missing := [name for name in required if not values[name]]:
        raise CniError(INVALID_ENVIRONMENT, f"required env variables [{','.join(missing)}] missing")
    if "CNI_CONTAINERID" in required and not _CONTAINER_ID.fullmatch(request.container_id):
        raise CniError(INVALID_ENVIRONMENT, f"CNI_CONTAINERID {request.container_id!r} has invalid characters")
    if "CNI_IFNAME" in required and not is_ifname(request.ifname):
        raise CniError(INVALID_ENVIRONMENT, f"CNI_IFNAME {request.ifname!r} is no name for an interface")


def require_sandbox(request: Request, netns_fd: int | None) -> int:
    """The fd of CNI_NETNS. Raises CniError when it could not be opened, is no namespace, or is the host's."""
    if netns_fd is None:
        why = os.strerror(request.netns_errno) if request.netns_errno else "it was not opened"
        raise CniError(INVALID_NETNS, f"opening CNI_NETNS {request.netns!r} failed: {why}")
    if not netns.is_namespace(netns_fd):
        raise CniError(
            INVALID_NETNS,
            f"CNI_NETNS {request.netns!r} is no network namespace",
            hint="its bind mount is gone; the runtime has to make the sandbox again",
        )
    if netns.identify(netns_fd) == _host():
        raise CniError(INVALID_NETNS, f"CNI_NETNS {request.netns!r} is the host's own network namespace")
    return netns_fd


@cache
def _host() -> netns.NetnsId:
    return netns.identify("/proc/self/ns/net")
