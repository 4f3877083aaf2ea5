"""Whether this node's policy allows what a network asks for."""

from collections.abc import Iterator
from typing import Any

from cni.policy import Policy, find_place
from cni.protocol.bridging import Bridging
from cni.protocol.netconf import NetConf
from cni.protocol.network_keys import KEYS, Key
from cni.protocol.spec import INVALID_CONFIG
from sriovdp.errors import CniError

_SHOWN = 5  # VLANs that an error names


def check_permission(conf: NetConf, policy: Policy) -> None:
    """Raise CniError with code 7 that names each forbidden key, and the policy's own key."""
    refusals = list_refusals(conf, policy)
    if refusals:
        message = "; ".join(refusal.message for refusal in refusals)
        raise CniError(INVALID_CONFIG, message, hint=refusals[0].hint)


def list_refusals(conf: NetConf, policy: Policy) -> list[CniError]:
    """What the policy forbids of a network, a fault for each key."""
    refusals = [
        _refuse(key, value, f"cni.{key.policy}")
        for key, value in _values(conf)
        if key.forbids and key.forbids(policy, value)
    ]
    if conf.bridging and (message := _find_strange_vlans(conf.bridging, policy)):
        refusals.append(CniError(INVALID_CONFIG, message, hint="name other VLANs, or allow them in the agent's config"))
    if conf.device_info and find_place(conf.device_info, policy.device_info_folders) is None:
        folders = ", ".join(map(str, policy.device_info_folders)) or "no folder"
        refusals.append(
            CniError(
                INVALID_CONFIG,
                f"runtimeConfig.CNIDeviceInfoFile is {conf.device_info!r}, but this node allows {folders} "
                "(cni.deviceInfoFolders)",
                hint="leave the key to Multus, or add its folder to cni.deviceInfoFolders in the agent's config",
            )
        )
    return refusals


def _find_strange_vlans(wanted: Bridging, policy: Policy) -> str:
    """What of a representor's VLANs the node does not allow. Without any, a bridge may pass all that a pod tags."""
    if not wanted.vlans and policy.vlans != Policy().vlans:
        return "representor has neither vlan nor trunk, and this node does not allow all VLANs (cni.allow.vlans)"
    strange = [str(vlan) for vlan in wanted.vlans if not policy.allows_vlan(vlan)]
    shown = ", ".join(strange[:_SHOWN]) + (f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else "")
    return f"representor has VLAN {shown}, which this node does not allow (cni.allow.vlans)" if strange else ""


def _values(conf: NetConf) -> Iterator[tuple[Key, Any]]:
    """The keys that the network has a value for."""
    for key in KEYS:
        value = conf.settings.get(key.field) if key.on_pf else getattr(conf, key.field, None) if key.field else None
        if value is not None:
            yield key, value


def _refuse(key: Key, value: Any, policy: str) -> CniError:
    shown = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
    return CniError(
        INVALID_CONFIG,
        f"{key.name} is {shown}, which this node does not allow ({policy})",
        hint=f"leave {key.name} out, or allow it by {policy} in the agent's config",
    )
