"""What holds where the config file says nothing: the one place for it. `validate --show-defaults` shows the result."""

from typing import Final

from sriovdp.model import KERNEL_DRIVER

PREFIX: Final = "intel.com"
"""Domain of a pool's resource, as upstream has it."""

DEVICE_TYPE: Final = "netDevice"
EXCLUDE_TOPOLOGY: Final = False
NUMA: Final = True
ORDER: Final = "packed"
HEALTH: Final = ("driver", "deviceNodes")

DRIVER: Final = KERNEL_DRIVER
MAC: Final = "stable"
NOIOMMU: Final = False
EXTERNALLY_MANAGED: Final = False
ALLOW_HOST_UPLINK: Final = False

CDI: Final = False
NODE_PERMISSIONS: Final = "rw"
MOUNT_READ_ONLY: Final = True
