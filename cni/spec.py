"""What the CNI specification fixes: versions, error codes, the shapes of errors and results.

Specification 1.1.0, sections "Error" and "Success"; older shapes from the specifications 0.3.0 to 1.0.0.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sriovdp.errors import CniError, SriovdpError

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
INVALID_NETNS = 8
TRY_AGAIN = 11
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


def check_version(version: str) -> None:
    """Raise CniError when the configuration's version is none of ours."""
    if version not in VERSIONS:
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"incompatible CNI versions: the configuration has cniVersion {version!r}",
            hint=f"set it to one of {', '.join(VERSIONS)}",
        )


def render_result(result: Result, version: str) -> bytes:
    """JSON of a result in the shape of the version."""
    document: dict[str, Any] = {"cniVersion": version}
    before_1_0 = version.startswith("0.")
    document["interfaces"] = [_render_interface(interface, before_1_0) for interface in result.interfaces]
    if result.ips:
        document["ips"] = [_render_ip(ip, before_1_0) for ip in result.ips]
    if result.routes:
        document["routes"] = [dict(route) for route in result.routes]
    if result.dns or before_1_0:
        document["dns"] = dict(result.dns)
    return json.dumps(document, indent=4).encode()


def parse_result(document: Any) -> Result:
    """Read a result of any version from 0.3.0 on, or the ip4/ip6 form before that.

    Raises ValueError when it is none.
    """
    if document is None:
        return Result()
    if not isinstance(document, dict):
        raise ValueError("the result is no JSON object")  # noqa: TRY004 - a document, not an argument
    if "ip4" in document or "ip6" in document:
        return _parse_ip4_ip6(document)
    ips = tuple(IpConfig(ip["address"], ip.get("gateway"), ip.get("interface")) for ip in document.get("ips") or [])
    return Result((), ips, tuple(document.get("routes") or []), document.get("dns") or {})


def render_error(error: Exception, version: str = VERSIONS[-1]) -> bytes:
    """JSON of an error: the message, and in `details` what to do about it."""
    code = error.code if isinstance(error, CniError) else _code_of(error)
    message = error.message if isinstance(error, SriovdpError) else f"{type(error).__name__}: {error}"
    document = {"cniVersion": version, "code": code, "msg": message}
    if isinstance(error, SriovdpError) and error.hint:
        document["details"] = error.hint
    return json.dumps(document, indent=4).encode()


def _code_of(error: Exception) -> int:
    return DEVICE_FAILURE if isinstance(error, SriovdpError) else INTERNAL


def _render_interface(interface: Interface, before_1_0: bool) -> dict[str, Any]:
    shape: dict[str, Any] = {"name": interface.name, "mac": interface.mac, "sandbox": interface.sandbox}
    if not before_1_0:
        shape |= {"mtu": interface.mtu, "pciID": interface.pci_id}
    return {key: value for key, value in shape.items() if value}


def _render_ip(ip: IpConfig, before_1_0: bool) -> dict[str, Any]:
    shape: dict[str, Any] = {"address": ip.address}
    if before_1_0:
        shape["version"] = "6" if ":" in ip.address else "4"
    if ip.gateway:
        shape["gateway"] = ip.gateway
    if ip.interface is not None:
        shape["interface"] = ip.interface
    return shape


def _parse_ip4_ip6(document: Mapping[str, Any]) -> Result:
    families = [document[key] for key in ("ip4", "ip6") if document.get(key)]
    ips = tuple(IpConfig(family["ip"], family.get("gateway")) for family in families)
    routes = tuple(route for family in families for route in family.get("routes") or [])
    return Result((), ips, routes, document.get("dns") or {})
