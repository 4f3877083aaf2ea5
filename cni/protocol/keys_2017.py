"""Keys of the Intel SR-IOV CNI plugin of 2017, as values: `if0`, `if0name`, `l2enable`, `vf`, `dpdk`, `master`.

As the application note "Multiple Network Interfaces in Kubernetes" has them, sections 4.1 and 5.1. A configuration of
that time comes without `name` and `cniVersion`. Intel's plugin of 2018 takes `deviceID` in place of `if0`, and `master`
is what it calls `if0`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cni.protocol.keys import Findings, fault, section, text
from sriovdp.model import USERSPACE_DRIVERS, is_userspace

_DPDK_KEYS = ("kernel_driver", "dpdk_driver", "dpdk_tool")


@dataclass(frozen=True, slots=True)
class Keys2017:
    """What the keys of 2017 ask for.

    `pf` is the PF to take a VF of, None with a `deviceID` alone. `vf` is the index of the VF, None is the first free
    one. `ifname` is the interface's name in the pod in place of CNI_IFNAME. `l2` and `dpdk`: no addresses. `driver` is
    for user space.
    """

    pf: str | None = None
    vf: int | None = None
    ifname: str | None = None
    l2: bool = False
    dpdk: bool = False
    driver: str | None = None
    kernel_driver: str | None = None


def without_idle(raw: Mapping[str, Any], *, has_device: bool) -> dict[str, Any]:
    """A network without `master` where the VF or `if0` is given, and without `vf` where neither names a PF."""
    master = None if has_device or raw.get("if0") else raw.get("master")
    kept = dict(raw) | {"master": master}
    return kept if raw.get("if0") or master else kept | {"vf": None}


def combine(raw: Mapping[str, Any], values: Mapping[str, Any], findings: Findings) -> Keys2017 | None:
    """The keys of 2017 from their read `values`, by field; None when there are none. `raw` is without idle keys."""
    pf = values.get("if0") or values.get("master")
    dpdk: dict[str, str] = {}
    if raw.get("dpdk") and not isinstance(raw["dpdk"], dict) and not pf:
        findings.warnings.append("dpdk has no effect: it must be an object")
        raw = {}
    with findings.collect():
        dpdk = _read_dpdk(raw, findings)
    if not (pf or dpdk or values.get("ifname") or values.get("l2")):
        return None
    return Keys2017(
        pf,
        values.get("vf"),
        values.get("ifname"),
        values.get("l2", False),
        bool(dpdk),
        dpdk.get("dpdk_driver"),
        dpdk.get("kernel_driver"),
    )


def has_no_addresses(raw: Mapping[str, Any]) -> bool:
    """Whether `l2enable` or `dpdk` leaves the network without addresses, whatever `ipam` says."""
    l2, dpdk = raw.get("l2enable"), raw.get("dpdk")
    return (
        (isinstance(dpdk, dict) and any(dpdk.values())) or l2 is True or (isinstance(l2, str) and l2.lower() == "true")
    )


def _read_dpdk(raw: Mapping[str, Any], findings: Findings) -> dict[str, str]:
    read = section(raw, "dpdk", findings, _DPDK_KEYS)
    dpdk = {key: text(f"dpdk.{key}", read[key]) for key in _DPDK_KEYS if read.get(key)}
    if dpdk.get("dpdk_tool"):
        findings.warnings.append("dpdk.dpdk_tool has no effect: sriovdp binds drivers itself")
    driver = dpdk.get("dpdk_driver")
    if dpdk and not is_userspace(driver):
        raise fault("dpdk.dpdk_driver", driver, " or ".join(sorted(USERSPACE_DRIVERS)))
    return dpdk
