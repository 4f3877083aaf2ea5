"""Keys of the Intel SR-IOV CNI plugin of 2017: `if0`, `if0name`, `l2enable`, `vf`, `dpdk`, `cniDir`.

As the application note "Multiple Network Interfaces in Kubernetes" has them, sections 4.1 and 5.1. A configuration of
that time comes without `name` and `cniVersion`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cni.protocol.keys import absolute_path, fault, flag, is_ifname, number, section, text
from sriovdp.model import USERSPACE_DRIVERS

logger = logging.getLogger(__name__)

KEYS = ("if0", "if0name", "l2enable", "vf", "dpdk", "cniDir")

_DPDK_KEYS = ("kernel_driver", "dpdk_driver", "dpdk_tool")
_FORBIDDEN_NAMES = frozenset({"eth0", "eth1", "lo"})
_MAX_VF = 255


@dataclass(frozen=True, slots=True)
class Legacy:
    """A configuration that names a PF in place of a VF.

    `vf` is the index of the VF, None is the first free one. `ifname` is the interface's name in the pod in place of
    CNI_IFNAME. `dpdk_tool` is read and never run: a network's author chooses no program of the node.
    """

    pf: str
    vf: int | None = None
    ifname: str | None = None
    l2: bool = False
    dpdk: bool = False
    driver: str | None = None
    kernel_driver: str | None = None


def parse_legacy(raw: Mapping[str, Any]) -> Legacy | None:
    """Read the legacy keys; None when there is no `if0`. Raises CniError."""
    if raw.get("if0") is None:
        return None
    pf, ifname = text("if0", raw["if0"]), text("if0name", raw.get("if0name") or "")
    if not is_ifname(pf):
        raise fault("if0", pf, "the netdev of a PF, like enp2s0")
    if ifname and (ifname in _FORBIDDEN_NAMES or not is_ifname(ifname)):
        raise fault("if0name", ifname, "a name for an interface, and neither eth0, eth1 nor lo")
    absolute_path("cniDir", raw.get("cniDir") or "")
    dpdk = {key: text(f"dpdk.{key}", value) for key, value in section(raw, "dpdk", _DPDK_KEYS).items() if value}
    if dpdk.get("dpdk_tool"):
        _report_unused_tool()
    driver = dpdk.get("dpdk_driver")
    if dpdk and driver not in USERSPACE_DRIVERS:
        raise fault("dpdk.dpdk_driver", driver, " or ".join(sorted(USERSPACE_DRIVERS)))
    return Legacy(
        pf,
        number(0, _MAX_VF)("vf", raw["vf"]) if raw.get("vf") is not None else None,
        ifname or None,
        _parse_l2(raw.get("l2enable")),
        bool(dpdk),
        driver,
        dpdk.get("kernel_driver"),
    )


@cache
def _report_unused_tool() -> None:
    """Once in the agent's life: such a network is attached again and again."""
    logger.warning("dpdk.dpdk_tool is ignored: sriovdp binds drivers itself and runs no program that a network names")


def _parse_l2(value: Any) -> bool:
    """The application note says it is a string, and uses a boolean."""
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    return value is not None and flag("l2enable", value)
