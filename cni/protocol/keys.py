"""Keys and values of the network configuration: spelling, types, ranges; a fault names key and value."""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cni.protocol.spec import INVALID_CONFIG, INVALID_ENVIRONMENT
from sriovdp.errors import CniError, DeviceError
from sriovdp.limits import parse_guid, parse_mac
from sriovdp.model import PciAddress, split_args

Parse = Callable[[str, Any], Any]

_IFNAME = re.compile(r"[^/:\s]{1,15}")  # as libcni has it, pkg/utils
_PLUGIN_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.\-]{0,254}")
TYPES = ("sriov", "ib-sriov")
"""The plugin's names: its own, which is sriov-cni's, and that of ib-sriov-cni."""

_RESERVED = "cni.dev/"  # specification, "Reserved keys"
# what libcni and Multus of some age leave in a configuration
_IGNORED = frozenset(
    {"cniVersions", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "masterplugin", "resourceName"}
)
_SHOWN = 120  # characters of a value in an error
_NAMED = 20  # unknown keys of a document that are named
_LONGEST = 40  # characters of a key that may be a misspelt one
_LIKENESS = 0.8  # of 1; below it, a guess does not help
_ARGS = frozenset({"MAC", "IgnoreUnknown", "IP", "GATEWAY"})  # the last two are for IPAM plugins


def fault(key: str, value: Any, allowed: str) -> CniError:
    """The error for an invalid value, with what is valid."""
    return CniError(INVALID_CONFIG, f"{key} is {_show(value)}", hint=f"it must be {allowed}")


def _show(value: Any) -> str:
    """A value as JSON has it, cut where a person stops reading."""
    try:
        shown = json.dumps(value, default=str)
    except RecursionError:
        return "nested too deeply"
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"


@dataclass(slots=True)
class Findings:
    """What reading a network finds: faults that refuse it, and warnings that do not."""

    faults: list[CniError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep a fault of the block and go on behind it, so that all of them are reported at once."""
        try:
            yield
        except CniError as error:
            self.faults.append(error)

    def refuse(self) -> None:
        """Raise CniError with all faults; the first one's code counts."""
        if not self.faults:
            return
        hints = dict.fromkeys(fault.hint for fault in self.faults if fault.hint)
        message = "; ".join(fault.message for fault in self.faults)
        raise CniError(self.faults[0].code, message, hint="; ".join(hints))


def squeeze(name: str) -> str:
    """A key as people vary it: without case, `-`, `_`, `.` and blanks."""
    return re.sub(r"[-_. ]", "", name).lower()


def fold_keys(
    document: Mapping[str, Any], known: Iterable[str], findings: Findings, spellings: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The document with known keys as they are documented, whatever their case; other keys stay, with a warning.

    Go's JSON decoder, which today's plugin uses, does not look at the case of keys. `spellings` are other words for
    known keys, squeezed; they are not read, but named.
    """
    documented = {key.lower(): key for key in known}
    folded: dict[str, Any] = {}
    unknown: list[str] = []
    for key, value in document.items():
        name = documented.get(key.lower())
        if name is None:
            if documented and not key.startswith(_RESERVED) and key not in _IGNORED:
                unknown.append(key)
        elif name != key:
            findings.warnings.append(f"key {key!r} is read as {name!r}")
        if name is None or document.get(name) is None or name == key:
            folded[name or key] = value
    # made only when it is needed: an ADD reads several objects, and most have no unknown key
    alike = {squeeze(key): key for key in documented.values()} | dict(spellings or {}) if unknown else {}
    for key in unknown[:_NAMED]:
        findings.warnings.append(f"key {key[:_LONGEST]!r} is not known and has no effect{_name_nearest(key, alike)}")
    if len(unknown) > _NAMED:
        findings.warnings.append(f"{len(unknown) - _NAMED} more keys are not known")
    return folded


def _name_nearest(key: str, alike: Mapping[str, str]) -> str:
    if len(key) > _LONGEST:
        return ""
    squeezed = squeeze(key)
    nearest = [squeezed] if squeezed in alike else difflib.get_close_matches(squeezed, alike, 1, _LIKENESS)
    return f": did you mean {alike[nearest[0]]!r}?" if nearest else ""


def section(document: Mapping[str, Any], key: str, findings: Findings, known: Iterable[str] = ()) -> dict[str, Any]:
    """An object within the document, folded; empty when it is not there. Raises CniError when it is none."""
    value = document.get(key)
    if value is not None and not isinstance(value, dict):
        raise fault(key, value, "an object")
    return fold_keys(value or {}, known, findings)


def number(least: int, most: int) -> Parse:
    """A reader of numbers from `least` to `most`."""

    def parse(key: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise fault(key, value, f"a number from {least} to {most}")
        return value

    return parse


def choice(choices: Mapping[str, Any], *, fold: bool = False) -> Parse:
    """A reader of one of some words, which stand for values; `fold` takes them in any case.

    An empty text is no value, as for sriov-cni: templates render it for a value that is not filled in.
    """

    def parse(key: str, value: Any) -> Any:
        if value == "":
            return None
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


def guid(key: str, value: Any) -> str | None:
    """Read the GUID of one InfiniBand port; an empty text is none."""
    if not text(key, value):
        return None
    try:
        return parse_guid(value)
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
    return is_plugin_name(name) and name not in (*TYPES, own_type)


def parse_args(args: str) -> dict[str, str]:
    """Read CNI_ARGS. Raises CniError for what is no pair, and for unknown names unless IgnoreUnknown is set."""
    if any(pair and "=" not in pair for pair in args.split(";")):
        raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS is {args!r}", hint="it must be KEY=VALUE pairs joined by ';'")
    values = split_args(args)
    unknown = [name for name in values if name not in _ARGS and not name.startswith("K8S_")]
    if unknown and values.get("IgnoreUnknown", "").lower() not in {"1", "true"}:
        raise CniError(
            INVALID_ENVIRONMENT, f"CNI_ARGS has unknown {', '.join(unknown)}", hint="add IgnoreUnknown=1 to ignore them"
        )
    return values
