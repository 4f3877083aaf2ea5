"""What a network says of InfiniBand: the GUID, and which keys mean nothing there.

As ib-sriov-cni reads it (cmd/ib-sriov-cni/main.go, pkg/types/types.go): `infinibandGUID` of runtimeConfig, then `guid`
of `args.cni`. Its first versions and its README have a key `guid` too.
"""

from collections.abc import Mapping
from typing import Any

from cni.protocol import keys
from cni.protocol.keys import Findings, fault
from cni.protocol.spec import INVALID_CONFIG
from sriovdp.errors import CniError

TYPE = "ib-sriov"

_STATUS, _CONFIGURED = "mellanox.infiniband.app", "configured"  # what ib-kubernetes writes into a pod's cni-args
_SETTINGS = frozenset({"link_state"})  # what IPoIB has of a VF's settings (ipoib_main.c, ipoib_netdev_ops_pf)
_VLAN = frozenset({"vlan", "qos", "vlan_proto"})


def read_guid(raw: Mapping[str, Any], runtime: Mapping[str, Any]) -> str | None:
    """The GUID that is asked for. Raises CniError."""
    sources = (
        ("runtimeConfig.infinibandGUID", runtime.get("infinibandGUID")),
        ("args.cni.guid", _read_args(raw).get("guid")),
        ("guid", raw.get("guid")),
    )
    guids = [guid for key, value in sources if value is not None and (guid := keys.guid(key, value))]
    return guids[0] if guids else None


def _read_args(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """`args.cni`, into which Multus puts the pod's `cni-args`; empty for whatever else is there."""
    args = raw.get("args")
    given = args.get("cni") if isinstance(args, Mapping) else None
    return given if isinstance(given, Mapping) else {}


def require_ib_kubernetes(raw: Mapping[str, Any], guid: str | None) -> None:
    """Raise CniError when the network wants ib-kubernetes, and that has not given the pod its GUID."""
    if raw.get("ibKubernetesEnabled") is not True:
        return
    status = _read_args(raw).get(_STATUS)
    if status == _CONFIGURED and guid:
        return
    why = "no GUID is given" if status == _CONFIGURED else f"{_STATUS} of args.cni is {status!r}, not {_CONFIGURED!r}"
    raise CniError(
        INVALID_CONFIG,
        f"ibKubernetesEnabled is true, but {why}",
        hint="ib-kubernetes gives the pod its GUID, and its log has the reason; or leave ibKubernetesEnabled out",
    )


def select(
    settings: Mapping[str, Any], rest: Mapping[str, Any], findings: Findings
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and other values without those that InfiniBand has not.

    ib-sriov-cni does not read them, so they are warnings; but for a VLAN, which keeps pods apart where there is one.
    """
    if settings.get("vlan"):
        findings.faults.append(
            fault("vlan", settings["vlan"], "left out on InfiniBand: partitions keep pods apart there")
        )
    idle = [name for name in settings if name not in _SETTINGS | _VLAN]
    findings.warnings += [f"{name} has no effect on InfiniBand" for name in idle]
    if rest.get("mac"):
        findings.warnings.append("mac has no effect on InfiniBand: an interface has a GUID there, by `guid`")
    if rest.get("ipam") == "dhcp":
        findings.faults.append(
            fault("ipam.type", "dhcp", "another one on InfiniBand: the plugin dhcp has Ethernet only")
        )
    return {name: value for name, value in settings.items() if name in _SETTINGS}, {**rest, "mac": None}
