"""The agent as a process comes to its end whatever its threads wait for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.agent.running import CONFIG
from tests.fakes.sysfs import PF, Tree

PATIENCE = 60.0


def wait_for_reader(fifo: Path) -> int:
    """The end to write to, once somebody waits for what a FIFO holds; as long as it is open, they go on waiting."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # ENXIO
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_thread_that_hangs_does_not_keep_the_process(tmp_path: Path, number: signal.Signals) -> None:
    """Here a file of sysfs does not answer, as one of a device that is being removed; the log says what was left."""
    tree = Tree(tmp_path / "sys")
    tree.add_pf()
    attribute = tree.pci(PF) / "numa_node"
    attribute.unlink()
    os.mkfifo(attribute)
    (tmp_path / "config.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "tests.agent.process", str(tmp_path), str(tmp_path / "config.yaml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as agent:
        try:
            held = wait_for_reader(attribute)
            agent.send_signal(number)
            _, said = agent.communicate(timeout=PATIENCE)
        finally:
            agent.kill()
    os.close(held)
    assert agent.returncode == 0, said
    assert "ending with" in said
    assert not (tmp_path / "run/agent.sock").exists()
