"""Kubernetes manifests that have a config file inside: a ConfigMap, a list of them, a NicClusterPolicy.

People keep the manifest in git and not the text that the pod sees, so either is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sriovdp.config.document import Document, KeyPath, Plain

_KINDS = ("resourcelist", "physicalfunctions")


@dataclass(frozen=True, slots=True)
class Embedded:
    """A text inside a manifest: the names it goes by, and its place in the document."""

    names: tuple[str, ...]
    text: str
    document: Document
    path: KeyPath

    @property
    def is_config(self) -> bool:
        """Whether it looks like a config file."""
        return any(word in self.text.lower() for word in _KINDS)


def is_manifest(tree: Plain) -> bool:
    """Whether a tree is a Kubernetes object. The config file has no `kind`."""
    return isinstance(tree, dict) and isinstance(tree.get("kind"), str)


def find_embedded(documents: Sequence[Document], key: str, node: str) -> Embedded:
    """The text in manifests that is meant: under `key`, or the node's own, or the only one that is a config file.

    `key` is the key of a ConfigMap's data, with the ConfigMap's name before it where that is needed: `name/key`.
    Raises ValueError with a sentence.
    """
    found = [entry for document in documents for entry in _find(document, document.tree, ())]
    likely = [entry for entry in found if entry.is_config]
    if key:
        chosen = [entry for entry in found if key in entry.names]
    else:
        chosen = [entry for entry in found if node and node in entry.names] or likely or found
    if len(chosen) == 1:
        return chosen[0]
    listed = chosen or likely or found
    first = [entry.names[0] for entry in listed]
    keys = ", ".join(entry.names[-1] if first.count(entry.names[0]) > 1 else entry.names[0] for entry in listed)
    if not keys:
        raise ValueError("this is a Kubernetes manifest without a config file; give a ConfigMap with `data`")
    if key and not chosen:
        raise ValueError(f"the manifest has no key {key!r}; it has: {keys}")
    raise ValueError(f"the manifest has several config files; choose one by its key: {keys}")


def _find(document: Document, node: Plain, path: KeyPath) -> Iterator[Embedded]:
    if not isinstance(node, dict):
        return
    items = node.get("items")
    for number, item in enumerate(items if isinstance(items, list) else ()):
        yield from _find(document, item, (*path, "items", number))
    if node.get("kind") == "ConfigMap":
        data = node.get("data")
        for key, text in data.items() if isinstance(data, dict) else ():
            if isinstance(text, str):
                yield Embedded((key, f"{_name(node)}/{key}"), text, document, (*path, "data", key))
    if node.get("kind") == "NicClusterPolicy":
        text = _walk(node, ("spec", "sriovDevicePlugin", "config"))
        if isinstance(text, str):
            place = (*path, "spec", "sriovDevicePlugin", "config")
            yield Embedded(("sriovDevicePlugin",), text, document, place)


def _walk(node: Plain, path: KeyPath) -> Plain:
    for key in path:
        node = node.get(str(key)) if isinstance(node, dict) else None
    return node


def _name(node: dict[str, Plain]) -> str:
    name = _walk(node, ("metadata", "name"))
    return name if isinstance(name, str) else ""
