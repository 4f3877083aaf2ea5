"""What devlink reports of PCI functions. A kernel or a driver without devlink reports nothing, which is no error."""

import errno
from collections.abc import Mapping
from pathlib import Path

from sriovdp.errors import KernelError

_WITHOUT = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EPERM})  # no devlink to ask

_DDP_DRIVER = Path("/sys/bus/pci/drivers/ice")  # the only one that reports it
_DDP_NAME = "fw.app.name"  # Documentation/networking/devlink/ice.rst


def list_ddp_profiles() -> Mapping[str, str]:
    """Name of the loaded DDP package by PCI address; functions without one are left out. Raises KernelError."""
    if not _DDP_DRIVER.is_dir():
        return {}  # the agent asks every few seconds, and this way to ask costs half of its look at the node
    from sriovdp.kernel.devlink_info import list_running  # noqa: PLC0415 - pyroute2 costs 23 MiB; few nodes have an ice

    try:
        return {address: value for address, name, value in list_running() if name == _DDP_NAME}
    except KernelError as error:
        if error.errno not in _WITHOUT:
            raise
        return {}
