"""Pods whose IPAM cannot work, on a real NIC: they come and go, and leave nothing to do behind."""

import json
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.runtime import CniFailureError, Runtime, Sandbox
from tests.lab.node import AgentProcess, LabNode

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.lab()

CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 7
resourceList:
  - {resourceName: sriov, selectors: {drivers: [igbvf]}}
"""
BROKEN: list[dict[str, Any]] = [
    {"type": "whereabouts", "range": "10.1.1.0/24"},  # which is not installed
    {"type": "dhcp"},  # whose daemon does not run
    {"type": "host-local"},
    {"type": "host-local", "subnet": "10.1.1.0/33"},
    {"type": "host-local", "subnet": "10.1.1.0/24", "rangeStart": "10.2.2.2"},
]
PODS = 50
HOSTILE = [
    "",
    "{",
    "[" * 100_000,
    '{"version": 2, "device": "0000:09:10.2"}',
    '{"version": 1, "device": 5}',
    "\0" * 4096,
]


@pytest.fixture
def runtime(agent: AgentProcess) -> Runtime:
    """A runtime that execs the built launcher."""
    return Runtime(Path("build/sriov").resolve(), agent.socket)


def config(device: str, ipam: dict[str, Any]) -> dict[str, Any]:
    """A network configuration."""
    return {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": device, "ipam": ipam}


def cpu_of(agent: AgentProcess) -> float:
    """CPU seconds of the agent and the children that it waited for (proc(5), in ticks)."""
    assert agent.process
    fields = Path(f"/proc/{agent.process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def measure_idle(agent: AgentProcess, seconds: float = 10.0) -> float:
    """CPU seconds that it uses in so many seconds."""
    before = cpu_of(agent)
    time.sleep(seconds)
    return cpu_of(agent) - before


def test_pods_with_broken_ipam_leave_nothing(
    runtime: Runtime, agent: AgentProcess, node: LabNode, sandbox: Callable[[str], Sandbox]
) -> None:
    """Each ADD fails and each DEL succeeds, however often; the VF is as before, and the agent as idle as before."""
    agent.wait_until(lambda: "the agent is ready" in agent.log())
    idle, before = measure_idle(agent), node.look()
    pod = sandbox("pod-a")
    for number in range(PODS):
        given = config(node.vf(0), BROKEN[number % len(BROKEN)])
        with pytest.raises(CniFailureError):
            runtime.add(pod, given)
        runtime.delete(pod, given)
        assert agent.attachments() == [], agent.log()
    assert node.look() == before
    lines = agent.log().count("\n")
    after = measure_idle(agent)
    assert agent.log().count("\n") == lines, "an idle agent logs nothing"
    figures = f"{idle:.2f} s of CPU in 10 s before {PODS} pods, {after:.2f} s after"
    assert after < idle + 4, f"an idle agent works off nothing: {figures}"  # 8 s with releases that are never done
    logger.info(figures)


def test_agent_killed_again_and_again_with_a_hostile_journal(
    runtime: Runtime, agent: AgentProcess, node: LabNode, sandbox: Callable[[str], Sandbox]
) -> None:
    """It serves after each start, whatever lies there; the files of unknown VFs stay for a person to see."""
    pod = sandbox("pod-a")
    journal = agent.root / "state/journal"
    good = config(node.vf(1), {})
    for number, text in enumerate(HOSTILE):
        agent.kill()
        (journal / f"attachment-hostile{number}-net1.json").write_text(text)
        agent.start()
        runtime.add(pod, good)
        agent.kill()
        agent.start()
        runtime.delete(pod, good)
    assert len(agent.attachments()) == len(HOSTILE)
    answer = json.loads(runtime.call("STATUS", pod, {**good, "cniVersion": "1.1.0"}) or b"{}")
    assert answer == {}
    assert agent.process
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(60) == 0
    for path in journal.glob("attachment-hostile*"):
        path.unlink()
    agent.start()
