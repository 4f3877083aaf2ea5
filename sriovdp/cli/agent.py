"""`sriovdp agent`: the agent as a process."""

import asyncio
import gc
import logging
import signal
import sys
from pathlib import Path

import click

from sriovdp.agent import Agent, Roots
from sriovdp.cli.options import FOLDER, config_option, node_options, state_option
from sriovdp.config.file import load
from sriovdp.config.nodes import NodeIdentity

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
@click.option(
    "--device-info-dir",
    "device_info",
    type=FOLDER,
    default=_ROOTS.device_info,
    show_default=True,
    help="Folder of device-info files, where Multus looks for them.",
)
@click.option(
    "--cdi-dir",
    "cdi",
    type=FOLDER,
    default=_ROOTS.cdi,
    show_default=True,
    help="Folder of CDI specs, one that the container runtime reads.",
)
@click.option("--verbose", is_flag=True, help="Log details too.")
@node_options
def command(
    config_path: Path,
    *,
    verbose: bool,
    node_name: str | None,
    node_labels: dict[str, str] | None,
    **folders: Path,
) -> None:
    """Provision the node, serve the kubelet and answer the CNI plugin until SIGTERM or SIGINT."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter(_FORMAT))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.freeze()  # what was imported lives as long as the agent: no collection has to look at it again
    config = load(config_path, NodeIdentity.find(node_name, node_labels))
    asyncio.run(_serve(Agent(config, Roots(**folders))))


async def _serve(agent: Agent) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await agent.run(stop)
