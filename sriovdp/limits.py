"""Limits of VF settings and the spelling of MACs and GUIDs, once for the config file and for the CNI plugin."""

import re
from typing import Final

MAX_VFS: Final = 65535
"""The most VFs a PF can have: TotalVFs is a 16-bit register (PCI Express Base Specification, SR-IOV capability)."""

MIN_MTU: Final = 68
"""ETH_MIN_MTU of linux/if_ether.h, from RFC 791."""

MAX_MTU: Final = 65535
"""ETH_MAX_MTU of linux/if_ether.h."""

MAX_HOLD: Final = 86400
"""Seconds."""

MAX_VLAN: Final = 4094
"""IEEE 802.1Q: 4095 is reserved, 0 is no port VLAN."""

MAX_QOS: Final = 7
"""IEEE 802.1Q: the priority has 3 bits."""

MAX_RATE: Final = 2**32 - 1
"""Mbit/s; struct ifla_vf_rate of linux/if_link.h has 32 bits."""

PATTERN_SIGNS: Final = frozenset("*?[")
"""A path with one of these is a pattern for glob(3)."""

_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_GUID = re.compile(r"(?:[0-9a-f]{2}:){7}[0-9a-f]{2}")
_DOTTED = re.compile(r"(?:[0-9a-f]{4}\.)+[0-9a-f]{4}")
_NO_GUID = frozenset({":".join(["00"] * 8), ":".join(["ff"] * 8)})
_MULTICAST = 1  # IEEE 802, clause 8.2.2: the first bit on the wire


def parse_mac(text: str) -> str:
    """Read a unicast MAC in one of the forms that Go's net.ParseMAC takes, as `02:00:00:00:00:01`.

    Raises ValueError with what is allowed.
    """
    mac = _write_pairs(text)
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & _MULTICAST or not int(mac.replace(":", ""), 16):
        raise ValueError("a unicast MAC address like 02:00:00:00:00:01")
    return mac


def parse_guid(text: str) -> str:
    """Read the GUID of one port in one of the forms that Go's net.ParseMAC takes, as `02:00:00:00:00:00:00:01`.

    All zeros are no GUID, and all ones are what ib-sriov-cni leaves for none. A group bit is allowed: neither the
    kernel nor ib-sriov-cni refuses it. Raises ValueError with what is allowed.
    """
    guid = _write_pairs(text)
    if not _GUID.fullmatch(guid) or guid in _NO_GUID:
        raise ValueError("the GUID of one port, 8 bytes like 02:00:00:00:00:00:00:01")
    return guid


def _write_pairs(text: str) -> str:
    """An address of the forms `02-00-…` and `0200.0000.…` as `02:00:…`."""
    address = text.lower().replace("-", ":")
    if _DOTTED.fullmatch(address):
        digits = address.replace(".", "")
        return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
    return address
