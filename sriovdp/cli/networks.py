"""Networks in a file: NetworkAttachmentDefinitions among other manifests, or a CNI configuration alone."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

_KIND = "NetworkAttachmentDefinition"
_RESOURCE = "k8s.v1.cni.cncf.io/resourceName"
_CONFIG_WORDS = ("resourcelist", "physicalfunctions")


@dataclass(frozen=True, slots=True)
class Network:
    """A network of a file. `document` is the decoded manifest, or the CNI configuration as text."""

    name: str
    document: Mapping[str, Any] | str
    resource: str = ""


def find_networks(text: str) -> tuple[list[Network], bool]:
    """The networks in a text, and whether there is a config file beside them. None for what is no network at all."""
    documents = [part for document in _decode(text) for part in _open_list(document)]
    networks = [_read_manifest(part) for part in documents if part.get("kind") == _KIND]
    if not networks and len(documents) == 1 and _is_cni(documents[0]):
        return [Network(str(documents[0].get("name") or "without a name"), text)], False
    return networks, any(_holds_config(part) for part in documents)


def _decode(text: str) -> list[Any]:
    """JSON, or all documents of a YAML file. What cannot be read is no network: it is reported as a config file."""
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError):
        pass
    try:
        return list(yaml.safe_load_all(text))
    except (yaml.YAMLError, ValueError, RecursionError):
        return []


def _open_list(document: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(document, dict):
        return
    items = document.get("items")
    if str(document.get("kind")).endswith("List") and isinstance(items, list):
        yield from (item for item in items if isinstance(item, dict))
    else:
        yield document


def _is_cni(document: Mapping[str, Any]) -> bool:
    """Whether it is a configuration or a list of plugins, which have no kind (CNI specification, section 1)."""
    words = {str(key).lower() for key in document}
    return "kind" not in words and words.isdisjoint(_CONFIG_WORDS) and bool(words & {"type", "plugins", "cniversion"})


def _holds_config(document: Mapping[str, Any]) -> bool:
    text = (
        json.dumps(document, default=str).lower() if document.get("kind") in {"ConfigMap", "NicClusterPolicy"} else ""
    )
    return any(word in text for word in _CONFIG_WORDS)


def _read_manifest(manifest: Mapping[str, Any]) -> Network:
    found = manifest.get("metadata")
    metadata = found if isinstance(found, dict) else {}
    annotations = metadata.get("annotations")
    resource = annotations.get(_RESOURCE) if isinstance(annotations, dict) else None
    parts = (metadata.get("namespace"), metadata.get("name") or "without a name")
    return Network("/".join(str(part) for part in parts if part), manifest, str(resource or ""))
