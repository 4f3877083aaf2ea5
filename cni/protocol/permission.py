"""Whether this node's policy allows what a network asks for."""

from cni.policy import Policy, find_place
from cni.protocol.netconf import NetConf
from cni.protocol.spec import INVALID_CONFIG
from sriovdp.errors import CniError


def check_permission(conf: NetConf, policy: Policy) -> None:
    """Raise CniError with code 7 that names the key and the policy's own key."""
    if conf.device_info and find_place(conf.device_info, policy.device_info_folders) is None:
        folders = ", ".join(map(str, policy.device_info_folders)) or "no folder"
        raise CniError(
            INVALID_CONFIG,
            f"runtimeConfig.CNIDeviceInfoFile is {conf.device_info!r}, but this node allows {folders}",
            hint="leave the key to Multus, or add its folder to cni.deviceInfoFolders in the agent's config",
        )
