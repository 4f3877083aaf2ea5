"""Keys and values of the network configuration: spelling, types, ranges; a fault names key and value."""

import difflib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cni.protocol.spec import INVALID_CONFIG, INVALID_ENVIRONMENT
from sriovdp.errors import CniError, DeviceError
from sriovdp.limits import parse_mac
from sriovdp.model import PciAddress, split_args

logger = logging.getLogger(__name__)

Parse = Callable[[str, Any], Any]

_IFNAME = re.compile(r"[^/:\s]{1,15}")  # as libcni has it, pkg/utils
_PLUGIN_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.\-]{0,254}")
_OWN_TYPE = "sriov"
_ARGS = frozenset({"MAC", "IgnoreUnknown", "IP", "GATEWAY"})  # the last two are for IPAM plugins


def fault(key: str, value: Any, allowed: str) -> CniError:
    """The error for a wrong value, with what would be right."""
    return CniError(INVALID_CONFIG, f"{key} is {json.dumps(value, default=str)}", hint=f"it must be {allowed}")


def fold_keys(document: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The document with known keys as they are documented, whatever their case; other keys stay.

    Go's JSON decoder, which today's plugin uses, does not look at the case of keys.
    """
    spelled = {key.lower(): key for key in known}
    folded: dict[str, Any] = {}
    for key, value in document.items():
        right = spelled.get(key.lower())
        if right is None and (alike := difflib.get_close_matches(key, spelled.values(), 1, 0.8)):
            logger.warning("unknown key %r in the network configuration: did you mean %r?", key, alike[0])
        elif right not in {None, key}:
            logger.warning("key %r in the network configuration is read as %r", key, right)
        if right is None or document.get(right) is None or right == key:
            folded[right or key] = value
    return folded


def parse_all(document: Mapping[str, Any], table: Iterable[tuple[str, str, Parse]]) -> dict[str, Any]:
    """The values of a table's keys under their names there; keys that are missing or null are left out."""
    return {name: parse(key, document[key]) for key, name, parse in table if document.get(key) is not None}


def section(document: Mapping[str, Any], key: str, known: Iterable[str] = ()) -> dict[str, Any]:
    """An object within the document, folded; empty when it is not there. Raises CniError when it is none."""
    value = document.get(key)
    if value is not None and not isinstance(value, dict):
        raise fault(key, value, "an object")
    return fold_keys(value or {}, known)


def number(least: int, most: int) -> Parse:
    """A reader of numbers from `least` to `most`."""

    def parse(key: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise fault(key, value, f"a number from {least} to {most}")
        return value

    return parse


def choice(choices: Mapping[str, Any], *, fold: bool = False) -> Parse:
    """A reader of one of some words, which stand for values; `fold` takes them in any case."""

    def parse(key: str, value: Any) -> Any:
        word = value.lower() if fold and isinstance(value, str) else value
        if not isinstance(word, str) or word not in choices:
            raise fault(key, value, " or ".join(f'"{allowed}"' for allowed in choices))
        return choices[word]

    return parse


def flag(key: str, value: Any) -> bool:
    """Read a JSON boolean."""
    if not isinstance(value, bool):
        raise fault(key, value, "true or false")
    return value


def text(key: str, value: Any) -> str:
    """Read a text, which may be empty."""
    if not isinstance(value, str):
        raise fault(key, value, "a text")
    return value


def absolute_path(key: str, value: Any) -> str:
    """Read an absolute path without `..`; an empty text stays empty."""
    path = text(key, value)
    if path and (not path.startswith("/") or ".." in path.split("/") or not path.isprintable()):
        raise fault(key, value, "an absolute path of printable characters, without ..")
    return path


def device(key: str, value: Any) -> PciAddress | None:
    """Read a PCI address; an empty text is none."""
    try:
        return PciAddress.parse(text(key, value)) if value else None
    except DeviceError:
        raise fault(key, value, "the PCI address of a VF, like 0000:3b:02.6") from None


def mac(key: str, value: Any) -> str | None:
    """Read a unicast MAC in one of the forms that Go's net.ParseMAC takes; an empty text is none."""
    if not text(key, value):
        return None
    try:
        return parse_mac(value)
    except ValueError as error:
        raise fault(key, value, str(error)) from None


def is_ifname(name: str) -> bool:
    """Whether the kernel and libcni take a name for an interface."""
    return bool(_IFNAME.fullmatch(name)) and name not in {".", ".."}


def is_plugin_name(name: Any) -> bool:
    """Whether it can name a file in CNI_PATH: no path, as libcni's FindInPath refuses one too."""
    return isinstance(name, str) and bool(_PLUGIN_NAME.fullmatch(name))


def is_ipam_plugin(name: Any, own_type: Any = None) -> bool:
    """Whether `ipam.type` may name it: a file in CNI_PATH, and not this plugin, which would wait for its own lock."""
    return is_plugin_name(name) and name not in {_OWN_TYPE, own_type}


def parse_args(args: str) -> dict[str, str]:
    """Read CNI_ARGS. Raises CniError for what is no pair, and for unknown names unless IgnoreUnknown is set."""
    if any(pair and "=" not in pair for pair in args.split(";")):
        raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS is {args!r}", hint="it must be KEY=VALUE pairs joined by ';'")
    values = split_args(args)
    unknown = [name for name in values if name not in _ARGS and not name.startswith("K8S_")]
    if unknown and values.get("IgnoreUnknown", "").lower() not in {"1", "true"}:
        raise CniError(
            INVALID_ENVIRONMENT, f"CNI_ARGS has unknown {', '.join(unknown)}", hint="add IgnoreUnknown=1 to have it so"
        )
    return values
