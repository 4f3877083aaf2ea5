"""The network configuration of `type: sriov`: parsed and judged before anything is read or locked."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cni.protocol import keys
from cni.protocol.keys import fault
from cni.protocol.keys_2017 import KEYS as LEGACY_KEYS
from cni.protocol.keys_2017 import Legacy, parse_legacy
from cni.protocol.spec import DECODING_FAILURE, INVALID_CONFIG, Result, check_version, parse_result
from sriovdp.errors import CniError
from sriovdp.limits import MAX_MTU, MAX_QOS, MAX_RATE, MAX_VLAN, MIN_MTU
from sriovdp.model import KERNEL_DRIVER, PciAddress

Dad = Literal["optimistic", "wait", "off"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")  # as libcni has it, pkg/utils
_SYSCTL = re.compile(r"net/(?:ipv4|ipv6|mpls)/(?:conf|neigh)/IFNAME/[a-z0-9_]+")
_BRACKET = re.compile(rb"[\[\]{}]")
_MAX_DEPTH = 100

_SWITCH = keys.choice({"on": True, "off": False})
_SETTINGS: tuple[tuple[str, str, keys.Parse], ...] = (
    ("vlan", "vlan", keys.number(0, MAX_VLAN)),
    ("vlanQoS", "qos", keys.number(0, MAX_QOS)),
    ("vlanProto", "vlan_proto", keys.choice({"802.1q": "802.1Q", "802.1ad": "802.1ad"}, fold=True)),
    ("min_tx_rate", "min_tx_rate", keys.number(0, MAX_RATE)),
    ("max_tx_rate", "max_tx_rate", keys.number(0, MAX_RATE)),
    ("spoofchk", "spoofchk", _SWITCH),
    ("trust", "trust", _SWITCH),
    ("link_state", "link_state", keys.choice({word: word for word in ("auto", "enable", "disable")})),
)
_DRIVERS = ("kernel", "vfio-pci", "igb_uio", "uio_pci_generic")
_LEVELS = {"panic": 50, "error": 40, "warning": 30, "info": 20, "debug": 10}
_OTHERS: tuple[tuple[str, str, keys.Parse], ...] = (
    ("mtu", "mtu", keys.number(MIN_MTU, MAX_MTU)),
    ("promisc", "promisc", keys.flag),
    ("allmulti", "allmulti", keys.flag),
    ("driver", "driver", keys.choice({name: name for name in _DRIVERS})),
    ("onUnsupported", "skips_unsupported", keys.choice({"fail": False, "warn": True})),
    ("dad", "dad", keys.choice({word: word for word in ("optimistic", "wait", "off")})),
    ("logLevel", "log_level", keys.choice(_LEVELS)),
    ("logFile", "log_file", keys.absolute_path),
)
_STANDARD = ("cniVersion", "name", "type", "ipam", "dns", "capabilities", "prevResult", "runtimeConfig", "args")
_KNOWN = (*_STANDARD, *LEGACY_KEYS, "deviceID", "pciBusID", "mac", "sysctl", *(key for key, *_ in _SETTINGS + _OTHERS))
_RUNTIME_KEYS = ("mac", "ips", "deviceID", "CNIDeviceInfoFile")


@dataclass(frozen=True, slots=True)
class Network:
    """What every verb needs: the network's name, the version of the answer, and all of it for the IPAM plugin."""

    name: str
    version: str
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state_folder(self) -> str | None:
        """Folder of the 2017 plugin's state (`cniDir`), where the configuration names one."""
        folder = self.raw.get("cniDir")
        return folder if isinstance(folder, str) else None


