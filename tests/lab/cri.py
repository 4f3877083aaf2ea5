"""The kubelet's way to a container runtime: pods and containers by containerd's CRI, which calls CNI plugins itself."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests.fakes.runtime import Sandbox
from tests.lab.images import BUSYBOX, import_busybox
from tests.lab.patience import own_time

_SOCKET = "unix:///run/containerd/containerd.sock"
_NETWORKS = Path("/etc/cni/net.d")
_TIMEOUT = 240.0  # seconds, as the kubelet gives a sandbox; the machine is emulated

api, services = grpc.protos_and_services("tests/lab/runtime_v1.proto")


@dataclass(eq=False)
class Pod:
    """A pod's sandbox. `container` is its only container, once it has one."""

    cri: "Cri"
    id: str
    config: Any
    container: str = ""

    @property
    def name(self) -> str:
        """The pod's name."""
        return str(self.config.metadata.name)

    @property
    def status(self) -> Any:
        """PodSandboxStatusResponse, with all that containerd reports."""
        request = api.PodSandboxStatusRequest(pod_sandbox_id=self.id, verbose=True)
        return self.cri.call("PodSandboxStatus", request)

    @property
    def sandbox(self) -> Sandbox:
        """Its network namespace, to run programs of this machine in it."""
        namespaces = json.loads(self.status.info["info"])["runtimeSpec"]["linux"]["namespaces"]
        path = next(one["path"] for one in namespaces if one["type"] == "network")
        return Sandbox(Path(path).name)

    def start(self, command: Sequence[str] = ("/bin/sleep", "2147483647"), image: str = BUSYBOX, **fields: Any) -> None:
        """Create and start its container; `fields` are those of ContainerConfig."""
        container = api.ContainerConfig(
            metadata=api.ContainerMetadata(name="main"), image=api.ImageSpec(image=image), command=command, **fields
        )
        request = api.CreateContainerRequest(pod_sandbox_id=self.id, config=container, sandbox_config=self.config)
        self.container = self.cri.call("CreateContainer", request).container_id
        self.cri.call("StartContainer", api.StartContainerRequest(container_id=self.container))

    def run(self, *command: str) -> str:
        """Output of a command in its container, which must succeed."""
        code, stdout, stderr = self.try_run(*command)
        assert code == 0, f"{' '.join(command)}: exit code {code}, {stdout}{stderr}"
        return stdout

    def try_run(self, *command: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command in its container."""
        request = api.ExecSyncRequest(container_id=self.container, cmd=command, timeout=120)
        answer = self.cri.call("ExecSync", request)
        return answer.exit_code, answer.stdout.decode(), answer.stderr.decode()

    def stop(self) -> None:
        """Stop it as the kubelet does; its network is gone then. Raises grpc.RpcError."""
        self.cri.call("StopPodSandbox", api.StopPodSandboxRequest(pod_sandbox_id=self.id))

    def remove(self) -> None:
        """Stop and remove it. Raises grpc.RpcError."""
        self.stop()
        self.cri.call("RemovePodSandbox", api.RemovePodSandboxRequest(pod_sandbox_id=self.id))
        self.cri.pods.remove(self)


@dataclass
class Cri:
    """A connection to containerd. Pods that it ran are removed at the end of `connect`."""

    stub: Any
    pods: list[Pod] = field(default_factory=list)

    def call(self, method: str, request: Any) -> Any:
        """One call. Raises grpc.RpcError with containerd's message."""
        return getattr(self.stub, method)(request, timeout=_TIMEOUT)

    def run_pod(self, name: str, *, on_node: bool = False, log_directory: str = "") -> Pod:
        """Run a sandbox; its network is there afterwards. `on_node`: with the node's network and processes.

        Raises grpc.RpcError, with what a CNI plugin said.
        """
        node = api.NamespaceMode.Value("NODE" if on_node else "POD")
        options = api.NamespaceOption(network=node, pid=node if on_node else api.NamespaceMode.Value("CONTAINER"))
        context = api.LinuxSandboxSecurityContext(namespace_options=options)
        config = api.PodSandboxConfig(
            metadata=api.PodSandboxMetadata(name=name, uid=str(uuid.uuid4()), namespace="default"),
            log_directory=log_directory,
            linux=api.LinuxPodSandboxConfig(security_context=context),
        )
        answer = self.call("RunPodSandbox", api.RunPodSandboxRequest(config=config))
        self.pods.append(Pod(self, answer.pod_sandbox_id, config))
        return self.pods[-1]

    def remove_pods(self) -> None:
        """Remove all pods that were run here."""
        for pod in list(self.pods):
            pod.remove()

    def use_network(self, name: str, document: Mapping[str, Any], suffix: str = "conflist") -> None:
        """Make this the default network, the only one, and wait until containerd has seen it."""
        _NETWORKS.mkdir(parents=True, exist_ok=True)
        for path in _NETWORKS.iterdir():
            path.unlink()
        (_NETWORKS / f"10-{name}.{suffix}").write_text(json.dumps({"name": name, **document}))
        wait_until(lambda: self._network() == name, f"containerd uses network {name}")

    def _network(self) -> str:
        """Name of the default network, which comes after the loopback in what containerd loaded."""
        answer = self.call("Status", api.StatusRequest(verbose=True))
        networks = json.loads(answer.info["cniconfig"])["Networks"] or []
        return str(networks[-1]["Config"]["Name"]) if networks else ""


@contextmanager
def connect() -> Iterator[Cri]:
    """A connection to the lab's containerd, which has busybox. Its pods and its network are gone at the end."""
    import_busybox()
    with grpc.insecure_channel(_SOCKET, options=[("grpc.default_authority", "localhost")]) as channel:
        cri = Cri(services.RuntimeServiceStub(channel))
        try:
            yield cri
        finally:
            cri.remove_pods()
            for path in _NETWORKS.iterdir():
                path.unlink()


def wait_until(
    condition: Callable[[], bool], what: str | Callable[[], str], seconds: float = 90.0, pause: float = 0.5
) -> None:
    """Wait for something that another program does; fails by its name, or by what there is to be said then.

    `seconds` are those of the guest's own time: a busy machine may take longer.
    """
    deadline = own_time() + seconds
    while not condition():
        assert own_time() < deadline, f"in vain: {what if isinstance(what, str) else what()}"
        time.sleep(pause)  # each look costs an emulated processor
