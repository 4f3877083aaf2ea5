"""The network configuration of `type: sriov` or `ib-sriov`: parsed and judged before anything is read or locked."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cni.protocol import infiniband, keys, network_keys
from cni.protocol.bridging import Bridging
from cni.protocol.decoding import decode
from cni.protocol.keys import Findings, fault
from cni.protocol.keys_2017 import Keys2017, combine, has_no_addresses, without_idle
from cni.protocol.network_keys import Key
from cni.protocol.spec import DECODING_FAILURE, INVALID_CONFIG, Result, check_version, parse_result
from sriovdp.errors import CniError
from sriovdp.limits import MAX_VLAN
from sriovdp.model import KERNEL_DRIVER, PciAddress
from sriovdp.vlans import VlanIds

Dad = Literal["optimistic", "wait", "off"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")  # as libcni has it, pkg/utils


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
    `warnings` are what a person may want to correct, a sentence each.
    """

    name: str
    version: str
    device: PciAddress | None
    mac: str | None = None
    guid: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    mtu: int | None = None
    promisc: bool | None = None
    allmulti: bool | None = None
    driver: str | None = None
    rdma_isolation: bool = False
    bridging: Bridging | None = None
    trunk: VlanIds | None = None
    skips_unsupported: bool = False
    dad: Dad = "optimistic"
    sysctls: Mapping[str, str] = field(default_factory=dict)
    log_level: int = network_keys.LEVELS[network_keys.DEFAULT_LEVEL]
    log_file: str = ""
    device_info: str = ""
    ipam: str | None = None
    dns: Mapping[str, Any] = field(default_factory=dict)
    keys_2017: Keys2017 | None = None
    previous: Result | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def infiniband(self) -> bool:
        """Whether the network is for InfiniBand only, by its type."""
        return bool(self.raw.get("type") == infiniband.TYPE)

    @property
    def pf(self) -> str | None:
        """The PF to take a VF of, by the keys of 2017; None when a `deviceID` alone names the VF."""
        return self.keys_2017.pf if self.keys_2017 else None

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
    return read_network(decode(stdin), command, Findings())


def parse_netconf(stdin: bytes, args: str = "", command: str = "") -> NetConf:
    """Read the whole configuration from the plugin's stdin; `args` are CNI_ARGS (`MAC=...` counts).

    A MAC of runtimeConfig wins over one of CNI_ARGS, and that over the one of the configuration.
    Raises CniError with the code of the specification, naming key and value of each fault.
    """
    findings = Findings()
    conf = read_netconf(decode(stdin), args, command, findings)
    findings.refuse()
    return conf


def read_network(document: Mapping[str, Any], command: str, findings: Findings) -> Network:
    """As `parse_network`, of a decoded document. Raises CniError."""
    raw = keys.fold_keys(document, network_keys.NAMES, findings, network_keys.SPELLINGS)
    version = raw.get("cniVersion")
    checked = check_version(version if isinstance(version, str) else json.dumps(version) if version else "", command)
    if raw.get("name") == "":
        del raw["name"]  # what Multus makes of a delegate without one
    pf = raw.get("if0") or raw.get("master")
    if raw.get("name") is None and isinstance(pf, str):
        # the plugin of 2017 was given none; IPAM plugins of today insist on one
        raw["name"] = f"sriov-{re.sub('[^a-zA-Z0-9_.-]', '-', pf)}"
    name = raw.get("name")
    if command == "DEL" and name is None:
        name = ""  # no ADD was ever served so, and the sandbox must be able to go
    elif not isinstance(name, str) or not _NAME.fullmatch(name):
        raise fault("name", name, "letters, digits, '_', '.' and '-', beginning with a letter or digit")
    ipam = raw.get("ipam")
    if ipam is not None and not isinstance(ipam, dict):
        raise fault("ipam", ipam, "an object with a type")
    if ipam:
        raw["ipam"] = _fold_type(ipam, findings)
    if has_no_addresses(raw) and raw.pop("ipam", None):
        findings.warnings.append("ipam has no effect with l2enable or dpdk")
    return Network(name, checked, raw)


def read_netconf(document: Mapping[str, Any], args: str, command: str, findings: Findings) -> NetConf:
    """As `parse_netconf`, of a decoded document; faults of keys go into `findings`, and their values are left out.

    Raises CniError for what leaves no network at all: version, name, a section of a wrong type.
    """
    network = read_network(document, command, findings)
    raw = network.raw
    runtime = {}
    with findings.collect():
        runtime = keys.section(raw, "runtimeConfig", findings, network_keys.RUNTIME_KEYS)
    device = None
    with findings.collect():
        device = _read_device(raw, runtime)
    values = _read_keys(raw, network_keys.of_fields(on_pf=False), findings)
    of_2017 = without_idle(raw, has_device=_has_device(raw, runtime))
    old = _read_keys(of_2017, network_keys.of_fields(on_pf=False, since_2017=True), findings)
    keys_2017 = combine(of_2017, old, findings)
    if keys_2017 and keys_2017.driver:
        values.setdefault("driver", keys_2017.driver)
    rest = _read_rest(raw, runtime, args, findings)
    settings = _read_settings(raw, findings, vlan_0_is_none=bool(keys_2017 and keys_2017.pf and device is None))
    if raw.get("type") == infiniband.TYPE:
        settings, rest = infiniband.select(settings, rest, findings)
    conf = NetConf(
        name=network.name,
        version=network.version,
        device=device,
        settings=settings,
        keys_2017=keys_2017,
        raw=raw,
        **values,
        **rest,
    )
    if conf.ipam == "dhcp" and conf.driver not in {None, KERNEL_DRIVER}:
        allowed = f"another one with driver {conf.driver}: there is no netdev to ask with"
        findings.faults.append(fault("ipam.type", conf.ipam, allowed))
    with findings.collect():
        conf = _place_trunk(conf)
    return replace(conf, warnings=tuple(findings.warnings))


