"""Objects of sriov-network-operator as tests write them."""

from typing import Any

import yaml

from sriovdp.cluster.findings import Findings
from sriovdp.cluster.interface import Interface
from sriovdp.cluster.manifest import Manifest, read_manifests
from sriovdp.model import PciAddress

GROUP = "sriovnetwork.openshift.io/v1"
NAMESPACE = "sriov-network-operator"


def make_object(kind: str, name: str, spec: Any, namespace: str = NAMESPACE, api: str = GROUP) -> dict[str, Any]:
    """One object."""
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def make_policy(name: str, selector: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A policy with 8 VFs of ens1f0 for the resource of its own name."""
    chosen = selector or {"pfNames": ["ens1f0"]}
    return make_object(
        "SriovNetworkNodePolicy", name, {"resourceName": name, "numVfs": 8, "nicSelector": chosen} | spec
    )


def read(*objects: dict[str, Any]) -> tuple[list[Manifest], Findings]:
    """The objects as they are read from a file of many documents."""
    findings = Findings()
    return read_manifests(yaml.safe_dump_all(objects, sort_keys=False), "objects.yaml", findings), findings


def make_interface(number: int = 0, **given: Any) -> Interface:
    """An Intel X710 port, ens1f0 at 0000:3b:00.0 unless another number is given."""
    usual: dict[str, Any] = {
        "name": f"ens1f{number}",
        "vendor": "8086",
        "device": "1572",
        "total_vfs": 64,
        "num_vfs": 0,
        "mtu": 1500,
    }
    return Interface(PciAddress(f"0000:3b:00.{number}"), **(usual | given))
