"""Configs of many nodes in one: entries that nodes have in common name these nodes."""

from collections.abc import Mapping
from typing import Any

_LISTS = ("physicalFunctions", "resourceList")


def unite_trees(trees: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One tree from those of nodes by name. Each entry names the nodes that have it."""
    united: dict[str, Any] = {"cdi": True} if any(tree.get("cdi") for tree in trees.values()) else {}
    for key in _LISTS:
        entries: dict[str, tuple[Any, list[str]]] = {}
        for name, tree in sorted(trees.items()):
            for entry in tree.get(key, ()):
                entries.setdefault(repr(entry), (entry, []))[1].append(name)
        if entries:
            united[key] = [{**entry, "nodes": {"names": names}} for entry, names in entries.values()]
    return united
