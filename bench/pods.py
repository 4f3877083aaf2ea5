"""`python -m bench.pods`, in the lab with containerd and a control plane: how long a node and its pods take.

Pods are created one after the other, in turns with a VF and without, each seen by the API server: what a user sees.
The kubelet looks at its containers once a second, so single figures are no finer than that.
"""

import subprocess
import time
from functools import partial
from pathlib import Path

from bench.table import Samples
from tests.cluster.api import Api
from tests.cluster.kubelet import HANDED_OVER, run_kubelet
from tests.cluster.pods import NOTE, SRIOV, define_networks, write_pod
from tests.lab.cri import wait_until
from tests.lab.installation import PLUGINS, install_agent
from tests.lab.node import LabNode

_ROUNDS = 12
_wait = partial(wait_until, seconds=300, pause=0.1)
_WITHOUT = "default network"
_KINDS: dict[str, tuple[dict[str, int], str]] = {
    _WITHOUT: ({}, ""),
    "and one VF": ({SRIOV: 1}, "sriov-conf@net0"),
    "and two VFs": ({SRIOV: 2}, NOTE),
}


def main() -> None:
    """Start the node, and print the table."""
    install_multus()
    node, api = LabNode(Path("config/sample.yaml")), Api.read(HANDED_OVER / "kubeconfig")
    steps = [("kernel to here", _uptime())]
    node.apply()
    steps.append(("VFs made by apply", _uptime()))
    with install_agent(node):
        steps.append(("agent answers", _uptime()))
        with run_kubelet(api) as kubelet:
            steps.append(("node is Ready", _uptime()))
            _wait(lambda: kubelet.offered(SRIOV) == 4, "VFs are offered")
            steps.append(("VFs are offered", _uptime()))
            for step, seconds in steps:
                print(f"{step:20} {seconds:6.1f} s after the kernel's start")
            define_networks(api, "application-note.yaml")
            measure(api)


def install_multus() -> None:
    """Where the runtime looks for it, and where it looks for others."""
    subprocess.run(["cp", "build/cluster/multus", PLUGINS], check=True)


def measure(api: Api) -> None:
    """Pods of each kind in turn, from create to Running, and from delete to gone; in ms."""
    samples = Samples(_WITHOUT)
    for number in range(_ROUNDS + 1):
        for kind, (resources, networks) in _KINDS.items():
            name = f"pod-{number}-{len(resources)}-{sum(resources.values())}"
            started = time.monotonic()
            api.create(write_pod(name, resources, networks))
            _wait(partial(_is_running, api, name), f"{name} runs")
            running = time.monotonic()
            api.delete_pod(name)
            _wait(lambda: not api.pods(), f"{name} is gone")
            if number:  # the first of each kind finds nothing cached
                samples.add(("create to Running",), kind, (running - started) * 1000)
                samples.add(("delete to gone",), kind, (time.monotonic() - running) * 1000)
    samples.print()


def _is_running(api: Api, name: str) -> bool:
    return bool(api.pod(name)["status"]["phase"] == "Running")


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


if __name__ == "__main__":
    main()
