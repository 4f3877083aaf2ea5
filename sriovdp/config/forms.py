"""How the values of the config file are read, written and described in the JSON schema: one form for each kind of type.

`objects.find_form` makes the form from a type: a dataclass is an object, `tuple[X, ...]` a list, `Mapping[K, V]` a map,
`bool` true or false, a Literal one of some words. A `Word`, `Number`, `Choice` or `Special` in an annotation is a form
itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

from sriovdp.config.document import KeyPath, Plain
from sriovdp.config.wording import show, suggest

Schema: TypeAlias = dict[str, Any]

INVALID: Any = object()
"""What `read` gives for a value that has a fault."""


@dataclass(slots=True)
class Faults:
    """What is wrong with a tree: where, and a sentence."""

    found: list[tuple[KeyPath, str]] = field(default_factory=list)

    def add(self, path: KeyPath, sentence: str) -> Any:
        """Note a fault. Returns INVALID."""
        self.found.append((path, sentence))
        return INVALID

    def check(self, path: KeyPath, value: Any, check: Callable[[Any], Any]) -> Any:
        """What the check makes of a value; INVALID when it raises ValueError, whose sentence is the fault."""
        try:
            return check(value)
        except ValueError as error:
            return self.add(path, str(error) if isinstance(value, dict | list) else f"{show(value)}: {error}")


class Form(Protocol):
    """How one kind of value is read, written and described."""

    def read(self, value: Plain, path: KeyPath, faults: Faults) -> Any:
        """The value as the program has it, or INVALID with its faults noted."""

    def write(self, value: Any) -> Any:
        """The value as it stands in a file."""

    def describe(self, defs: dict[str, Schema]) -> Schema:
        """Its JSON schema; objects go to `defs` by the name of their class."""


@dataclass(frozen=True, slots=True, eq=False)
class Word:
    """A text, or a number that stands for one; `check` gives its meaning or raises ValueError with what is allowed."""

    check: Callable[[str], Any]
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})

    def read(self, value: Plain, path: KeyPath, faults: Faults) -> Any:
        """See Form."""
        if type(value) is int:
            value = str(value)
        if not isinstance(value, str):
            return faults.add(path, f"must be a text, not {show(value)}")
        return faults.check(path, value, self.check)

    def write(self, value: Any) -> Any:
        """See Form."""
        return str(value)

    def describe(self, _: dict[str, Schema]) -> Schema:
        """See Form."""
        return dict(self.schema)


@dataclass(frozen=True, slots=True, eq=False)
class Special:
    """A value that may be of several kinds; `check` takes it as it stands in the file."""

    check: Callable[[Any], Any]
    schema: Mapping[str, Any]

    def read(self, value: Plain, path: KeyPath, faults: Faults) -> Any:
        """See Form."""
        return faults.check(path, value, self.check)

    def write(self, value: Any) -> Any:
        """See Form."""
        return {str(key): entry for key, entry in value.items()} if isinstance(value, Mapping) else value

    def describe(self, _: dict[str, Schema]) -> Schema:
        """See Form."""
        return dict(self.schema)


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number from `low` to `high`; `what` says what kind of number, with its article."""

    low: int
    high: int
    what: str

    def read(self, value: Plain, path: KeyPath, faults: Faults) -> Any:
        """See Form."""
        if type(value) is int and self.low <= value <= self.high:
            return value
        return faults.add(path, f"{show(value)}: {self.what} is a whole number from {self.low} to {self.high}")

    def write(self, value: Any) -> Any:
        """See Form."""
        return value

    def describe(self, _: dict[str, Schema]) -> Schema:
        """See Form."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Switch:
    """true or false."""

    def read(self, value: Plain, path: KeyPath, faults: Faults) -> Any:
        """See Form."""
        return value if isinstance(value, bool) else faults.add(path, f"must be true or false, not {show(value)}")

    def write(self, value: Any) -> Any:
        """See Form."""
        return value

    def describe(self, _: dict[str, Schema]) -> Schema:
        """See Form."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """One of some words. `aliases` are words that people write in their place, in lower case."""

    words: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def read(self, value: Plain, path: KeyPath, faults: Faults) -> Any:
        """See Form."""
        if isinstance(value, str) and value in self.words:
            return value
        word = self.aliases.get(value.lower(), value) if isinstance(value, str) else str(show(value))
        return faults.add(path, f"{show(value)}: {suggest(word, self.words)}")

    def write(self, value: Any) -> Any:
        """See Form."""
        return value

    def describe(self, _: dict[str, Schema]) -> Schema:
        """See Form."""
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list; with `single` one object stands for a list of one."""

    item: Form
    least: int = 0
    single: bool = False

    def read(self, value: Plain, path: KeyPath, faults: Faults) -> Any:
        """See Form."""
        if self.single and isinstance(value, dict):
            read = self.item.read(value, path, faults)
            return read if read is INVALID else (read,)
        if not isinstance(value, list):
            wanted = "an object or a list of objects" if self.single else "a list"
            return faults.add(path, f"must be {wanted}, not {show(value)}")
        if len(value) < self.least:
            return faults.add(path, f"must have at least one entry, not {show(value)}")
        items = tuple(self.item.read(entry, (*path, number), faults) for number, entry in enumerate(value))
        return INVALID if any(item is INVALID for item in items) else items

    def write(self, value: Any) -> Any:
        """See Form."""
        return [self.item.write(item) for item in value]

    def describe(self, defs: dict[str, Schema]) -> Schema:
        """See Form."""
        item = self.item.describe(defs)
        schema = {"type": "array", "items": item} | ({"minItems": self.least} if self.least else {})
        return {"anyOf": [item, schema]} if self.single else schema


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object whose keys the admin chooses."""

    key: Form
    value: Form
    least: int = 0

    def read(self, value: Plain, path: KeyPath, faults: Faults) -> Any:
        """See Form."""
        if not isinstance(value, dict):
            return faults.add(path, f"must be an object, not {show(value)}")
        if len(value) < self.least:
            return faults.add(path, "must have at least one entry")
        read = [
            (self.key.read(name, (*path, name), faults), self.value.read(entry, (*path, name), faults))
            for name, entry in value.items()
        ]
        return INVALID if any(INVALID in (k, v) for k, v in read) else MappingProxyType(dict(read))

    def write(self, value: Any) -> Any:
        """See Form."""
        return {self.key.write(name): self.value.write(entry) for name, entry in value.items()}

    def describe(self, defs: dict[str, Schema]) -> Schema:
        """See Form."""
        schema = {"type": "object", "additionalProperties": self.value.describe(defs)}
        return schema | ({"minProperties": self.least} if self.least else {})


@dataclass(frozen=True, slots=True)
class Optional:
    """A value that may be null, which is as if it were not given."""

    form: Form

    def read(self, value: Plain, path: KeyPath, faults: Faults) -> Any:
        """See Form."""
        return None if value is None else self.form.read(value, path, faults)

    def write(self, value: Any) -> Any:
        """See Form."""
        return None if value is None else self.form.write(value)

    def describe(self, defs: dict[str, Schema]) -> Schema:
        """See Form."""
        return {"anyOf": [self.form.describe(defs), {"type": "null"}]}
