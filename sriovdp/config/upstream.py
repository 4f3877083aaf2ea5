"""What files of sriov-network-device-plugin have and Go takes: keys in another case, and keys left behind."""

from collections.abc import Iterator
from dataclasses import replace

from sriovdp.config.document import Document, KeyPath, Plain
from sriovdp.config.forms import Form, ListOf, MapOf, Optional
from sriovdp.config.objects import ObjectOf, find_object
from sriovdp.config.values import Config

_LEFTOVERS = ("selectorobj", "selectorobjs")
"""Keys of Go structs that sriov-network-operator writes into its ConfigMaps, in lower case."""

Renames = dict[KeyPath, str]
"""Valid spelling of a key, by its path as it is written; empty: the key is dropped."""


def correct(document: Document) -> tuple[Document, list[tuple[KeyPath, str]]]:
    """The document with its keys in their own spelling, and a warning for each that was not, with its path as written.

    A key that is there in two spellings counts as one that is there twice.
    """
    found = list(_find(find_object(Config), document.tree, ()))
    if not found:
        return document, []
    renames = {path: name for path, name, _ in found}
    duplicates = list(document.duplicates)
    tree = _rename(document.tree, (), renames, duplicates, document)
    lines = {_translate(path, renames): line for path, line in reversed(document.lines.items())}
    warnings = [(path, sentence) for path, _, sentence in found]
    return replace(document, tree=tree, lines=lines, duplicates=duplicates), warnings


def _find(form: Form, node: Plain, path: KeyPath) -> Iterator[tuple[KeyPath, str, str]]:
    """Keys to rename or drop, with a sentence for each."""
    match form:
        case Optional(form=inner):
            yield from _find(inner, node, path)
        case ListOf(item=item, single=single):
            if single and isinstance(node, dict):
                yield from _find(item, node, path)
            for number, entry in enumerate(node if isinstance(node, list) else ()):
                yield from _find(item, entry, (*path, number))
        case MapOf(value=value):
            for key, entry in node.items() if isinstance(node, dict) else ():
                yield from _find(value, entry, (*path, key))
        case ObjectOf():
            if isinstance(node, dict):
                yield from _find_in_object(form, node, path)


def _find_in_object(form: ObjectOf, node: dict[str, Plain], path: KeyPath) -> Iterator[tuple[KeyPath, str, str]]:
    spellings = {entry.name.lower(): (entry.name, inner) for entry, inner in form.entries}
    for key, value in node.items():
        name, inner = spellings.get(key.lower(), (None, None))
        if name is None or inner is None:
            if key.lower() in _LEFTOVERS and value is None:
                yield (*path, key), "", "ignored: sriov-network-operator leaves this key behind"
            continue
        if key != name:
            yield (*path, key), name, f"read as '{name}'"
        yield from _find(inner, value, (*path, key))


def _rename(
    node: Plain, path: KeyPath, renames: Renames, duplicates: list[tuple[int, KeyPath]], document: Document
) -> Plain:
    if isinstance(node, list):
        return [_rename(item, (*path, n), renames, duplicates, document) for n, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    renamed: dict[str, Plain] = {}
    for key, value in node.items():
        place = (*path, key)
        name = renames.get(place, key)
        if name == "" and place in renames:
            continue
        if name in renamed:
            duplicates.append((document.line(place), place))
        else:
            renamed[name] = _rename(value, place, renames, duplicates, document)
    return renamed


def _translate(path: KeyPath, renames: Renames) -> KeyPath:
    return tuple(renames.get(path[: n + 1], part) for n, part in enumerate(path))
