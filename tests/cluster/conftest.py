"""What tests with programs of others share: the lab's node and agent, and containerd with a folder for CNI plugins."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import agent, node
from tests.lab.cri import Cri, connect

__all__ = ["agent", "node"]

PLUGINS = Path("/usr/lib/cni")  # of Debian's containerd
BUILD = Path("build/cluster")
_USUAL = Path("/opt/cni/bin")


@pytest.fixture(scope="session")
def plugins() -> Path:
    """The runtime's folder of CNI plugins, with Multus in it, and also where it is on most machines."""
    shutil.copy(BUILD / "multus", PLUGINS / "multus")
    _USUAL.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", PLUGINS, _USUAL], check=True)
    return PLUGINS


@pytest.fixture(scope="module")
def cri() -> Iterator[Cri]:
    """The kubelet's place at containerd."""
    with connect() as cri:
        yield cri
