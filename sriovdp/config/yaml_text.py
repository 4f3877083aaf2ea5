"""YAML text as a plain tree, with the line of every entry.

The YAML is that of people who write config files: text, whole numbers, true, false, null, lists and objects. What turns
a small file into a large tree or a surprising value is refused (aliases, tags, more than one document) or stays text
(`yes`, `1.5`, `0000:00:04.0`: YAML 1.1 reads them as a truth value, a float and a number of base 60).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from sriovdp.config.document import MAX_DEPTH, MAX_DOCUMENTS, Document, KeyPath, Plain, resolve


@dataclass
class YamlError(Exception):
    """A text is no YAML, or refused: `line` from 1, and why. Not `is_text`: it has a character that no text has."""

    line: int
    problem: str
    is_text: bool = True


def read_yaml(text: str) -> list[Document]:
    """Read YAML; of several documents each. Raises YamlError."""
    try:
        return _Builder(yaml.parse(_blank_tabs(text), Loader=yaml.SafeLoader)).build()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlError(line, str(error.problem)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(line, f"the character U+{error.character:04X} is not allowed", is_text=False) from None


class _Builder:
    """Builds a document from PyYAML's events: the only stage at which aliases, tags and depth can be refused early."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self.events = events
        self.document = Document()

    def build(self) -> list[Document]:
        """Read all events. Raises yaml.MarkedYAMLError."""
        documents: list[Document] = []
        for event in self.events:
            if isinstance(event, _FRAME_EVENTS):
                continue
            if len(documents) >= MAX_DOCUMENTS:
                raise _refusal(f"more than {MAX_DOCUMENTS} documents", event)
            self.document = Document(begin=_line(event.start_mark))
            self.document.tree = self.read(event, ())
            documents.append(self.document)
        return documents or [Document()]

    def read(self, event: yaml.Event, path: KeyPath) -> Plain:
        """Read the value that begins with this event."""
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) or event.anchor is not None:
            raise _refusal("aliases and anchors are refused; write the value out", event)
        if event.tag not in {None, "!"}:
            raise _refusal(f"the tag {event.tag!r} is refused; write the value alone", event)
        if isinstance(event, yaml.ScalarEvent):
            if event.style in {"|", ">"}:
                self.document.blocks[path] = _line(event.start_mark) + 1
            return resolve(event.value) if event.implicit[0] else event.value
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


def _blank_tabs(text: str) -> str:
    """JSON may be indented with tabs, which YAML refuses. Inside its strings a tab cannot stand."""
    return text.replace("\t", " ") if text.lstrip().startswith("{") else text


def _line(mark: Any) -> int:
    """Line of one of PyYAML's marks, which it may leave out."""
    return mark.line + 1 if mark else 1


def _refusal(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    mark: Any = event.start_mark  # the type stubs give events two kinds of mark, errors only one
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
