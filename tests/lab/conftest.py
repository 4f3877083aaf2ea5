"""What tests in the lab's guest share: the node as a module's CONFIG wants it, its agent, sandboxes, the plugin."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.runtime import Plugin, Sandbox, make_sandboxes
from tests.lab.node import AgentProcess, LabNode
from tests.lab.vnic_cards import Card, load

_REBOOTED = Path("/run/lab/result/rebooted")


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder with a short name, as a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabNode]:
    """The lab's node as the module's CONFIG wants it."""
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write_text(request.module.CONFIG)
    node = LabNode(config)
    node.apply()
    yield node
    node.remove_vfs()


@pytest.fixture(scope="module")
def agent(node: LabNode) -> Iterator[AgentProcess]:
    """A running agent; a test that kills it starts it again."""
    with tempfile.TemporaryDirectory() as name:
        agent = AgentProcess(node.config, Path(name))
        agent.start()
        yield agent
        agent.stop()


@pytest.fixture
def rebooted() -> None:
    """The guest has rebooted since the tests before this one, and no program knows; for shapes with a disk.

    The first time this never returns: the pytest after the reboot runs the test again, fixtures of its module first.
    """
    if not _REBOOTED.exists():
        _REBOOTED.touch()
        subprocess.run(["/run/lab/bin/busybox", "reboot", "-f"], check=True)
        time.sleep(60)


@pytest.fixture
def vnic() -> Iterator[Callable[..., list[Card]]]:
    """Put cards of the software NIC into the guest; for shapes that have some. Gone after the test."""
    yield load
    load("")


@pytest.fixture
def sandbox() -> Iterator[Callable[[str], Sandbox]]:
    """Make sandboxes that are gone after the test."""
    with make_sandboxes() as create:
        yield create


@pytest.fixture
def plugin(tmp_path: Path, node: LabNode) -> Iterator[Plugin]:
    """The plugin; after the test all VFs are as they were, and the journal is empty."""
    plugin = Plugin(tmp_path)
    before = node.look()
    yield plugin
    assert node.look() == before
    assert plugin.attachments() == []
