"""What tests with programs of others share: the lab's node and agent, and containerd with a folder for CNI plugins."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.api import Api
from tests.cluster.kubelet import HANDED_OVER, Kubelet, run_kubelet
from tests.lab.conftest import node, rebooted
from tests.lab.cri import Cri, connect
from tests.lab.installation import PLUGINS, install_agent
from tests.lab.node import AgentProcess, LabNode

__all__ = ["node", "rebooted"]

BUILD = Path("build/cluster")
_USUAL = Path("/opt/cni/bin")


@pytest.fixture(scope="session")
def plugins() -> Path:
    """The runtime's folder of CNI plugins, with Multus in it, and also where it is on most machines."""
    if not (BUILD / "multus").exists():
        pytest.skip("Multus is not there: `python3 -m setup.cluster multus` builds it and says what is missing")
    shutil.copy(BUILD / "multus", PLUGINS / "multus")
    _USUAL.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", PLUGINS, _USUAL], check=True)
    return PLUGINS


@pytest.fixture(scope="module")
def agent(node: LabNode) -> Iterator[AgentProcess]:
    """The agent, where the plugin looks for it."""
    with install_agent(node) as agent:
        yield agent


@pytest.fixture(scope="module")
def cri() -> Iterator[Cri]:
    """The kubelet's place at containerd."""
    with connect() as cri:
        yield cri


@pytest.fixture(scope="module")
def api() -> Api:
    """The API server outside."""
    return Api.read(HANDED_OVER / "kubeconfig")


@pytest.fixture(scope="module")
def kubelet(api: Api, agent: AgentProcess, plugins: Path) -> Iterator[Kubelet]:
    """A node that is ready, with the agent on it."""
    with run_kubelet(api) as kubelet:
        yield kubelet
