"""Writes what is generated from the config file's keys: the tables in docs/config.md and config/schema.json.

Run it as `make reference` after a change of `sriovdp/config/values.py`. A test holds both in step.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from sriovdp.config.forms import Form, ListOf, Optional
from sriovdp.config.keys import KeyField
from sriovdp.config.objects import ObjectOf, find_object
from sriovdp.config.schema import write_schema
from sriovdp.config.values import Config

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "config.md"
SCHEMA = ROOT / "config" / "schema.json"

_TABLE = re.compile(r"(<!-- keys of ([\w.]+) -->\n).*?(<!-- end of keys -->)", re.DOTALL)
_FILE = "file"
_SHORT_KINDS = {"netDevice": "net", "accelerator": "accelerator", "auxNetDevice": "aux"}


def fill_tables(page: str) -> str:
    """The page with the table between each pair of marks written again.

    A mark names an object by its keys: `file`, `resourceList.selectors`. Objects inside it without a mark of their own
    are in its table.
    """
    marked = {match[2] for match in _TABLE.finditer(page)}
    return _TABLE.sub(lambda match: f"{match[1]}{_write_table(match[2], marked)}{match[3]}", page)


def _write_table(name: str, marked: set[str]) -> str:
    rows = list(_list_rows(_find(name), "" if name == _FILE else name, "", marked))
    with_kinds = any(entry.key.kinds for _, entry, _ in rows)
    head = ["key", *(["for"] if with_kinds else []), "meaning", "default"]
    lines = [head, ["---"] * len(head)]
    for shown, entry, form in rows:
        kinds = ", ".join(_SHORT_KINDS[kind] for kind in entry.key.kinds) or "all"
        lines.append(
            [f"`{shown}`", *([kinds] if with_kinds else []), entry.key.description, _write_default(entry, form)]
        )
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def _find(name: str) -> ObjectOf:
    found = find_object(Config)
    for key in name.split(".") if name != _FILE else []:
        inner = next((_find_inner(form) for entry, form in found.entries if entry.name == key), None)
        if inner is None:
            raise ValueError(f"the mark `keys of {name}`: {key} is no object of the config file")
        found = inner
    return found


def _list_rows(form: ObjectOf, place: str, shown: str, marked: set[str]) -> Iterator[tuple[str, KeyField, Form]]:
    for entry, inner in form.entries:
        path = f"{place}.{entry.name}" if place else entry.name
        nested = _find_inner(inner)
        yield f"{shown}{entry.name}", entry, inner
        if nested is not None and path not in marked:
            brackets = "[]" if isinstance(inner, ListOf) else ""
            yield from _list_rows(nested, path, f"{shown}{entry.name}{brackets}.", marked)


def _find_inner(form: Form) -> ObjectOf | None:
    """The object that a value is, or a list of."""
    match form:
        case ObjectOf():
            return form
        case Optional(form=inner) | ListOf(item=inner):
            return _find_inner(inner)
    return None


def _write_default(entry: KeyField, form: Form) -> str:
    if entry.required:
        return "must be given"
    written = form.write(entry.default)
    if written in (None, [], {}) or _find_inner(form):
        return ""
    return f"`{written if isinstance(written, str) else json.dumps(written)}`"


def main() -> None:
    """Write both files."""
    PAGE.write_text(fill_tables(PAGE.read_text()))
    SCHEMA.write_text(write_schema())


if __name__ == "__main__":
    main()
