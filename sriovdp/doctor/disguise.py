"""Other names in place of those that identify people, their machines and their pods; the same for the same original.

Documentation ranges stand for addresses, so that what is written still parses: 198.18.0.0/15 (RFC 2544), 2001:db8::/32
(RFC 3849).
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping

from sriovdp.node.recording import Pseudonyms

_KEPT_NAMES = frozenset({"default", "kube-system", "kube-public", "localhost", "node", "none"})
_SHORTEST = 3  # characters; a shorter name, or one of digits, is replaced with its namespace only
_ID_PREFIX = 12  # hex digits of a container id that logs have

_MAC = re.compile(r"(?<![\w:-])[0-9a-fA-F]{2}(?:([:-])[0-9a-fA-F]{2})(?:\1[0-9a-fA-F]{2}){4,}(?![\w:-])")
_MAC_IN_NAME = re.compile(r"enx[0-9a-f]{12}")
_V4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_V6 = re.compile(r"(?<![\w:.])(?=[0-9a-fA-F]{0,4}:[0-9a-fA-F]{0,4}:)[0-9a-fA-F:]{2,39}(?![\w:])")
_UUID = re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b")
_ID = re.compile(r"\b[0-9a-f]{64}\b|(?<=container )[0-9a-f]{12}\b")
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")  # bounded: no text is slow to search
_HOME = re.compile(r"/home/[^/\s\"']+")
_TOKEN = re.compile(r"\beyJ[\w-]{8,}\.[\w.-]+|(?i:(?<=bearer ))\S+")
_SECRET = re.compile(r"(?i)((?:password|passwd|secret|token|api[_-]?key)[\"']?\s*[:=]\s*[\"']?)[^\s\"',;}]+")
_SERIAL = re.compile(r"(?i)((?:serial(?: ?number)?|sn)[\"']?\s*[:=]\s*[\"']?)[\w-]{4,}")
_ARGUMENT = re.compile(r"(K8S_POD_(?:NAME|NAMESPACE)=)([^;\s\"']+)")


class Disguise:
    """Replaces names. `known` are those that occur on the node, by their kind, like `node` or `pod`."""

    def __init__(self, known: Mapping[str, Iterable[str]], macs: Pseudonyms) -> None:
        self._macs = macs
        self._numbers: dict[str, dict[str, int]] = {}
        self._known: dict[str, str] = {}
        for kind, names in known.items():
            for name in sorted(set(names)):
                self._known[name] = self._replace_name(kind, name)
        distinct = sorted((name for name in self._known if _is_distinct(name)), key=len, reverse=True)
        listed = "|".join(map(re.escape, distinct))
        self._names = re.compile(rf"(?<![\w-])(?:{listed})(?![\w-])", re.IGNORECASE) if distinct else None
        self._lower = {name.lower(): other for name, other in self._known.items()}

    def hide(self, text: str) -> str:
        """The text with all that identifies somebody replaced."""
        text = _TOKEN.sub("TOKEN", text)
        text = _SECRET.sub(r"\1HIDDEN", text)
        text = _SERIAL.sub(r"\1HIDDEN", text)
        text = _ARGUMENT.sub(lambda found: f"{found[1]}{self._known.get(found[2], found[2])}", text)
        if self._names:
            text = self._names.sub(lambda found: self._lower[found[0].lower()], text)
        text = _MAIL.sub(lambda found: f"user{self._number('mail', found[0])}@mail.invalid", text)
        text = _HOME.sub(lambda found: f"/home/user{self._number('home', found[0])}", text)
        text = _UUID.sub(lambda found: f"00000000-0000-0000-0000-{self._number('uuid', found[0].lower()):012x}", text)
        text = _ID.sub(self._replace_id, text)
        text = _MAC.sub(self._replace_mac, text)
        text = _MAC_IN_NAME.sub(lambda found: self._macs.replace(found[0]), text)
        text = _V4.sub(self._replace_address, text)
        return _V6.sub(self._replace_address, text)

    def _replace_name(self, kind: str, name: str) -> str:
        if name in _KEPT_NAMES:
            return name
        if kind == "pair":
            namespace, _, pod = name.partition("/")
            return f"{self._known.get(namespace, namespace)}/{self._known.get(pod, pod)}"
        return f"{kind}-{self._number(kind, name)}"

    def _replace_id(self, found: re.Match[str]) -> str:
        number = self._number("container", found[0][:_ID_PREFIX])
        return f"{number:0{_ID_PREFIX}x}".ljust(len(found[0]), "0")

    def _replace_mac(self, found: re.Match[str]) -> str:
        return self._macs.replace(found[0].replace("-", ":").lower())

    def _replace_address(self, found: re.Match[str]) -> str:
        try:
            address = ipaddress.ip_address(found[0])
        except ValueError:
            return found[0]
        if address.is_loopback or address.is_unspecified or found[0].startswith(("255.", "fe80::/", "ff02:")):
            return found[0]
        number = self._number("address", str(address))
        if address.version == 4:  # noqa: PLR2004
            return str(ipaddress.IPv4Address("198.18.0.0") + number % (1 << 17))
        return str(ipaddress.IPv6Address("2001:db8::") + number)

    def _number(self, kind: str, original: str) -> int:
        numbers = self._numbers.setdefault(kind, {})
        return numbers.setdefault(original, len(numbers) + 1)


def _is_distinct(name: str) -> bool:
    return "/" in name or (len(name) >= _SHORTEST and not name.isdecimal())
