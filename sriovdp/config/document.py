"""YAML or JSON text as a plain tree, with the line of every entry.

The YAML is that of people who write config files: text, whole numbers, true, false, null, lists and objects. What turns
a small file into a large tree or a surprising value is refused (aliases, tags, more than one document) or stays text
(`yes`, `1.5`, `0000:00:04.0`: YAML 1.1 reads them as a truth value, a float and a number of base 60).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from sriovdp.errors import ConfigError

MAX_BYTES = 256 * 1024
"""Size of a config file: room for thousands of devices, read within seconds."""

MAX_DEPTH = 16
"""Lists and objects inside each other; the config itself is 6 deep."""

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | bool | None"
KeyPath: TypeAlias = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_WORDS: dict[str, Plain] = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(slots=True)
class Document:
    """A file's tree. `lines` has the line of each key and list item, from 1; `duplicates` where a key comes again."""

    tree: Plain = None
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


def read(text: str, source: str) -> Document:
    """Read the text of a config file. Raises ConfigError when it is too large, not YAML, or YAML we refuse."""
    if len(text) > MAX_BYTES:
        raise ConfigError(source, [f"the file is larger than {MAX_BYTES // 1024} KiB"])
    try:
        return _Builder(yaml.parse(_blank_tabs(text), Loader=yaml.SafeLoader)).build()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(source, [f"line {_line(error.problem_mark)}: {error.problem}"]) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(source, [f"line {line}: the character U+{error.character:04X} is not allowed"]) from error


class _Builder:
    """Builds a document from PyYAML's events: the only stage at which aliases, tags and depth can be refused early."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self.events = (event for event in events if not isinstance(event, _FRAME_EVENTS))
        self.document = Document()

    def build(self) -> Document:
        """Read all events. Raises yaml.MarkedYAMLError."""
        first = next(self.events, None)
        if first is not None:
            self.document.tree = self.read(first, ())
        extra = next(self.events, None)
        if extra is not None:
            raise _refusal("a second document begins here; one file has one", extra)
        return self.document

    def read(self, event: yaml.Event, path: KeyPath) -> Plain:
        """Read the value that begins with this event."""
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) or event.anchor is not None:
            raise _refusal("aliases and anchors are refused; write the value out", event)
        if event.tag not in {None, "!"}:
            raise _refusal(f"the tag {event.tag!r} is refused; write the value alone", event)
        if isinstance(event, yaml.ScalarEvent):
            return _resolve(event)
        if len(path) >= MAX_DEPTH:
            raise _refusal(f"nested deeper than {MAX_DEPTH}", event)
        return self.read_list(path) if isinstance(event, yaml.SequenceStartEvent) else self.read_object(path)

    def read_list(self, path: KeyPath) -> Plain:
        """Read list items up to the end of the list."""
        items: list[Plain] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            place = (*path, len(items))
            self.document.lines.setdefault(place, _line(event.start_mark))
            items.append(self.read(event, place))
        return items

    def read_object(self, path: KeyPath) -> Plain:
        """Read keys and values up to the end of the object. Of a key that comes twice, the first value counts."""
        entries: dict[str, Plain] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise _refusal("a key must be one word", event)
            self.read(event, path)  # for what it refuses; a key is text even when it looks like a number
            place, line = (*path, event.value), _line(event.start_mark)
            self.document.lines.setdefault(place, line)
            value = self.read(next(self.events), place)
            if event.value in entries:
                self.document.duplicates.append((line, place))
            else:
                entries[event.value] = value
        return entries


_FRAME_EVENTS = (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent)


def _resolve(event: yaml.ScalarEvent) -> Plain:
    """Give a plain scalar its type: the JSON words and whole numbers; all else, and all in quotes, is text."""
    if not event.implicit[0]:
        return event.value
    if event.value in _WORDS:
        return _WORDS[event.value]
    return int(event.value) if _INTEGER.fullmatch(event.value) else event.value


def _blank_tabs(text: str) -> str:
    """JSON may be indented with tabs, which YAML refuses. Inside its strings a tab can not stand."""
    return text.replace("\t", " ") if text.lstrip().startswith("{") else text


def _line(mark: Any) -> int:
    """Line of one of PyYAML's marks, which it may leave out."""
    return mark.line + 1 if mark else 1


def _refusal(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    mark: Any = event.start_mark  # the type stubs give events two kinds of mark, errors only one
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
