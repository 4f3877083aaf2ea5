"""What the CNI specification fixes: versions, error codes, the shapes of errors and results.

Specification 1.1.0, sections "Error" and "Success"; older shapes from the specifications 0.1.0 to 1.0.0.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sriovdp.errors import BusyError, CniError, InUseError, JournalError, SriovdpError

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_OLDEST = "0.1.0"  # what a configuration without cniVersion is
_FIRST_VERSION = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
INVALID_NETNS = 8
TRY_AGAIN = 11
NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51
# ours
DEVICE_IN_USE = 100
DEVICE_FAILURE = 101
IPAM_FAILURE = 102
INTERNAL = 999


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of the result. `mtu` 0 and empty texts are left out."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    pci_id: str = ""
    socket_path: str = ""


@dataclass(frozen=True, slots=True)
class IpConfig:
    """An address in CIDR form with its gateway, and the index of the interface that has it."""

    address: str
    gateway: str | None = None
    interface: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What ADD answers. Routes and DNS are kept in the specification's own JSON shape."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IpConfig, ...] = ()
    routes: tuple[Mapping[str, Any], ...] = ()
    dns: Mapping[str, Any] = field(default_factory=dict)

    def with_addresses_of(self, ipam: "Result") -> "Result":
        """This result with what the IPAM plugin gave, all of it on the first interface."""
        ips = tuple(replace(ip, interface=0) for ip in ipam.ips)
        return replace(self, ips=ips, routes=ipam.routes, dns=ipam.dns or self.dns)

    def after(self, previous: "Result") -> "Result":
        """The result of a chain: what plugins before this one gave, and then this."""
        offset = len(previous.interfaces)
        ips = tuple(ip if ip.interface is None else replace(ip, interface=ip.interface + offset) for ip in self.ips)
        return Result(
            previous.interfaces + self.interfaces,
            previous.ips + ips,
            previous.routes + self.routes,
            self.dns or previous.dns,
        )


def check_version(version: str, command: str = "") -> str:
    """The configuration's version; an empty one is 0.1.0.

    Raises CniError when it is none of ours, or has no such command yet.
    """
    version = version or _OLDEST
    if version not in VERSIONS:
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"incompatible CNI versions: the configuration has cniVersion {version!r}",
            hint=f"set it to one of {', '.join(VERSIONS)}",
        )
    first = _FIRST_VERSION.get(command, _OLDEST)
    if is_before(version, first):
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"config version does not allow {command}: it is {version}",
            hint=f"{command} came with {first}",
        )
    return version


def is_before(version: str, other: str) -> bool:
    """Whether a version of ours is older than another one."""
    return VERSIONS.index(version) < VERSIONS.index(other)


def render_versions() -> bytes:
    """What VERSION answers."""
    return json.dumps({"cniVersion": VERSIONS[-1], "supportedVersions": VERSIONS}).encode()


def render_result(result: Result, version: str) -> bytes:
    """JSON of a result in the shape of the version."""
    return json.dumps(describe_result(result, version), indent=4).encode()


def describe_result(result: Result, version: str = VERSIONS[-1]) -> dict[str, Any]:
    """A result as the version has it in JSON."""
    if is_before(version, "0.3.0"):
        return _describe_ip4_ip6(result, version)
    document: dict[str, Any] = {"cniVersion": version}
    before_1_0 = is_before(version, "1.0.0")
    document["interfaces"] = [_render_interface(interface, before_1_0) for interface in result.interfaces]
    if result.ips:
        document["ips"] = [_render_ip(ip, before_1_0) for ip in result.ips]
    if result.routes:
        document["routes"] = [dict(route) for route in result.routes]
    if result.dns or before_1_0:
        document["dns"] = dict(result.dns)
    return document


def parse_result(document: Any) -> Result:
    """Read a result of any version. Raises ValueError, KeyError, TypeError or AttributeError when it is none."""
    if document is None:
        return Result()
    if not isinstance(document, dict):
        raise ValueError("the result is no JSON object")  # noqa: TRY004 - a document, not an argument
    if "ip4" in document or "ip6" in document:
        return _parse_ip4_ip6(document)
    ips = tuple(IpConfig(ip["address"], ip.get("gateway"), ip.get("interface")) for ip in document.get("ips") or [])
    interfaces = tuple(_parse_interface(interface) for interface in document.get("interfaces") or [])
    return Result(interfaces, ips, tuple(document.get("routes") or []), document.get("dns") or {})


def render_error(error: Exception, version: str = VERSIONS[-1]) -> bytes:
    """JSON of an error: the message, and in `details` what to do about it."""
    message = error.message if isinstance(error, SriovdpError) else f"{type(error).__name__}: {error}"
    document = {"cniVersion": version, "code": code_of(error), "msg": message}
    if isinstance(error, SriovdpError) and error.hint:
        document["details"] = error.hint
    return json.dumps(document).encode()


def code_of(error: Exception) -> int:
    """The code that an error is answered with."""
    if isinstance(error, CniError):
        return error.code
    kinds = (
        (JournalError, IO_FAILURE),
        (BusyError, TRY_AGAIN),
        (InUseError, DEVICE_IN_USE),
        (SriovdpError, DEVICE_FAILURE),
    )
    return next((code for kind, code in kinds if isinstance(error, kind)), INTERNAL)


def _render_interface(interface: Interface, before_1_0: bool) -> dict[str, Any]:
    shape: dict[str, Any] = {"name": interface.name, "mac": interface.mac, "sandbox": interface.sandbox}
    if not before_1_0:
        shape |= {"mtu": interface.mtu, "pciID": interface.pci_id, "socketPath": interface.socket_path}
    return {key: value for key, value in shape.items() if value}


def _parse_interface(document: Mapping[str, Any]) -> Interface:
    keys = ("mac", "mtu", "sandbox", "pciID", "socketPath")
    mac, mtu, sandbox, pci_id, socket_path = (document.get(key) for key in keys)
    return Interface(document["name"], mac or "", mtu or 0, sandbox or "", pci_id or "", socket_path or "")


def _render_ip(ip: IpConfig, before_1_0: bool) -> dict[str, Any]:
    shape: dict[str, Any] = {"address": ip.address}
    if before_1_0:
        shape["version"] = "6" if ":" in ip.address else "4"
    if ip.gateway:
        shape["gateway"] = ip.gateway
    if ip.interface is not None:
        shape["interface"] = ip.interface
    return shape


def _describe_ip4_ip6(result: Result, version: str) -> dict[str, Any]:
    """The form before 0.3.0: one address of each family, and no interfaces. No address at all is as good."""
    document: dict[str, Any] = {"cniVersion": version}
    for key, is_v6 in (("ip4", False), ("ip6", True)):
        ip = next((ip for ip in result.ips if (":" in ip.address) is is_v6), None)
        if ip is not None:
            document[key] = {"ip": ip.address} | ({"gateway": ip.gateway} if ip.gateway else {})
            routes = [dict(route) for route in result.routes if (":" in route["dst"]) is is_v6]
            document[key] |= {"routes": routes} if routes else {}
    return document | {"dns": dict(result.dns)}


def _parse_ip4_ip6(document: Mapping[str, Any]) -> Result:
    families = [document[key] for key in ("ip4", "ip6") if document.get(key)]
    ips = tuple(IpConfig(family["ip"], family.get("gateway")) for family in families)
    routes = tuple(route for family in families for route in family.get("routes") or [])
    return Result((), ips, routes, document.get("dns") or {})
