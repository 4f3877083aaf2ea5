"""The real kubelet as a process of the lab's guest, which is its node."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.api import NODE, Api, ApiError
from tests.lab.cri import wait_until
from tests.lab.images import import_busybox
from tests.lab.installation import PLUGINS

HANDED_OVER = Path("/run/lab/result")  # by tests.lab.control_plane
PROGRAM = Path("build/cluster/kubelet")
_NETWORKS = Path("/etc/cni/net.d")
_READY_TIMEOUT = 400.0  # seconds; the program is 80 MB, and its processor is emulated

_DEFAULT_NETWORK = {
    "cniVersion": "0.3.1",
    "name": "cluster",
    "type": "multus",
    "binDir": str(PLUGINS),
    "kubeconfig": f"{HANDED_OVER}/kubeconfig",
    "delegates": [
        {
            "cniVersion": "0.3.1",
            "name": "default",
            "type": "ptp",
            "ipam": {"type": "host-local", "subnet": "192.168.42.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
        }
    ],
}


@contextmanager
def run_kubelet(api: Api) -> Iterator["Kubelet"]:
    """A node that is ready, with Multus as its network and busybox among its images."""
    import_busybox()
    _NETWORKS.mkdir(parents=True, exist_ok=True)
    (_NETWORKS / "00-multus.conf").write_text(json.dumps(_DEFAULT_NETWORK))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        kubelet = Kubelet(Path(folder), api)
        kubelet.start()
        yield kubelet
        kubelet.stop()


@dataclass
class Kubelet:
    """One node's kubelet, with its files below `folder`. It can be stopped and started again."""

    folder: Path
    api: Api
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start, and wait until the API server has the node as ready, by a report of this kubelet."""
        program = self.folder / "kubelet"
        if not program.exists():
            shutil.copy(PROGRAM, program)  # an exec from the machine's root is slow
        (self.folder / "config.json").write_text(json.dumps(self._configure()))
        with (self.folder / "log").open("ab") as log:
            options = [f"--config={self.folder}/config.json", f"--kubeconfig={HANDED_OVER}/kubeconfig"]
            command: list[str | Path] = [
                program,
                *options,
                f"--hostname-override={NODE}",
                "--node-ip=10.0.2.15",
                "--v=2",
            ]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        started = time.time()
        try:
            wait_until(lambda: self._is_ready(started), "the node is ready", _READY_TIMEOUT)
        except AssertionError as error:
            raise AssertionError(f"{error}; the kubelet's log:\n{self.log()[-6000:]}") from None

    def stop(self) -> None:
        """End it; pods go on running."""
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=60)
            self.process = None

    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "log").read_text(errors="replace")

    def offered(self, resource: str) -> int:
        """How much of a resource the node has to give, as the API server knows it."""
        return int(self.api.node()["status"].get("allocatable", {}).get(resource, 0))

    def _is_ready(self, started: float) -> bool:
        assert self.process
        assert self.process.poll() is None, f"the kubelet ended:\n{self.log()[-6000:]}"
        try:
            conditions = self.api.node()["status"].get("conditions", [])
        except ApiError:
            return False  # it has not registered yet
        seen = [one for one in conditions if one["type"] == "Ready"]
        heard = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started))
        return any(one["status"] == "True" and one["lastHeartbeatTime"] >= heard for one in seen)

    def _configure(self) -> dict[str, object]:
        """KubeletConfiguration v1beta1: what a bare node without a cluster's other parts needs."""
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "tlsCertFile": f"{HANDED_OVER}/node.crt",
            "tlsPrivateKeyFile": f"{HANDED_OVER}/node.key",
            "address": "127.0.0.1",
            "cgroupDriver": "cgroupfs",
            "enableControllerAttachDetach": False,
            "localStorageCapacityIsolation": False,
            "evictionHard": {"memory.available": "1Mi"},
            "imageGCHighThresholdPercent": 100,
            "runtimeRequestTimeout": "10m",
            "syncFrequency": "10s",
            "resolvConf": "",
            "failSwapOn": False,
        }
