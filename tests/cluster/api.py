"""The Kubernetes API by HTTP, as far as the tests need it, and a kubelet's own server on the node."""

import functools
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

NODE = "lab"
_PATCH = "application/merge-patch+json"
_NETWORKS = "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions"


class ApiError(Exception):
    """The server refused; the message is its own."""


@dataclass(frozen=True)
class Api:
    """The API server of a kubeconfig."""

    server: str

    @classmethod
    def read(cls, kubeconfig: Path) -> Self:
        """From a kubeconfig in JSON, with one cluster."""
        return cls(json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, kind: str = "application/json"
    ) -> Any:
        """One request; the decoded answer. Raises ApiError."""
        return json.loads(self._send(self.server + path, method, json.dumps(body).encode() if body else None, kind))

    def run(self, pod: str, *command: str) -> str:
        """Output of a command in the container of a pod, by the kubelet's own server, which answers here only."""
        query = urlencode({"cmd": " ".join(command)})
        path = f"https://127.0.0.1:10250/run/default/{pod}/main?{query}"
        return self._send(path, "POST", None, "text/plain").decode()

    def log(self, pod: str) -> str:
        """What the container of a pod has written."""
        return self._send(f"https://127.0.0.1:10250/containerLogs/default/{pod}/main", "GET", None, "").decode()

    def create(self, document: Mapping[str, Any]) -> None:
        """Create an object of a manifest, in namespace default."""
        folder = {
            "Pod": "/api/v1/namespaces/default/pods",
            "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            "NetworkAttachmentDefinition": _NETWORKS,
        }[document["kind"]]
        self.call("POST", folder, document)

    def pod(self, name: str) -> Any:
        """A pod as it is now."""
        return self.call("GET", f"/api/v1/namespaces/default/pods/{quote(name)}")

    def pods(self) -> list[Any]:
        """All pods of namespace default."""
        return list(self.call("GET", "/api/v1/namespaces/default/pods")["items"])

    def delete_pod(self, name: str, grace: int = 0) -> None:
        """Ask for a pod's end; it is there until its kubelet has done that. 0 would not wait for it: 1 is the least."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": max(grace, 1)}
        self.call("DELETE", f"/api/v1/namespaces/default/pods/{quote(name)}", options)

    def node(self) -> Any:
        """The node."""
        return self.call("GET", f"/api/v1/nodes/{NODE}")

    def events(self, name: str) -> list[str]:
        """What was said about a pod."""
        listed = self.call("GET", f"/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={quote(name)}")
        return [f"{one['reason']}: {one['message']}" for one in listed["items"]]

    def _send(self, url: str, method: str, body: bytes | None, kind: str) -> bytes:
        request = urllib.request.Request(url, body, {"Content-Type": kind}, method=method)
        for attempt in range(5):
            try:
                with urllib.request.urlopen(request, context=_trust_all(), timeout=60) as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                raise ApiError(f"{method} {url}: {error.code} {error.read().decode(errors='replace')}") from None
            except OSError:
                if attempt == 4:
                    raise
                time.sleep(1)
        raise AssertionError


@functools.cache
def _trust_all() -> ssl.SSLContext:
    """For the kubelet's own certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
