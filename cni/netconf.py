"""The network configuration of `type: sriov`: parsed and judged before anything is read or locked."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cni.spec import DECODING_FAILURE, INVALID_CONFIG, UNSUPPORTED_FIELD, check_version
from sriovdp.errors import CniError, DeviceError
from sriovdp.model import PciAddress

_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")  # as libcni has it, pkg/utils
_MAX_VLAN = 4094
_MAX_QOS = 7


@dataclass(frozen=True, slots=True)
class NetConf:
    """A checked network configuration.

    `settings` holds what the PF shall set for the VF, with the names and values of VfSettings; what the configuration
    does not name is not in it and stays as it is. `raw` is the configuration as it came, for the IPAM plugin.
    """

    name: str
    version: str
    device: PciAddress | None
    mac: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    ipam: str | None = None
    dns: Mapping[str, Any] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)

    def require_device(self) -> PciAddress:
        """The VF's address. Raises CniError saying where it should have come from when there is none."""
        if self.device is None:
            raise CniError(
                INVALID_CONFIG,
                f"network {self.name!r} names no VF: deviceID is missing",
                hint="give the NetworkAttachmentDefinition the annotation k8s.v1.cni.cncf.io/resourceName, and let the "
                "pod request that resource",
            )
        return self.device


def parse_netconf(stdin: bytes, args: str = "") -> NetConf:
    """Read the configuration from the plugin's stdin; `args` are CNI_ARGS (`MAC=...` counts).

    A MAC of runtimeConfig wins over one of CNI_ARGS, and that over the one of the configuration.
    Raises CniError with the code of the specification, naming key and value.
    """
    raw = _decode(stdin)
    version = raw.get("cniVersion")
    check_version(version if isinstance(version, str) else "")
    name = raw.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _fault("name", name, "letters, digits, '_', '.' and '-', beginning with a letter or digit")
    runtime = raw.get("runtimeConfig") or {}
    device = raw.get("deviceID") or runtime.get("deviceID")
    ipam = raw.get("ipam") or {}
    if not isinstance(ipam, dict):
        raise _fault("ipam", ipam, "an object with a type")
    return NetConf(
        name=name,
        version=raw["cniVersion"],
        device=_parse_device(device) if device else None,
        mac=_parse_mac(runtime.get("mac") or _parse_args(args).get("MAC") or raw.get("mac")),
        settings=_parse_settings(raw),
        ipam=ipam.get("type") or None,
        dns=raw.get("dns") or {},
        raw=raw,
    )


def _decode(stdin: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(stdin)
    except ValueError as error:
        raise CniError(DECODING_FAILURE, f"the network configuration is no JSON: {error}") from None
    if not isinstance(raw, dict):
        raise CniError(DECODING_FAILURE, "the network configuration is no JSON object")
    return raw


def _fault(key: str, value: Any, allowed: str, code: int = INVALID_CONFIG) -> CniError:
    return CniError(code, f"{key} is {json.dumps(value)}", hint=f"it must be {allowed}")


def _parse_device(value: Any) -> PciAddress:
    try:
        return PciAddress.parse(str(value))
    except DeviceError:
        raise _fault("deviceID", value, "the PCI address of a VF, like 0000:3b:02.6") from None


def _parse_mac(value: Any) -> str | None:
    if not value:
        return None
    mac = str(value).lower().replace("-", ":")
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise _fault("mac", value, "a unicast MAC address like 02:00:00:00:00:01")
    return mac


def _parse_args(args: str) -> dict[str, str]:
    pairs = [pair.split("=", 1) for pair in args.split(";") if pair]
    if any(len(pair) != 2 for pair in pairs):  # noqa: PLR2004 - a pair has two sides
        raise _fault("CNI_ARGS", args, "KEY=VALUE pairs joined by ';'")
    return dict(pairs)


def _parse_settings(raw: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, target, parse in _SETTINGS:
        if raw.get(key) is not None:
            settings[target] = parse(key, raw[key])
    _check_vlan_group(raw, settings)
    least, most = settings.get("min_tx_rate", 0), settings.get("max_tx_rate", 0)
    if most and least > most:
        raise _fault("min_tx_rate", least, f"at most max_tx_rate, which is {most}")
    return settings


def _check_vlan_group(raw: Mapping[str, Any], settings: dict[str, Any]) -> None:
    for key, target in (("vlanQoS", "qos"), ("vlanProto", "vlan_proto")):
        if target in settings and not settings.get("vlan"):
            plain = (0, "802.1Q")
            if "vlan" not in settings or settings[target] not in plain:
                raise _fault(key, raw[key], "left out unless vlan is from 1 to 4094")
    if "vlan" in settings:
        settings.setdefault("qos", 0)
        settings.setdefault("vlan_proto", "802.1Q")
    if settings.get("vlan_proto") == "802.1ad":
        raise _fault("vlanProto", raw["vlanProto"], '"802.1q"; 802.1ad is not supported yet', UNSUPPORTED_FIELD)


def _number(most: int) -> Callable[[str, Any], int]:
    def parse(key: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise _fault(key, value, f"a number from 0 to {most}")
        return value

    return parse


def _choice(choices: Mapping[str, Any]) -> Callable[[str, Any], Any]:
    def parse(key: str, value: Any) -> Any:
        if not isinstance(value, str) or value.lower() not in choices:
            raise _fault(key, value, " or ".join(f'"{choice}"' for choice in choices))
        return choices[value.lower()]

    return parse


_SWITCH = _choice({"on": True, "off": False})
_MAX_RATE = 2**32 - 1  # Mbit/s in a u32

_SETTINGS: tuple[tuple[str, str, Callable[[str, Any], Any]], ...] = (
    ("vlan", "vlan", _number(_MAX_VLAN)),
    ("vlanQoS", "qos", _number(_MAX_QOS)),
    ("vlanProto", "vlan_proto", _choice({"802.1q": "802.1Q", "802.1ad": "802.1ad"})),
    ("min_tx_rate", "min_tx_rate", _number(_MAX_RATE)),
    ("max_tx_rate", "max_tx_rate", _number(_MAX_RATE)),
    ("spoofchk", "spoofchk", _SWITCH),
    ("trust", "trust", _SWITCH),
    ("link_state", "link_state", _choice({"auto": "auto", "enable": "enable", "disable": "disable"})),
)
