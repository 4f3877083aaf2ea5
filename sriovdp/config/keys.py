"""A key of the config file is a field of a dataclass in `values`, and all that is said of it stands in its annotation.

The type says which values are valid (`forms` reads it), `Key` says the rest. Reading, the JSON schema, the written-out
config, "did you mean" and the tables of docs/config.md are made from it.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_type_hints


@dataclass(frozen=True, slots=True)
class Key:
    """What a field's annotation says of its key.

    `description`: one or two short sentences in Markdown, for docs/config.md and for editors. `name`: the key, where it
    is not the field's name in camel case. `least`: entries that a list or map must have when it is given. `single`: one
    object may stand for a list of one. `missing`: what to do when a key that must be given is not there. `kinds`: the
    device types that a selector is for; none: all. `filters`: a selector's key decides which devices it takes.
    """

    description: str
    name: str = ""
    least: int = 0
    single: bool = False
    missing: str = ""
    kinds: tuple[str, ...] = ()
    filters: bool = True


@dataclass(frozen=True, slots=True)
class KeyField:
    """A key with the field it stands for: `hint` is the field's type without the Key."""

    name: str
    attribute: str
    key: Key
    hint: Any
    default: Any = field(default=dataclasses.MISSING)

    @property
    def required(self) -> bool:
        """Whether the key must be given."""
        return self.default is dataclasses.MISSING


@cache
def list_keys(section: type) -> tuple[KeyField, ...]:
    """The keys of an object of the file, in the order of the fields. A field without Key is no key."""
    hints = get_type_hints(section, include_extras=True)
    return tuple(
        found for entry in dataclasses.fields(section) if (found := _find_key(entry, hints[entry.name])) is not None
    )


def _find_key(entry: "dataclasses.Field[Any]", hint: Any) -> KeyField | None:
    key = next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Key)), None)
    if key is None:
        return None
    default = entry.default_factory() if entry.default_factory is not dataclasses.MISSING else entry.default
    return KeyField(key.name or _to_camel(entry.name), entry.name, key, hint, default)


def _to_camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def demand_one(section: Any) -> None:
    """Raise ValueError when an object has none of its keys."""
    kind: type = type(section)
    keys = list_keys(kind)
    if all(getattr(section, entry.attribute) == entry.default for entry in keys):
        raise ValueError(f"needs at least one of {', '.join(entry.name for entry in keys)}")
