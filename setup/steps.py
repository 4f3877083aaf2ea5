"""What every step of the set-up shares: saying what happens, running commands, failing with a sentence, the cache."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


class SetupError(Exception):
    """A step failed; the message says what was tried, why it failed and what to do."""


def cache_folder() -> Path:
    """The folder for downloads and builds, outside the checkout, shared by all checkouts of this machine."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sriovdp"


def say(text: str) -> None:
    """Tell the person who waits what is going on."""
    sys.stderr.write(f"setup: {text}\n")
    sys.stderr.flush()


def run(command: Sequence[str | Path], *, hint: str, cwd: Path | None = None) -> str:
    """Run a command and give its output. Raises SetupError with the end of its output, and what to do."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError as error:
        raise SetupError(f"{command[0]} is not installed; {hint}") from error
    if done.returncode != 0:
        tail = "\n".join(f"  {line}" for line in (done.stdout + done.stderr).splitlines()[-15:])
        said = " ".join(map(str, command))
        raise SetupError(f"`{said}` failed with exit code {done.returncode}; {hint}\n{tail}")
    return done.stdout


def read(command: Sequence[str]) -> str:
    """Output of a command that may fail, then whatever it printed before."""
    return subprocess.run(
        command, env=os.environ | {"LC_ALL": "C.UTF-8"}, capture_output=True, text=True, check=False
    ).stdout
