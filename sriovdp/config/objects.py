"""Objects of the config file: a dataclass of `values` read from, and written to, a tree."""

import types
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from sriovdp.config.document import KeyPath, Plain
from sriovdp.config.forms import (
    INVALID,
    Choice,
    Faults,
    Form,
    ListOf,
    MapOf,
    Number,
    Optional,
    Schema,
    Special,
    Switch,
    Word,
)
from sriovdp.config.keys import Key, KeyField, list_keys
from sriovdp.config.wording import show, suggest

_NOTHING: tuple[Plain, ...] = (None, "")


@dataclass(frozen=True, slots=True)
class ObjectOf:
    """An object whose keys are the fields of a dataclass, and no others.

    A class may have these: `LENIENT`: null and empty text are as if the key were not there, as in Go. `SHORT`: the key
    that a text alone stands for. `checked()`: gives the object back, perhaps changed, or raises ValueError.
    """

    section: type
    entries: tuple[tuple[KeyField, Form], ...]

    @property
    def lenient(self) -> bool:
        """Whether null and empty text are as if the key were not there."""
        return bool(getattr(self.section, "LENIENT", False))

    def read(self, value: Plain, path: KeyPath, faults: Faults) -> Any:
        """See Form."""
        if isinstance(value, str) and hasattr(self.section, "SHORT"):
            return self._read_short(value, path, faults)
        if not isinstance(value, dict):
            return faults.add(path, f"must be an object, not {show(value)}")
        given = {key: entry for key, entry in value.items() if not (self.lenient and entry in _NOTHING)}
        read = {}
        for entry, form in self.entries:
            if entry.name in given:
                read[entry.attribute] = form.read(given[entry.name], (*path, entry.name), faults)
            elif entry.required:
                missing = f"; {entry.key.missing}" if entry.key.missing else ""
                read[entry.attribute] = faults.add((*path, entry.name), f"must be given{missing}")
        known = [entry.name for entry, _ in self.entries]
        unknown = [key for key in given if key not in known]
        for key in unknown:
            faults.add((*path, key), f"unknown key; {suggest(key, known)}")
        return INVALID if unknown or INVALID in read.values() else self._build(read, path, faults)

    def _read_short(self, value: str, path: KeyPath, faults: Faults) -> Any:
        for entry, form in self.entries:
            if entry.name == getattr(self.section, "SHORT", None):
                read = form.read(value, path, faults)
                return read if read is INVALID else self._build({entry.attribute: read}, path, faults)
        raise TypeError(f"{self.section} has no key as its SHORT says")

    def _build(self, read: dict[str, Any], path: KeyPath, faults: Faults) -> Any:
        built = self.section(**read)
        try:
            return built.checked() if hasattr(built, "checked") else built
        except ValueError as error:
            return faults.add(path, str(error))

    def write(self, value: Any) -> Any:
        """See Form. Left out is what has no default and is not given, and an empty list that is the default."""
        tree = {}
        for entry, form in self.entries:
            held = getattr(value, entry.attribute)
            if held is not None and not (held == entry.default and not _says_something(held)):
                tree[entry.name] = form.write(held)
        return tree

    def describe(self, defs: dict[str, Schema]) -> Schema:
        """See Form."""
        name = self.section.__name__
        if name not in defs:
            defs[name] = {}  # for an object that has itself inside
            defs[name] = self._describe(defs)
        reference = {"$ref": f"#/$defs/{name}"}
        return {"anyOf": [reference, {"type": "string"}]} if hasattr(self.section, "SHORT") else reference

    def _describe(self, defs: dict[str, Schema]) -> Schema:
        properties = {entry.name: self._describe_key(entry, form, defs) for entry, form in self.entries}
        required = [entry.name for entry, _ in self.entries if entry.required]
        return {
            "description": (self.section.__doc__ or "").partition("\n")[0],
            "type": "object",
            "properties": properties,
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }

    def _describe_key(self, entry: KeyField, form: Form, defs: dict[str, Schema]) -> Schema:
        schema = form.describe(defs)
        if self.lenient and not entry.required:
            kinds = [kind for kind in schema.get("anyOf", [schema]) if kind != {"type": "null"}]
            schema = {"anyOf": [*kinds, {"enum": list(_NOTHING)}]}
        said = {"description": entry.key.description}
        if not entry.required and _says_something(entry.default):
            said["default"] = form.write(entry.default)
        return schema | said


def _says_something(value: Any) -> bool:
    """Whether a value is more than nothing, or an empty list or map."""
    return value is not None and not (isinstance(value, tuple | Mapping) and not value)


@cache
def find_object(section: type) -> ObjectOf:
    """The form of a dataclass."""
    return ObjectOf(section, tuple((entry, find_form(entry.hint, entry.key)) for entry in list_keys(section)))


def find_form(hint: Any, key: Key | None = None) -> Form:
    """The form that a type stands for; `key` is that of the field with this type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        given = next((extra for extra in args[1:] if isinstance(extra, Word | Number | Choice | Special)), None)
        return given or find_form(args[0], key)
    if origin in {Union, types.UnionType}:
        (inner,) = (arg for arg in args if arg is not types.NoneType)
        return Optional(find_form(inner, key))
    if isinstance(origin, type):
        return _find_collection(origin, args, key or Key(""))
    return Choice(args) if origin is Literal else _find_plain(hint)


def _find_collection(origin: type, args: tuple[Any, ...], key: Key) -> Form:
    if issubclass(origin, Mapping):
        return MapOf(find_form(args[0]), find_form(args[1]), key.least)
    return ListOf(find_form(args[0]), key.least, single=key.single)


def _find_plain(hint: Any) -> Form:
    if isinstance(hint, type) and is_dataclass(hint):
        return find_object(hint)
    plain: dict[Any, Form] = {bool: Switch(), str: Word(str)}
    if hint not in plain:
        raise TypeError(f"{hint} has no form in the config file")
    return plain[hint]
