"""Building and exec'ing the launcher, and agents that answer it as a test wants."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cni.protocol.spec import VERSIONS
from cni.protocol.wire import HEADER_SIZE, decode_header
from cni.service.connection import Handle
from cni.service.server import CniServer

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "cni/launcher/sriov.c"
WARNINGS = ("-Wall", "-Wextra", "-Werror")
STATIC = ("musl-gcc", "-static", "-Os", "-s", *WARNINGS)
SANITIZED = ("gcc", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", *WARNINGS)
IMPATIENT = (*STATIC, *(f"-D{name}_TIMEOUT_MS=300" for name in ("STDIN", "SEND", "REPLY")), "-DLIFETIME_S=2")
BASE = {"ASAN_OPTIONS": "exitcode=99", "PATH": "/bin", "SRIOVDP_SPOOL": "/dev/null/spool"}  # never this machine's own
TIMEOUT = 60.0  # seconds, a bound for a test that hangs


def build(compiler: tuple[str, ...], target: Path) -> Path:
    """Compile the launcher, or fail saying what is missing."""
    if shutil.which(compiler[0]) is None:
        pytest.fail(f"{compiler[0]} is missing: apt-get install gcc musl-tools")
    subprocess.run([*compiler, "-o", target, SOURCE], check=True)
    return target


def is_current(built: Path) -> bool:
    """Whether a built launcher is not older than any of its sources."""
    newest = max(source.stat().st_mtime for source in SOURCE.parent.glob("*.[ch]"))
    return built.exists() and built.stat().st_mtime >= newest


@dataclass(frozen=True)
class Outcome:
    """What a runtime sees of the launcher."""

    exit_code: int
    stdout: bytes

    @property
    def error(self) -> Any:
        """The CNI error on stdout; fails when it is none of the specification's shape."""
        document = json.loads(self.stdout)
        assert self.exit_code == 1
        assert document["cniVersion"] in VERSIONS
        assert document["msg"]
        assert document["details"]
        return document


def run_alone(launcher: Path, stdin: bytes = b"{}", **environment: str) -> Outcome:
    """Exec the launcher as a runtime does. stderr must stay empty: sanitizers write there."""
    finished = subprocess.run(
        [launcher], input=stdin, env={**BASE, **environment}, capture_output=True, timeout=TIMEOUT, check=False
    )
    assert finished.stderr == b""
    return Outcome(finished.returncode, finished.stdout)


async def run(launcher: Path, stdin: bytes = b"{}", **environment: str) -> Outcome:
    """The same beside a server on this event loop."""
    return await asyncio.to_thread(run_alone, launcher, stdin, **environment)


@asynccontextmanager
async def serving(path: Path, handle: Handle) -> AsyncIterator[None]:
    """The real server."""
    server = CniServer(path, handle)
    await server.start()
    try:
        yield
    finally:
        await server.stop()


@asynccontextmanager
async def scripted(path: Path, answer: bytes, *, reads: bool = True) -> AsyncIterator[list[bytes]]:
    """An agent that takes a request (or does not read it), sends these bytes and closes; gives the requests."""
    frames: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reads:
            header = await reader.readexactly(HEADER_SIZE)
            frames.append(header + await reader.readexactly(decode_header(header).body_size))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield frames
