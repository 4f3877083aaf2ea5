"""Pods and networks as the tests ask the API server for them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.api import NODE, Api, ApiError
from tests.lab.cri import wait_until
from tests.lab.images import BUSYBOX

EXAMPLES = Path("config/deploy/examples")
SRIOV = "intel.com/sriov"
NOTE = "sriov-conf@net0, sriov-vlanid-l2enable-conf@north"  # the networks of application-note.yaml
_ON_NODE = {"nodeName": NODE, "enableServiceLinks": False, "dnsPolicy": "Default"}
_STATUS = "k8s.v1.cni.cncf.io/network-status"

_NETWORK_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "network-attachment-definitions.k8s.cni.cncf.io"},
    "spec": {
        "group": "k8s.cni.cncf.io",
        "scope": "Namespaced",
        "names": {
            "plural": "network-attachment-definitions",
            "singular": "network-attachment-definition",
            "kind": "NetworkAttachmentDefinition",
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "properties": {"config": {"type": "string"}}}},
                    }
                },
            }
        ],
    },
}


def define_networks(api: Api, *examples: str) -> None:
    """Make Multus' kind of object known, and the networks of examples."""
    _ensure(api, _NETWORK_DEFINITION)
    for name in examples:
        for document in yaml.safe_load_all((EXAMPLES / name).read_text()):
            if document["kind"] == "NetworkAttachmentDefinition":
                _ensure(api, document)


def _ensure(api: Api, document: Mapping[str, Any]) -> None:
    """Create an object that may be there, of a kind that may not be served yet."""
    wait_until(lambda: _try_create(api, document), f"the API server takes {document['metadata']['name']}")


def _try_create(api: Api, document: Mapping[str, Any]) -> bool:
    try:
        api.create(document)
    except ApiError as error:
        return "already exists" in str(error)
    return True


def read_pod(example: str, name: str) -> Any:
    """A pod of an example, for this node."""
    documents = yaml.safe_load_all((EXAMPLES / example).read_text())
    pod = next(one for one in documents if one["kind"] == "Pod" and one["metadata"]["name"] == name)
    pod["spec"] |= _ON_NODE
    return pod


def write_pod(name: str, resources: Mapping[str, int] | None = None, networks: object = "") -> dict[str, Any]:
    """A pod for this node, of one container that sleeps."""
    wanted = {key: str(count) for key, count in (resources or {}).items()}
    text = networks if isinstance(networks, str) else json.dumps(networks)
    container = {
        "name": "main",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["/bin/sleep", "2147483647"],
        "resources": {"requests": wanted, "limits": wanted},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {"k8s.v1.cni.cncf.io/networks": text} if text else {}},
        "spec": {"containers": [container], **_ON_NODE},
    }


def wait_for_phase(api: Api, name: str, *phases: str) -> Any:
    """The pod when it is in one of the phases; fails with what was said about it."""

    def tell() -> str:
        return f"{name} is {' or '.join(phases)}: {api.pod(name)['status']}, {api.events(name)}"

    wait_until(lambda: api.pod(name)["status"]["phase"] in phases, tell, 150)
    return api.pod(name)


def read_status(pod: Any) -> dict[str, Any]:
    """What Multus wrote of a pod's interfaces, by their names."""
    return {one["interface"]: one for one in json.loads(pod["metadata"]["annotations"][_STATUS])}


def remove_pods(api: Api) -> None:
    """Delete all pods and wait until their kubelet has done it."""
    for pod in api.pods():
        api.delete_pod(pod["metadata"]["name"])
    wait_until(lambda: api.pods() == [], "pods are gone", 200)