def _place_trunk(conf: NetConf) -> NetConf:
    """In a bridge `vlanTrunk` is the trunk of the representor, and nothing is asked of the PF's driver."""
    if not conf.trunk:
        return conf
    if conf.bridging is None:
        if conf.settings.get("vlan"):
            raise fault(
                "vlanTrunk", conf.raw["vlanTrunk"], "left out with vlan: frames of the pod have its tag or theirs"
            )
        return conf
    if conf.bridging.trunk:
        raise fault("vlanTrunk", conf.raw["vlanTrunk"], "left out with representor.trunk, which says the same")
    return replace(conf, bridging=replace(conf.bridging, trunk=conf.trunk), trunk=None)


def _read_keys(raw: Mapping[str, Any], table: Iterable[Key], findings: Findings) -> dict[str, Any]:
    """The values of a table's keys by field. What is missing, null, empty or a fault is left out."""
    values: dict[str, Any] = {}
    for key in table:
        given = raw.get(key.name)
        if given is None or key.parse is None:
            continue
        try:
            value = key.parse(key.name, given)
        except CniError as error:
            if not key.lenient:
                findings.faults.append(error)
            else:
                findings.warnings.append(f"{error.message} and has no effect: {error.hint}")
            continue
        if value is not None and key.field:
            values[key.field] = value
    return values


def _read_rest(raw: Mapping[str, Any], runtime: Mapping[str, Any], args: str, findings: Findings) -> dict[str, Any]:
    """What comes from more than one key, or is more than one value."""
    read: dict[str, Any] = {}
    path = runtime.get("CNIDeviceInfoFile") or ""
    for name, parse in (
        ("mac", lambda: _read_mac(raw, runtime, args)),
        ("guid", lambda: infiniband.read_guid(raw, runtime)),
        ("device_info", lambda: keys.absolute_path("runtimeConfig.CNIDeviceInfoFile", path)),
        ("ipam", lambda: _read_ipam(raw, findings)),
        ("dns", lambda: keys.section(raw, "dns", findings)),
        ("previous", lambda: _read_previous(raw)),
    ):
        with findings.collect():
            read[name] = parse()
    return read


def _has_device(raw: Mapping[str, Any], runtime: Mapping[str, Any]) -> bool:
    return any((raw.get("deviceID"), runtime.get("deviceID"), raw.get("pciBusID")))


def _read_device(raw: Mapping[str, Any], runtime: Mapping[str, Any]) -> PciAddress | None:
    for key, value in (
        ("deviceID", raw.get("deviceID")),
        ("runtimeConfig.deviceID", runtime.get("deviceID")),
        ("pciBusID", raw.get("pciBusID")),
    ):
        if value:
            return keys.device(key, value)
    return None


def _read_mac(raw: Mapping[str, Any], runtime: Mapping[str, Any], args: str) -> str | None:
    sources = (
        ("runtimeConfig.mac", runtime.get("mac")),
        ("MAC of CNI_ARGS", keys.parse_args(args).get("MAC")),
        ("mac", raw.get("mac")),
    )
    parsed = [keys.mac(key, value) for key, value in sources if value]
    return parsed[0] if parsed else None


def _fold_type(ipam: Mapping[str, Any], findings: Findings) -> Mapping[str, Any]:
    """The section with `type` as it is documented; its other keys are the IPAM plugin's."""
    spelled = next((key for key in ipam if key.lower() == "type"), "type")
    if ipam.get("type") is not None or spelled == "type":
        return ipam
    findings.warnings.append(f"key 'ipam.{spelled}' is read as 'ipam.type'")
    return {key: value for key, value in ipam.items() if key != spelled} | {"type": ipam[spelled]}


def _read_ipam(raw: Mapping[str, Any], findings: Findings) -> str | None:
    kind = keys.section(raw, "ipam", findings).get("type")
    if kind and not keys.is_ipam_plugin(kind, raw.get("type")):
        raise fault("ipam.type", kind, "the name of an IPAM plugin in CNI_PATH, and not of this plugin")
    return kind or None


def _read_previous(raw: Mapping[str, Any]) -> Result | None:
    try:
        return parse_result(raw["prevResult"]) if raw.get("prevResult") else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CniError(DECODING_FAILURE, f"prevResult is no result of a CNI plugin: {error}") from None


def _read_settings(raw: Mapping[str, Any], findings: Findings, *, vlan_0_is_none: bool) -> dict[str, Any]:
    settings = _read_keys(raw, network_keys.of_fields(on_pf=True), findings)
    if vlan_0_is_none and settings.get("vlan") == 0:
        del settings["vlan"]
    with findings.collect():
        _check_vlan_group(raw, settings)
    least, most = settings.get("min_tx_rate", 0), settings.get("max_tx_rate", 0)
    if most and least > most:
        findings.faults.append(fault("min_tx_rate", least, f"at most max_tx_rate, which is {most}"))
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
