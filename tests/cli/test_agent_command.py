"""`sriovdp agent`: what the command makes of its options."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sriovdp.agent import Roots
from sriovdp.cli import agent as agent_command
from sriovdp.cli.main import cli
from sriovdp.config.values import Config
from sriovdp.live_config import LiveConfig

SHARED = """
cdi: true
resourceList:
  - {resourceName: a, selectors: {}, nodes: {names: [red]}}
  - {resourceName: b, selectors: {}, nodes: {labels: {nic: fast}}}
  - {resourceName: c, selectors: {}, nodes: {names: [blue]}}
"""


def test_node_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config is read for the node that is named, and each folder is the one that its option names."""
    made: list[tuple[Config, Roots]] = []

    class Agent:
        def __init__(self, config: Config, roots: Roots, *, live: LiveConfig) -> None:
            assert live.running is config
            made.append((config, roots))

        async def run(self, stop: asyncio.Event) -> None:
            stop.set()

    def leave_logging(**_: Any) -> None:
        """Its handlers would outlive the test."""

    monkeypatch.setattr(agent_command, "Agent", Agent)
    monkeypatch.setattr(logging, "basicConfig", leave_logging)
    (tmp_path / "c.yaml").write_text(SHARED)
    names = {"state-dir": "s", "run-dir": "r", "kubelet-dir": "k", "device-info-dir": "d", "cdi-dir": "c"}
    folders = [f"--{option}={tmp_path / name}" for option, name in names.items()]
    node = ["--node-name=red", "--node-label=nic=fast"]
    done = CliRunner().invoke(cli, ["agent", f"--config={tmp_path / 'c.yaml'}", *folders, *node])
    assert done.exit_code == 0, done.output
    [(config, roots)] = made
    assert ([pool.name for pool in config.pools], config.cdi) == (["a", "b"], True)
    paths = {"state": "s", "run": "r", "kubelet": "k", "device_info": "d", "cdi": "c"}
    assert roots == Roots(**{key: tmp_path / name for key, name in paths.items()})


def test_a_wrong_config_keeps_it_from_starting(tmp_path: Path) -> None:
    """All faults are printed, and the exit code is that of a failure."""
    (tmp_path / "c.yaml").write_text("resourceList: [{resourceName: a b, selectors: {}}, {resourceName: c}]")
    done = CliRunner().invoke(cli, ["agent", f"--config={tmp_path / 'c.yaml'}"])
    assert done.exit_code == 1
    assert "resourceList[0].resourceName" in done.output
    assert "resourceList[1]" in done.output


@pytest.mark.parametrize(
    "given",
    ["9819", ":9819", "localhost:9819", "::1:9819", "[127.0.0.1]:9819", "[::1]", "127.0.0.1:", "127.0.0.1:65536",
     "127.0.0.1:-1", "127.0.0.1:http", "1.2.3:9819", ""],
)  # fmt: skip
def test_a_wrong_place_for_metrics_is_wrong_usage(given: str) -> None:
    """The message says what is allowed."""
    done = CliRunner().invoke(cli, ["agent", f"--metrics={given}"])
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert f"{given!r} is not an address with a port; write an IPv4 address like 127.0.0.1:9819" in said
    assert "brackets like [::1]:9819; the port is at most 65535" in said


@pytest.mark.parametrize(
    ("given", "place"), [("127.0.0.1:9819", ("127.0.0.1", 9819)), ("[::]:0", ("::", 0)), (None, None)]
)
def test_the_place_for_metrics(given: str | None, place: tuple[str, int] | None) -> None:
    """Address and port; none is given by default."""
    context = agent_command.command.make_context("agent", [f"--metrics={given}"] if given else [])
    assert context.params["endpoint"] == place


_LATER = (
    *("prometheus_client", "wsgiref"),  # with --metrics
    *("pyroute2", "sriovdp.kernel.devlink_info"),  # on a node with an E810
    *("cni.verbs.dispatch", "cni.verbs.recovery", "cni.verbs.gc", "cni.protocol.netconf", "cni.ipam", "cni.vf"),
    *("sriovdp.provision.apply", "sriovdp.provision.plan"),  # once the pools are with the kubelet, as are the verbs
    *("yaml", "sriovdp.config.yaml_text"),  # unless the config file is YAML
    *("pydantic", "grpc_tools.protoc", "kubernetes", "http", "email", "urllib.request", "xml"),
)


def test_the_start_imports_nothing_that_can_wait() -> None:
    """Imports are most of the CPU time until the kubelet has the pools."""
    code = "import sys, sriovdp.cli.agent; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "sriovdp.agent" in shown.split()
    assert [name for name in shown.split() if name in _LATER] == []
