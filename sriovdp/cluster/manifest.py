"""Kubernetes objects in files: YAML or JSON, one or more documents, or the List that `kubectl get -o yaml` prints."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sriovdp.cluster.findings import Findings
from sriovdp.config.document import Document, KeyPath, Plain, write_path
from sriovdp.config.text import read_documents
from sriovdp.config.wording import show
from sriovdp.errors import ConfigError
from sriovdp.model import escape_unprintable

MAX_BYTES = 8 * 1024 * 1024
"""Size of a file of objects: a List of a thousand node states has some megabytes."""

PLAIN = "config file"
"""Stands for the kind of a config file that is in no manifest."""

_PLAIN_KEYS = frozenset({"resourcelist", "physicalfunctions"})
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object: its tree, and where it stands in its file."""

    kind: str
    api: str
    name: str
    namespace: str
    tree: Mapping[str, Any]
    source: str
    document: Document
    path: KeyPath

    @property
    def group(self) -> str:
        """The API group, empty for the core group."""
        return self.api.rpartition("/")[0]

    @property
    def full_name(self) -> str:
        """Namespace and name."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def place(self, path: KeyPath = ()) -> str:
        """An entry of the object in messages: file, line, object, path."""
        line = self.document.line((*self.path, *path)) if path or self.path else self.document.begin
        where = f" {write_path(path)}" if path else ""
        return escape_unprintable(f"{self.source} line {line}: {self}{where}")

    def __str__(self) -> str:
        return f"{self.kind} {self.full_name}"


def read_manifests(text: str, source: str, findings: Findings) -> list[Manifest]:
    """The objects of a text; faults name `source`. A document that is no object is a fault; an empty one is nothing."""
    if len(text) > MAX_BYTES:
        findings.refuse(source, f"is larger than {MAX_BYTES // 1024 // 1024} MiB; split the file")
        return []
    try:
        documents = read_documents(text, source)
    except ConfigError as error:
        for fault in error.faults:
            findings.refuse(source, fault)
        return []
    for document in documents:
        for line, path in document.duplicates:
            findings.refuse(f"{source} line {line}: {write_path(path)}", "this key is here a second time")
    return [entry for document in documents for entry in _open(document, document.tree, (), source, findings)]


def refuse_twins(manifests: list[Manifest], findings: Findings) -> list[Manifest]:
    """Each object once: a second one of the same kind and name is a fault if it differs, else it is left out."""
    seen: dict[tuple[str, str, str], Manifest] = {}
    for entry in manifests:
        first = seen.setdefault((f"{entry.group}/{entry.kind}", entry.namespace, entry.name), entry)
        if first is not entry and first.tree != entry.tree:
            findings.refuse(entry.place(), f"is also in {first.source} and differs there; keep one")
    return list(seen.values())


def _open(document: Document, node: Plain, path: KeyPath, source: str, findings: Findings) -> Iterator[Manifest]:
    line = document.line(path) if path else document.begin
    if node is None:
        return
    if not isinstance(node, dict):
        findings.refuse(f"{source} line {line}", f"must be a Kubernetes object, not {show(node)}")
        return
    kind, items = node.get("kind"), node.get("items")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(items, list):
        for number, item in enumerate(items):
            yield from _open(document, item, (*path, "items", number), source, findings)
    elif kind is None and _PLAIN_KEYS & {key.lower() for key in node}:
        yield Manifest(PLAIN, "", source, "", node, source, document, path)
    elif (found := _read_object(document, node, path, source, findings)) is not None:
        yield found


def _read_object(
    document: Document, node: dict[str, Plain], path: KeyPath, source: str, findings: Findings
) -> Manifest | None:
    kind, api, metadata = node.get("kind"), node.get("apiVersion"), node.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    place = f"{source} line {document.line(path) if path else document.begin}"
    wrong = [
        *([] if isinstance(kind, str) and kind else [f"kind must be a text, not {show(kind)}"]),
        *([] if isinstance(api, str | None) else [f"apiVersion must be a text, not {show(api)}"]),
        *([] if _fits(_NAME, name) else [f"metadata.name must be a Kubernetes name, not {show(name)}"]),
        *(
            []
            if namespace in (None, "") or _fits(_NAMESPACE, namespace)
            else [f"metadata.namespace: {show(namespace)}"]
        ),
    ]
    for sentence in wrong:
        findings.refuse(f"{place}: {kind}" if isinstance(kind, str) else place, sentence)
    if wrong:
        return None
    return Manifest(str(kind), str(api or ""), str(name), str(namespace or ""), node, source, document, path)


def _fits(pattern: re.Pattern[str], value: Plain) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
