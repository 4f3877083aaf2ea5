"""An object of sriov-network-operator, read strictly: what it asks for, or all of its faults."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sriovdp.cluster.findings import Findings
from sriovdp.cluster.manifest import Manifest
from sriovdp.cluster.specs import GROUP, SPECS
from sriovdp.config.forms import INVALID, Faults
from sriovdp.config.objects import find_object

Spec = TypeVar("Spec")
_VERSION = f"{GROUP}/v1"


@dataclass(frozen=True, slots=True)
class Read(Generic[Spec]):
    """An object with its `spec` understood."""

    manifest: Manifest
    spec: Spec

    @property
    def name(self) -> str:
        """Its name, without the namespace."""
        return self.manifest.name

    def __str__(self) -> str:
        return self.manifest.place()


def read_objects(manifests: Iterable[Manifest], spec: type[Spec], findings: Findings) -> list[Read[Spec]]:
    """The objects whose `spec` is of this class. Faults of others of this kind are noted, and they are left out."""
    kind = next(kind for kind, known in SPECS.items() if known is spec)
    found = []
    for manifest in manifests:
        if manifest.kind == kind and manifest.group in {"", GROUP}:
            read = _read(manifest, spec, findings)
            found += [] if read is INVALID else [Read(manifest, read)]
    return found


def _read(manifest: Manifest, spec: type, findings: Findings) -> Any:
    if manifest.api != _VERSION:
        findings.refuse(manifest.place(("apiVersion",)), f"must be {_VERSION}")
        return INVALID
    faults = Faults()
    read = find_object(spec).read(manifest.tree.get("spec") or {}, ("spec",), faults)
    for path, sentence in faults.found:
        findings.refuse(manifest.place(path), sentence)
    return read
