"""Upstream's keys in another case: Go's JSON decoder takes them, so people write them. Here they are put right."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from sriovdp.config.document import Document, Path, Plain
from sriovdp.config.rules import ALL_SELECTOR_FIELDS

_POOL_KEYS = ("resourceName", "resourcePrefix", "deviceType", "excludeTopology", "selectors", "additionalInfo")

Renames = dict[Path, str]
"""Right spelling of a key, by its path as it is written."""


def correct(document: Document) -> tuple[Document, list[tuple[Path, str]]]:
    """The document with upstream's keys spelled right, and a warning for each that was not, with its path as written.

    A key that is there in two spellings counts as one that is there twice.
    """
    renames = dict(_find_renames(document.tree))
    leftovers = list(_find_leftovers(document.tree))
    if not renames and not leftovers:
        return document, []
    duplicates = list(document.duplicates)
    tree = _rename(document.tree, (), renames | dict.fromkeys(leftovers, ""), duplicates, document)
    lines = {_translate(path, renames): line for path, line in reversed(document.lines.items())}
    warnings = [(path, f"the right spelling is '{name}'") for path, name in renames.items()]
    warnings += [(path, "sriov-network-operator leaves this behind; it means nothing") for path in leftovers]
    return replace(document, tree=tree, lines=lines, duplicates=duplicates), warnings


def _find_renames(tree: Plain) -> Iterator[tuple[Path, str]]:
    for list_path, pools in _spell(tree, (), ("resourceList",)):
        yield from _own(list_path, "resourceList")
        for index, pool in enumerate(pools if isinstance(pools, list) else []):
            for path, value in _spell(pool, (*list_path, index), _POOL_KEYS):
                name = _right(path, _POOL_KEYS)
                yield from _own(path, name)
                if name == "selectors":
                    yield from _find_in_selectors(value, path)


def _find_leftovers(tree: Plain) -> Iterator[Path]:
    """Keys of Go structs that sriov-network-operator writes into its ConfigMaps, and that nobody reads."""
    for list_path, pools in _spell(tree, (), ("resourceList",)):
        for index, pool in enumerate(pools if isinstance(pools, list) else []):
            for path, value in _spell(pool, (*list_path, index), ("SelectorObj", "SelectorObjs")):
                if value is None:
                    yield path


def _find_in_selectors(selectors: Plain, path: Path) -> Iterator[tuple[Path, str]]:
    places: list[tuple[Path, Plain]] = [(path, selectors)] if isinstance(selectors, dict) else []
    places += [((*path, n), entry) for n, entry in enumerate(selectors)] if isinstance(selectors, list) else []
    for place, selector in places:
        for key_path, _ in _spell(selector, place, ALL_SELECTOR_FIELDS):
            yield from _own(key_path, _right(key_path, ALL_SELECTOR_FIELDS))


def _spell(node: Plain, path: Path, known: Iterable[str]) -> Iterator[tuple[Path, Plain]]:
    """Entries of an object whose keys are known ones in any case."""
    folded = {name.lower() for name in known}
    for key, value in node.items() if isinstance(node, dict) else ():
        if key.lower() in folded:
            yield (*path, key), value


def _right(path: Path, known: Iterable[str]) -> str:
    return next(name for name in known if name.lower() == str(path[-1]).lower())


def _own(path: Path, name: str) -> Iterator[tuple[Path, str]]:
    if path[-1] != name:
        yield path, name


def _rename(node: Plain, path: Path, renames: Renames, duplicates: list[tuple[int, Path]], document: Document) -> Plain:
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


def _translate(path: Path, renames: Renames) -> Path:
    return tuple(renames.get(path[: n + 1], part) for n, part in enumerate(path))
