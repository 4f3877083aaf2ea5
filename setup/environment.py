"""The virtual environment of the checkout, from the lock file; wheels are kept in the cache."""

import hashlib
import json
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from setup.steps import CHECKOUT, cache_folder, run, say

_PYTHON = "/usr/bin/python3"  # Debian's own: the same in each checkout, and in the lab's guest
_HINT = "check that pip can download (`pip config list` shows from where), then run `make setup` again"
_COMPILED = ("sriovdp", "cni", "tests", "bench", "demo")
_PIP = ("-m", "pip", "--disable-pip-version-check", "-q")


def make_environment() -> None:
    """Make `.venv` as the lock file says, unless it is so already."""
    lock = CHECKOUT / "requirements.lock"
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    state = f"{CHECKOUT} {_key(lock.read_bytes())} {_key(json.dumps(project).encode())}"
    stamp = CHECKOUT / ".venv" / "complete"
    if not stamp.is_file() or stamp.read_text() != state:
        _fill_environment(lock)
        stamp.write_text(state)
    _compile_checkout()


def _fill_environment(lock: Path) -> None:
    wheels = _download_wheels(lock)
    say("making the virtual environment .venv")
    shutil.rmtree(CHECKOUT / ".venv", ignore_errors=True)
    run([_PYTHON, "-m", "venv", CHECKOUT / ".venv"], hint="install Debian's python3-venv")
    python = CHECKOUT / ".venv/bin/python"
    offline: list[str | Path] = ["--no-index", "--find-links", wheels, "--no-build-isolation"]
    run([python, *_PIP, "install", *offline, "--require-hashes", "-r", lock], hint=_HINT)
    run([python, *_PIP, "install", *offline, "--no-deps", "-e", CHECKOUT], hint=_HINT)


def _compile_checkout() -> None:
    """Keep compiled code beside the source: the lab's guest cannot write it, and takes seconds to compile."""
    run(
        [CHECKOUT / ".venv/bin/python", "-m", "compileall", "-q", *(CHECKOUT / name for name in _COMPILED)],
        hint="a module has a syntax error",
    )


def _download_wheels(lock: Path) -> Path:
    """The folder with all wheels of the lock file, downloaded when the cache has it not."""
    target = cache_folder() / f"wheels-{sys.version_info.major}.{sys.version_info.minor}-{_key(lock.read_bytes())}"
    if target.is_dir():
        return target
    say("downloading the locked Python packages")
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="downloading-") as name:
        folder = Path(name)
        run([_PYTHON, "-m", "venv", folder / "venv"], hint="install Debian's python3-venv")
        python = folder / "venv/bin/python"
        (folder / "wheels").mkdir()
        run([python, *_PIP, "download", "--require-hashes", "-r", lock, "-d", folder / "wheels"], hint=_HINT)
        (folder / "wheels").rename(target)
    return target


def _key(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
