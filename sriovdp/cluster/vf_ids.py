"""PCI device ids of VFs by those of their PFs, where the PF itself cannot be asked.

From the tables of PCI ids in Linux 6.12: i40e, ice, igb, ixgbe (intel/*/*_type.h), mlx5 (mellanox/mlx5/core/main.c),
bnxt (broadcom/bnxt/bnxt.c), qede (qlogic/qede/qede_main.c), rvu (marvell/octeontx2).
"""

from collections.abc import Mapping
from types import MappingProxyType

_BY_VENDOR = {
    "8086": {
        "154c": "0d58 1572 1581 1583 1589 158a 158b 15ff",
        "1889": "1249 124a 124c 124d 12d2 12d3 1591 1592 1593 1599 159b 188a 579c 579d 579e",
        "1565": "1563",
        "10ca": "10c9",
        "10ed": "10fb",
        "1520": "1521",
    },
    "15b3": {
        "1014": "1013",
        "1016": "1015",
        "1018": "1017",
        "101a": "1019",
        "101c": "101b",
        "101e": "101d 101f 1021 1023 a2d6 a2dc",
    },
    "14e4": {"16dc": "16d7", "1806": "1750"},
    "1077": {"1664": "1654"},
    "177d": {"b103": "b100", "b203": "b200", "b603": "b600", "b903": "b900", "ba03": "ba00"},
}

VF_IDS: Mapping[tuple[str, str], str] = MappingProxyType(
    {(vendor, pf): vf for vendor, table in _BY_VENDOR.items() for vf, pfs in table.items() for pf in pfs.split()}
)
"""Vendor and device id of a PF, and the device id of its VFs."""
