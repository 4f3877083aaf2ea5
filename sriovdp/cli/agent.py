"""`sriovdp agent`: the agent as a process."""

import asyncio
import gc
import logging
import signal
import sys
from pathlib import Path

import click

from sriovdp.agent import Agent, Roots
from sriovdp.cli.options import FOLDER, config_option, state_option
from sriovdp.config.file import load

_ROOTS = Roots()
# a verb that comes back from the kernel waits so many seconds for a thread that computes, as the node's rescan does;
# Python's own 5 ms add up, once for each system call
_SWITCH_INTERVAL = 0.001
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class OneLineFormatter(logging.Formatter):
    """One line for each record, so that a log collector keeps message and traceback together."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with its line breaks as ` | `."""
        return " | ".join(line.strip() for line in super().format(record).splitlines() if line.strip())


@click.command()
@config_option
@state_option
@click.option("--run-dir", "run", type=FOLDER, default=_ROOTS.run, show_default=True, help="Folder of the CNI socket.")
@click.option("--kubelet-dir", "kubelet", type=FOLDER, default=_ROOTS.kubelet, show_default=True, help="The kubelet's.")
@click.option("--verbose", is_flag=True, help="Log details too.")
def command(config_path: Path, state: Path, run: Path, kubelet: Path, *, verbose: bool) -> None:
    """Provision the node, serve the kubelet and answer the CNI plugin until SIGTERM or SIGINT."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter(_FORMAT))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.freeze()  # what was imported lives as long as the agent: no collection has to look at it again
    asyncio.run(_serve(Agent(load(config_path), Roots(kubelet=kubelet, run=run, state=state))))


async def _serve(agent: Agent) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await agent.run(stop)
