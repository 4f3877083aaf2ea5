"""Admin MACs that the config file gives VFs: a list for the VFs of a range, or a map of VF index to MAC."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from sriovdp.config.ranges import VfIndices
from sriovdp.limits import parse_mac

MacPolicy: TypeAlias = Literal["stable", "keep"] | Mapping[int, str]
"""Where a VF's admin MAC comes from: derived from the PF's MAC and the VF's index, left as it is, or given by VF index.

A VF for which none is given has a derived one.
"""

Macs: TypeAlias = MacPolicy | tuple[str, ...]
"""As it is written: the list is not yet beside the range that it is for."""

_MAC_SCHEMA = {
    "type": "string",
    "pattern": "^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}$|^[0-9A-Fa-f]{4}([.][0-9A-Fa-f]{4}){2}$",
}
SCHEMA: Final[Mapping[str, Any]] = {
    "anyOf": [
        {"enum": ["stable", "keep"]},
        {"type": "array", "items": _MAC_SCHEMA, "minItems": 1, "uniqueItems": True},
        {"type": "object", "patternProperties": {"^[0-9]+$": _MAC_SCHEMA}, "additionalProperties": False},
    ]
}
_INDEX = re.compile(r"0|[1-9][0-9]{0,4}")


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
        raise ValueError(f"mac has a MAC for VF {strange}, which is not in the range {indices}")
    return macs


def _check_all(values: Iterable[Any]) -> list[str]:
    macs = [_check_mac(value) for value in values]
    twice = [mac for mac, number in Counter(macs).items() if number > 1]
    if twice:
        raise ValueError(f"{twice[0]} is here twice; give each VF its own MAC")
    return macs


def _check_mac(value: Any) -> str:
    try:
        return parse_mac(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ValueError(f"{value!r:.40} is not {error}") from None


def _read_index(key: str) -> int:
    if not _INDEX.fullmatch(key):
        raise ValueError(f"{key[:40]!r} is no VF index; the keys of the map are VF indices, from 0")
    return int(key)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
