"""The agent and its plugin as users have them: in the folders where launcher, kubelet and containerd look."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.node import AgentProcess, LabNode

PLUGINS = Path("/usr/lib/cni")  # where Debian's containerd looks for CNI plugins
_FOLDERS = {"run": Path("/run/sriovdp"), "state": Path("/var/lib/sriovdp"), "kubelet": Path("/var/lib/kubelet")}


@contextmanager
def install_agent(node: LabNode) -> Iterator[AgentProcess]:
    """A running agent, with the plugin installed; a test that kills it starts it again."""
    node.sriovdp("install-cni", "--bin-dir", str(PLUGINS))
    with tempfile.TemporaryDirectory() as name:
        for link, folder in _FOLDERS.items():
            folder.mkdir(parents=True, exist_ok=True)
            (Path(name) / link).symlink_to(folder)
        agent = AgentProcess(node.config, Path(name))
        agent.start()
        yield agent
        agent.stop()
