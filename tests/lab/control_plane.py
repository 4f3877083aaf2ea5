"""etcd and the Kubernetes API server beside the virtual machine, on this machine's loopback: the guest is the node.

There is no scheduler and no controller: a pod says on which node it is, and nothing but the API server and the kubelet
decides about it. The guest's kubeconfig says how it reaches the API server.
"""

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from setup.programs import KUBE_APISERVER
from tests.lab.patience import Patience, read_cpu_seconds

_START_TIMEOUT = 180.0  # seconds of the programs' own time


class ControlPlane:
    """The programs, with their data below `folder`. To be started once, and stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._port, self._plain_port, self._etcd_port, self._peer_port = _find_ports(4)

    def start(self) -> None:
        """Start and wait until the API server is ready. Raises RuntimeError with the end of its log."""
        self._folder.mkdir()
        key = self._folder / "key"
        _run("openssl", "genrsa", "-out", str(key), "2048")
        certificate = (
            "-subj",
            "/O=system:masters/CN=lab",
            "-keyout",
            f"{self._folder}/node.key",
            "-out",
            f"{self._folder}/node.crt",
        )
        _run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *certificate)
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        peer = f"http://127.0.0.1:{self._peer_port}"
        self._launch(
            *("etcd", "--data-dir", str(self._folder / "etcd"), "--unsafe-no-fsync", "--log-level=error"),
            *(f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peer}"),
            *(f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"),
        )
        self._launch(
            *(str(KUBE_APISERVER.path), f"--etcd-servers={etcd}", "--bind-address=127.0.0.1"),
            *(f"--secure-port={self._port}", f"--cert-dir={self._folder}/certificates", "--allow-privileged"),
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            *("--service-account-issuer=https://lab", "--service-cluster-ip-range=10.96.0.0/24"),
            # accounts would be made by a controller, and there is none
            *("--authorization-mode=AlwaysAllow", "--disable-admission-plugins=ServiceAccount"),
            f"--client-ca-file={self._folder}/node.crt",
        )
        # the guest need not encrypt: its processor is emulated, and Multus waits a quarter of a second for an answer;
        # no client of Kubernetes sends a token unencrypted, so the certificate says who asks here
        listen = f"TCP-LISTEN:{self._plain_port},bind=127.0.0.1,reuseaddr,fork"
        proof = f"cert={self._folder}/node.crt,key={self._folder}/node.key"
        self._launch("socat", listen, f"OPENSSL:127.0.0.1:{self._port},verify=0,{proof}")
        self._wait()

    def stop(self) -> None:
        """End the programs; their data goes with the folder."""
        self._stack.close()

    def qemu_options(self) -> list[str]:
        """A network device on which this machine's loopback is 10.0.2.2; the guest has no route to anything else."""
        return [
            *("-netdev", "user,id=cluster,ipv6=off"),
            *("-device", "virtio-net-pci,netdev=cluster,bus=pcie.0,mac=52:54:00:bb:00:01"),
        ]

    def hand_over(self, folder: Path) -> None:
        """Put into a folder of the guest what its kubelet needs: `kubeconfig`, `node.key`, `node.crt`."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {"server": f"http://10.0.2.2:{self._plain_port}"}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab"}}],
            "current-context": "lab",
        }
        (folder / "kubeconfig").write_text(json.dumps(document))
        for name in ("node.key", "node.crt"):
            (folder / name).write_bytes((self._folder / name).read_bytes())

    def _launch(self, *command: str) -> None:
        log = self._stack.enter_context((self._folder / f"{Path(command[0]).name}.log").open("wb"))
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes.append(process)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)

    def _read_cpu_seconds(self) -> float:
        # one that has ended stays readable until `stop` waits for it
        return sum(read_cpu_seconds(process.pid) for process in self._processes)

    def _wait(self) -> None:
        url = f"http://127.0.0.1:{self._plain_port}/readyz"
        patience = Patience(_START_TIMEOUT, self._read_cpu_seconds)
        while not patience.is_over():
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except (OSError, urllib.error.URLError):
                time.sleep(0.3)
        logs = [path.read_text(errors="replace")[-2000:] for path in sorted(self._folder.glob("*.log"))]
        self.stop()
        raise RuntimeError("the API server does not get ready; the ends of the logs:\n" + "\n".join(logs))


def _find_ports(count: int) -> list[int]:
    """Ports of loopback that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
