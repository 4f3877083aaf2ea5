"""A config file as a plain tree, with the line of every entry; json_text.py and yaml_text.py read it."""

import re
from dataclasses import dataclass, field
from typing import TypeAlias

MAX_BYTES = 256 * 1024
"""Size of a config file: room for thousands of devices, read within seconds."""

MAX_DEPTH = 16
"""Lists and objects inside each other; the config itself is 6 deep."""

MAX_DOCUMENTS = 100
"""YAML documents in one file of manifests."""

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | bool | None"
KeyPath: TypeAlias = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_WORDS: dict[str, Plain] = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(slots=True)
class Document:
    """A file's tree, which begins in line `begin`.

    `lines` has the line of each key and list item, from 1, `blocks` the first line of each text that has lines of its
    own, `duplicates` where a key comes again.
    """

    tree: Plain = None
    begin: int = 1
    blocks: dict[KeyPath, int] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    duplicates: list[tuple[int, KeyPath]] = field(default_factory=list)

    def line(self, path: KeyPath) -> int:
        """Line of an entry, or of the nearest entry around it when it is not in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def write_path(path: KeyPath) -> str:
    """A path as people write it: `resourceList[0].selectors.pfNames[1]`; nothing for the file itself."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{_write_key(part)}" for part in path)
    return "".join(parts).removeprefix(".")


def _write_key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else repr(key[:60])


def resolve(word: str) -> Plain:
    """Give a word without quotes its type: true, false, null and whole numbers; all else is text."""
    if word in _WORDS:
        return _WORDS[word]
    return int(word) if _INTEGER.fullmatch(word) else word
