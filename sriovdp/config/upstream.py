"""What files of sriov-network-device-plugin have and the plugin takes, or ignores: made plain here, with warnings.

Go's decoder takes keys in any case and ignores those that it does not know. A key that is ignored there is ignored here
if that can do no harm: one that looks like a known key is a fault, and so is a strange key in a selector, which would
otherwise select more than its author means.
"""

from collections.abc import Iterator
from dataclasses import replace

from sriovdp.config.document import Document, KeyPath, Plain
from sriovdp.config.forms import Form, ListOf, MapOf, Optional
from sriovdp.config.keys import list_keys
from sriovdp.config.objects import ObjectOf, find_object
from sriovdp.config.values import Config, Pool, Selector
from sriovdp.config.wording import find_alike

_LEFTOVERS = ("selectorobj", "selectorobjs")
"""Fields of Go structs that sriov-network-operator writes into its ConfigMaps."""

_VERSION_2 = ("sriovmode",)
"""Keys of the plugin's versions before 3."""

_COMMENTS = ("comment", "comments", "description", "note")
_COMMENT_SIGNS = ("_", "#", "/", "$")
_NOTHING: tuple[Plain, ...] = (None, "", False, [])
_AS_UPSTREAM = "ignored, as by sriov-network-device-plugin"
_POOL_KEYS = [entry.name for entry in list_keys(Pool)]
_SELECTOR_KEYS = {entry.name.lower(): entry for entry in list_keys(Selector)}
_DEVICE_TYPE = next(entry.default for entry in list_keys(Pool) if entry.name == "deviceType")

Change = tuple[KeyPath, str, str]
"""Path of a key, its new spelling (empty: the key is dropped), and a warning (empty: there is none)."""

Warnings = list[tuple[int, KeyPath, str]]


def correct(document: Document) -> tuple[Document, Warnings]:
    """The document with each key in its own spelling and without keys that mean nothing, and warnings with their lines.

    A key that is there in two spellings counts as one that is there twice.
    """
    spelled, warnings = _change(document, list(_find_misspelt(find_object(Config), document.tree, ())))
    cleaned, others = _change(spelled, list(_find_ignored(spelled.tree)))
    return cleaned, [*warnings, *others]


def _find_misspelt(form: Form, node: Plain, path: KeyPath) -> Iterator[Change]:
    match form:
        case Optional(form=inner):
            yield from _find_misspelt(inner, node, path)
        case ListOf(item=item, single=single):
            if single and isinstance(node, dict):
                yield from _find_misspelt(item, node, path)
            for number, entry in enumerate(node if isinstance(node, list) else ()):
                yield from _find_misspelt(item, entry, (*path, number))
        case MapOf(value=value):
            for key, entry in node.items() if isinstance(node, dict) else ():
                yield from _find_misspelt(value, entry, (*path, key))
        case ObjectOf() if isinstance(node, dict):
            yield from _find_misspelt_keys(form, node, path)


def _find_misspelt_keys(form: ObjectOf, node: dict[str, Plain], path: KeyPath) -> Iterator[Change]:
    spellings = {entry.name.lower(): (entry.name, inner) for entry, inner in form.entries}
    for key, value in node.items():
        if key.lower() in spellings:
            name, inner = spellings[key.lower()]
            if key != name:
                yield (*path, key), name, f"read as '{name}'"
            yield from _find_misspelt(inner, value, (*path, key))
        elif key.startswith(_COMMENT_SIGNS) or key.lower() in _COMMENTS:
            yield (*path, key), "", ""


def _find_ignored(tree: Plain) -> Iterator[Change]:
    pools = tree.get("resourceList") if isinstance(tree, dict) else None
    for number, pool in enumerate(pools if isinstance(pools, list) else ()):
        if isinstance(pool, dict):
            yield from _find_ignored_keys(pool, ("resourceList", number))
            kind = pool.get("deviceType") or _DEVICE_TYPE
            yield from _find_misfits(pool.get("selectors"), kind, ("resourceList", number, "selectors"))


def _find_ignored_keys(pool: dict[str, Plain], path: KeyPath) -> Iterator[Change]:
    for key, value in pool.items():
        place = (*path, key)
        selector = _SELECTOR_KEYS.get(key.lower())
        if selector is not None and pool.get("selectors") not in (None, ""):
            yield (
                place,
                "",
                "" if value in _NOTHING else f"{_AS_UPSTREAM}; put {selector.name} into the pool's selectors",
            )
        elif key.lower() in _LEFTOVERS:
            yield place, "", "ignored: sriov-network-operator leaves this key behind"
        elif key.lower() in _VERSION_2:
            yield place, "", f"{_AS_UPSTREAM} since version 3"
        elif selector is None and key not in _POOL_KEYS and find_alike(key, _POOL_KEYS) is None:
            yield place, "", f"unknown key, {_AS_UPSTREAM}"


def _find_misfits(selectors: Plain, kind: Plain, path: KeyPath) -> Iterator[Change]:
    """Selector keys that do nothing for devices of the pool's type (upstream's pkg/types/types.go)."""
    for number, selector in enumerate(selectors if isinstance(selectors, list) else ()):
        if isinstance(selector, dict):
            yield from _find_misfits(selector, kind, (*path, number))
    for key, value in selectors.items() if isinstance(selectors, dict) else ():
        entry = _SELECTOR_KEYS.get(key.lower())
        if entry is not None and entry.key.kinds and isinstance(kind, str) and kind not in entry.key.kinds:
            fitting = " and ".join(entry.key.kinds)
            said = f"{_AS_UPSTREAM}: it does nothing for a device of type {kind}, it is for {fitting}; remove it"
            yield (*path, key), "", "" if value in _NOTHING else said


def _change(document: Document, changes: list[Change]) -> tuple[Document, Warnings]:
    if not changes:
        return document, []
    names = {path: name for path, name, _ in changes}
    duplicates = list(document.duplicates)
    tree = _rename(document.tree, (), names, duplicates, document)
    lines = {_translate(path, names): line for path, line in reversed(document.lines.items())}
    warnings = [(document.line(path), path, sentence) for path, _, sentence in changes if sentence]
    return replace(document, tree=tree, lines=lines, duplicates=duplicates), warnings


def _rename(
    node: Plain, path: KeyPath, names: dict[KeyPath, str], duplicates: list[tuple[int, KeyPath]], document: Document
) -> Plain:
    if isinstance(node, list):
        return [_rename(item, (*path, n), names, duplicates, document) for n, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    renamed: dict[str, Plain] = {}
    for key, value in node.items():
        place = (*path, key)
        name = names.get(place, key)
        if place in names and not name:
            continue
        if name in renamed:
            duplicates.append((document.line(place), place))
        else:
            renamed[name] = _rename(value, place, names, duplicates, document)
    return renamed


def _translate(path: KeyPath, names: dict[KeyPath, str]) -> KeyPath:
    return tuple(names.get(path[: n + 1], part) for n, part in enumerate(path))
