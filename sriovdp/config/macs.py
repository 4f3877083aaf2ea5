"""Admin MACs that the config file gives VFs: a list for the VFs of a range, or a map of VF index to MAC."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from sriovdp.config.ranges import VfIndices
from sriovdp.config.values import MacPolicy
from sriovdp.model import ZERO_MAC

Macs: TypeAlias = Literal["stable", "keep"] | tuple[str, ...] | Mapping[int, str]
"""As it is written: the list is not yet beside the range that it is for."""

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_INDEX = re.compile(r"0|[1-9][0-9]{0,4}")
_MULTICAST = 1  # IEEE 802, clause 8.2.2: the first bit on the wire


def check_macs(value: Any) -> Macs:
    """Read where the admin MACs of a range come from. Raises ValueError with a sentence."""
    match value:
        case "stable":
            return "stable"
        case "keep":
            return "keep"
        case list():
            return tuple(_check_all(value))
        case dict():
            macs = dict(zip(map(_read_index, value), _check_all(value.values()), strict=True))
            return MappingProxyType(macs)
    raise ValueError(
        "allowed here: stable (made from the PF's MAC and the VF's index), keep (left as it is), a list with a MAC for "
        "each VF of the range, or a map of VF index to MAC"
    )


def place_macs(macs: Macs, indices: VfIndices) -> MacPolicy:
    """What is written, by VF index. Raises ValueError when it does not fit the range."""
    if isinstance(macs, str):
        return macs
    if isinstance(macs, tuple):
        if len(macs) != len(indices):
            raise ValueError(
                f"the range {indices} has {_count(len(indices), 'VF')}, mac has {_count(len(macs), 'MAC')}"
            )
        return MappingProxyType(dict(zip(indices, macs, strict=True)))
    strange = next((index for index in macs if index not in indices), None)
    if strange is not None:
        raise ValueError(f"mac gives VF {strange} a MAC, which is not in the range {indices}")
    return macs


def _check_all(values: Iterable[Any]) -> list[str]:
    macs = [_check_mac(value) for value in values]
    twice = [mac for mac, number in Counter(macs).items() if number > 1]
    if twice:
        raise ValueError(f"{twice[0]} is here twice; each VF has a MAC of its own")
    return macs


def _check_mac(value: Any) -> str:
    mac = value.lower() if isinstance(value, str) else ""
    if not _MAC.fullmatch(mac) or mac == ZERO_MAC or int(mac[:2], 16) & _MULTICAST:
        raise ValueError(f"{value!r:.40} is no MAC of a station; write it like 02:00:00:00:00:01")
    return mac


def _read_index(key: str) -> int:
    if not _INDEX.fullmatch(key):
        raise ValueError(f"{key[:40]!r} is no VF index; a map goes by the index of a VF, from 0")
    return int(key)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
