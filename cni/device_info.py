"""The device-info file of the Device Information Specification 1.1.0, which Multus puts into the network status.

Multus names the file in runtimeConfig; it is ours to write where the device plugin has not written one (section 5.1.2).
"""

import json
from pathlib import Path

from sriovdp.errors import SriovdpError
from sriovdp.kernel.sysfs import Sysfs, read_link

_VERSION = "1.1.0"


def write_device_info(path: str, sysfs: Sysfs, address: str) -> bool:
    """Write the file unless it is there. Gives whether it was written. Raises SriovdpError."""
    pci = {"pci-address": address}
    if pf := read_link(sysfs.pci(address) / "physfn"):
        pci["pf-pci-address"] = pf
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("x") as stream:
            json.dump({"type": "pci", "version": _VERSION, "pci": pci}, stream)
    except FileExistsError:
        return False
    except OSError as error:
        raise SriovdpError(f"writing the device-info file {path} failed: {error.strerror}") from error
    return True