@dataclass(frozen=True, slots=True)
class NetConf:
    """A checked network configuration.

    `settings` holds what the PF shall set for the VF, with the names and values of VfSettings; what the configuration
    does not name is not in it and stays as it is, and None elsewhere says the same. `sysctls` are paths below
    /proc/sys with IFNAME for the interface. `raw` is the configuration with its keys spelled as documented.
    """

    name: str
    version: str
    device: PciAddress | None
    mac: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    mtu: int | None = None
    promisc: bool | None = None
    allmulti: bool | None = None
    driver: str | None = None
    skips_unsupported: bool = False
    dad: Dad = "optimistic"
    sysctls: Mapping[str, str] = field(default_factory=dict)
    log_level: int = _LEVELS["info"]
    log_file: str = ""
    device_info: str = ""
    ipam: str | None = None
    dns: Mapping[str, Any] = field(default_factory=dict)
    legacy: Legacy | None = None
    previous: Result | None = None
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


def parse_network(stdin: bytes, command: str = "") -> Network:
    """Read name and version from the plugin's stdin, and nothing else: DEL must not fail for a wrong VLAN.

    For DEL the name may be missing, and is empty then. Raises CniError, also when the version has no such command.
    """
    raw = _decode(stdin)
    version = raw.get("cniVersion")
    checked = check_version(version if isinstance(version, str) else json.dumps(version) if version else "", command)
    if raw.get("name") == "":
        del raw["name"]  # what Multus makes of a delegate without one
    if raw.get("name") is None and isinstance(raw.get("if0"), str):
        # the plugin of 2017 was given none; IPAM plugins of today insist on one
        raw["name"] = f"sriov-{re.sub('[^a-zA-Z0-9_.-]', '-', raw['if0'])}"
    name = raw.get("name")
    if command == "DEL" and name is None:
        name = ""  # no ADD was ever served so, and the sandbox must be able to go
    elif not isinstance(name, str) or not _NAME.fullmatch(name):
        raise fault("name", name, "letters, digits, '_', '.' and '-', beginning with a letter or digit")
    ipam = raw.get("ipam")
    if ipam is not None and not isinstance(ipam, dict):
        raise fault("ipam", ipam, "an object with a type")
    legacy = raw.get("if0") is not None
    if legacy and (raw.get("dpdk") or raw.get("l2enable") in (True, "true")):
        raw.pop("ipam", None)
    return Network(name, checked, raw)


def parse_netconf(stdin: bytes, args: str = "", command: str = "") -> NetConf:
    """Read the whole configuration from the plugin's stdin; `args` are CNI_ARGS (`MAC=...` counts).

    A MAC of runtimeConfig wins over one of CNI_ARGS, and that over the one of the configuration.
    Raises CniError with the code of the specification, naming key and value.
    """
    network = parse_network(stdin, command)
    raw = network.raw
    runtime = keys.section(raw, "runtimeConfig", _RUNTIME_KEYS)
    legacy = parse_legacy(raw)
    device = _parse_device(raw, runtime)
    others = keys.parse_all(raw, _OTHERS)
    if legacy and legacy.driver:
        others.setdefault("driver", legacy.driver)
    conf = NetConf(
        name=network.name,
        version=network.version,
        device=device,
        mac=_parse_mac(raw, runtime, args),
        settings=_parse_settings(raw, vlan_0_is_none=legacy is not None and device is None),
        sysctls=_parse_sysctls(raw),
        device_info=keys.absolute_path("runtimeConfig.CNIDeviceInfoFile", runtime.get("CNIDeviceInfoFile") or ""),
        ipam=_parse_ipam(raw),
        dns=keys.section(raw, "dns"),
        legacy=legacy,
        previous=_parse_previous(raw),
        raw=raw,
        **others,
    )
    if conf.ipam == "dhcp" and conf.driver not in {None, KERNEL_DRIVER}:
        raise fault("ipam.type", conf.ipam, f"another one with driver {conf.driver}: there is no netdev to ask with")
    return conf


def _decode(stdin: bytes) -> dict[str, Any]:
    try:
        _check_depth(stdin)
        raw = json.loads(stdin)
    except (ValueError, RecursionError) as error:
        raise CniError(
            DECODING_FAILURE, f"the network configuration is no JSON: {error}", hint="it comes on stdin"
        ) from None
    if not isinstance(raw, dict):
        raise CniError(DECODING_FAILURE, "the network configuration is no JSON object", hint="it comes on stdin")
    return keys.fold_keys(raw, _KNOWN)


