"""`sriovdp agent`: the agent as a process."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import click

from sriovdp.agent import Agent, Roots
from sriovdp.cli.log import OneLineFormatter, RepeatFilter
from sriovdp.cli.options import FOLDER, config_file, kubelet_option, node_options, run_option, state_option
from sriovdp.cli.upstream_flags import translate
from sriovdp.config.comparison import ComparedFile
from sriovdp.config.file import load
from sriovdp.config.flags import Flags
from sriovdp.config.nodes import NodeIdentity
from sriovdp.live_config import LiveConfig

logger = logging.getLogger(__name__)

_ROOTS = Roots()
# seconds that a CNI verb waits, after each system call, for a thread that computes (the node's rescan); Python's own
# 5 ms add up
_SWITCH_INTERVAL = 0.001
_LEAVE = 5.0  # seconds for threads to end once everything is stopped
_IPV6, _PORT_MAX = 6, 65535
_IGNORED = "sriovdp.ignored_flags"
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Command(click.Command):
    """Takes the flags of sriov-network-device-plugin too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words after they are translated."""
        translated, ctx.meta[_IGNORED] = translate(args)
        return super().parse_args(ctx, translated)


def _read_endpoint(_: click.Context, __: click.Parameter, given: str | None) -> tuple[str, int] | None:
    """Address and port, None when none are given."""
    if given is None:
        return None
    host, _colon, port = given.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    address = host[1:-1] if is_bracketed else host
    try:
        if (ip_address(address).version == _IPV6) is is_bracketed and port.isdecimal() and int(port) <= _PORT_MAX:
            return address, int(port)
    except ValueError:
        pass
    raise click.BadParameter(
        f"{given!r} is not an address with a port; write an IPv4 address like 127.0.0.1:9819 or 0.0.0.0:9819, or an "
        f"IPv6 address in brackets like [::1]:9819; the port is at most {_PORT_MAX}, and 0 is any free port"
    )


@click.command(cls=_Command, epilog="Example: sriovdp agent /etc/sriovdp/config.yaml --metrics 127.0.0.1:9819")
@config_file
@state_option
@run_option
@kubelet_option
@click.option(
    "--device-info-dir",
    "device_info",
    type=FOLDER,
    default=_ROOTS.device_info,
    show_default=True,
    help="Folder of device-info files; Multus reads them.",
)
@click.option(
    "--cdi-dir",
    "cdi",
    type=FOLDER,
    default=_ROOTS.cdi,
    show_default=True,
    help="Folder of CDI specs; the container runtime reads them.",
)
@click.option(
    "--metrics",
    "endpoint",
    metavar="ADDRESS:PORT",
    callback=_read_endpoint,
    help="Serve Prometheus metrics at this address. Without this option, there are none.",
)
@click.option("--verbose", is_flag=True, help="Log debug messages too.")
@click.option("--resource-prefix", "prefix", default="", hidden=True)
@click.option("--use-cdi", "use_cdi", is_flag=True, hidden=True)
@node_options
def command(  # noqa: PLR0913 (one for each option)
    config_path: Path,
    *,
    key: str,
    endpoint: tuple[str, int] | None,
    verbose: bool,
    prefix: str,
    use_cdi: bool,
    node_name: str | None,
    node_labels: dict[str, str] | None,
    **folders: Path,
) -> None:
    """Set up the node, offer its devices to the kubelet, and serve the CNI plugin. Runs until SIGTERM or SIGINT.

    A changed config file is taken over while it runs, at once; SIGHUP and `sriovdp reload` read it too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter(_FORMAT))
    handler.addFilter(RepeatFilter())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.freeze()  # what was imported lives as long as the agent: garbage collection can skip it
    for warning in click.get_current_context().meta[_IGNORED]:
        logger.warning("%s", warning)
    identity, flags = NodeIdentity.find(node_name, node_labels), Flags(prefix, use_cdi)
    load_config = partial(load, config_path, identity, key=key, flags=flags)
    config = load_config()
    agent = Agent(config, Roots(**folders), live=LiveConfig(config, config_path, load_config))
    with _metrics(endpoint, agent, ComparedFile(config_path, load_config)):
        leave = threading.Timer(_LEAVE, _leave)
        leave.daemon = True
        try:
            asyncio.run(_serve(agent, leave))
        finally:
            leave.cancel()  # nothing hangs


@contextmanager
def _metrics(endpoint: tuple[str, int] | None, agent: Agent, file: ComparedFile) -> Iterator[None]:
    """Serve metrics while the agent runs, if there is an endpoint. Their library is imported only then."""
    if endpoint is None:
        yield
        return
    from sriovdp.metrics.collector import AgentCollector  # noqa: PLC0415
    from sriovdp.metrics.endpoint import serve_metrics  # noqa: PLC0415

    with serve_metrics(*endpoint, AgentCollector(agent, file)):
        yield


async def _serve(agent: Agent, leave: threading.Timer) -> None:
    """Run the agent until a signal; `leave` is started at its end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reloads: set[asyncio.Task[bool]] = set()
    loop.add_signal_handler(signal.SIGHUP, lambda: _start_reload(agent, reloads))
    try:
        await agent.run(stop)
    finally:
        leave.start()


def _start_reload(agent: Agent, reloads: set[asyncio.Task[bool]]) -> None:
    """Reload beside all else; `reloads` keeps the task alive."""
    logger.info("SIGHUP: reading the config file")
    task = asyncio.create_task(agent.reload(patient=False))
    reloads.add(task)
    task.add_done_callback(reloads.discard)


def _leave() -> None:
    """End the process although threads of it hang: everything is stopped, and they would keep it for as long."""
    logger.warning("ending with %d threads that still wait for the kernel or a program", threading.active_count() - 2)
    logging.shutdown()
    os._exit(0)
