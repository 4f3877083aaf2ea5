"""An agent in this process that follows a config file, and the commands that ask it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from click.testing import CliRunner

from sriovdp.agent import Agent
from sriovdp.cli.main import cli
from sriovdp.config.file import load
from sriovdp.live_config import LiveConfig
from tests.agent.running import find_roots
from tests.fakes.sysfs import Tree


@asynccontextmanager
async def follow(tree: Tree, folder: Path, path: Path) -> AsyncIterator[Agent]:
    """An agent that follows a file as long as the block, with its state below `folder`."""
    stop, read = asyncio.Event(), partial(load, path)
    config = await asyncio.to_thread(read)
    agent = Agent(config, find_roots(tree, folder), live=LiveConfig(config, path, read), rescan_interval=0.1)
    task = asyncio.create_task(agent.run(stop))
    try:
        yield agent
    finally:
        stop.set()
        await task


def reload(folder: Path) -> str:
    """Output of `sriovdp reload`, and its exit code at the end; not from the agent's own thread."""
    done = CliRunner().invoke(cli, ["reload", f"--run-dir={folder / 'run'}"])
    return f"{done.output}{done.exception or ''}{done.exit_code}"


def ask_status(folder: Path) -> str:
    """Output of `sriovdp status`; not from the agent's own thread."""
    return CliRunner().invoke(cli, ["status", f"--run-dir={folder / 'run'}"]).output