def _check_depth(stdin: bytes) -> None:
    """Raise ValueError for what is nested so deeply that Python's recursion could end in parsing or in writing it.

    Brackets in texts count too, which is far from what any network has.
    """
    depth = deepest = 0
    if stdin.count(b"[") + stdin.count(b"{") > _MAX_DEPTH:
        for byte in _BRACKET.findall(stdin):
            depth += 1 if byte in b"[{" else -1
            deepest = max(deepest, depth)
    if deepest > _MAX_DEPTH:
        raise ValueError(f"it is nested {deepest} levels deep, more than {_MAX_DEPTH}")


def _parse_device(raw: Mapping[str, Any], runtime: Mapping[str, Any]) -> PciAddress | None:
    for key, value in (
        ("deviceID", raw.get("deviceID")),
        ("runtimeConfig.deviceID", runtime.get("deviceID")),
        ("pciBusID", raw.get("pciBusID")),
    ):
        if value:
            return keys.device(key, value)
    return None


def _parse_mac(raw: Mapping[str, Any], runtime: Mapping[str, Any], args: str) -> str | None:
    sources = (
        ("runtimeConfig.mac", runtime.get("mac")),
        ("MAC of CNI_ARGS", keys.parse_args(args).get("MAC")),
        ("mac", raw.get("mac")),
    )
    parsed = [keys.mac(key, value) for key, value in sources if value]
    return parsed[0] if parsed else None


def _parse_ipam(raw: Mapping[str, Any]) -> str | None:
    kind = keys.section(raw, "ipam").get("type")
    if kind and not keys.is_ipam_plugin(kind, raw.get("type")):
        raise fault("ipam.type", kind, "the name of an IPAM plugin in CNI_PATH, and not of this plugin")
    return kind or None


def _parse_previous(raw: Mapping[str, Any]) -> Result | None:
    try:
        return parse_result(raw["prevResult"]) if raw.get("prevResult") else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CniError(DECODING_FAILURE, f"prevResult is no result of a CNI plugin: {error}") from None


def _parse_sysctls(raw: Mapping[str, Any]) -> dict[str, str]:
    """Sysctls of the interface, in the form of the tuning plugin; they vanish with the interface from the pod."""
    sysctls = {}
    for name, value in keys.section(raw, "sysctl").items():
        path = name.replace(".", "/")
        if not _SYSCTL.fullmatch(path) or not isinstance(value, str):
            raise fault(f"sysctl.{name}", value, 'a text, for a name like "net.ipv4.conf.IFNAME.arp_filter"')
        sysctls[path] = value
    return sysctls


def _parse_settings(raw: Mapping[str, Any], *, vlan_0_is_none: bool) -> dict[str, Any]:
    settings = keys.parse_all(raw, _SETTINGS)
    if vlan_0_is_none and settings.get("vlan") == 0:
        del settings["vlan"]
    _check_vlan_group(raw, settings)
    least, most = settings.get("min_tx_rate", 0), settings.get("max_tx_rate", 0)
    if most and least > most:
        raise fault("min_tx_rate", least, f"at most max_tx_rate, which is {most}")
    return settings


def _check_vlan_group(raw: Mapping[str, Any], settings: dict[str, Any]) -> None:
    for key, target in (("vlanQoS", "qos"), ("vlanProto", "vlan_proto")):
        if target in settings and not settings.get("vlan"):
            plain = (0, "802.1Q")
            if "vlan" not in settings or settings[target] not in plain:
                raise fault(key, raw[key], f"left out unless vlan is from 1 to {MAX_VLAN}")
    if "vlan" in settings:
        settings.setdefault("qos", 0)
        settings.setdefault("vlan_proto", "802.1Q")
