"""The CNI launcher, built as `build/sriov` when it is older than its source.

`python3 -m setup.launcher arm64` builds `build/sriov-arm64` for other machines. That is no part of the set-up: what it
takes to compile for them is large.
"""

import importlib.util
import shutil
import sys
from pathlib import Path

from setup.steps import CHECKOUT, SetupError, run, say

_HINT = "install Debian's musl-tools; the compiler's message follows"
_FLAGS = ("-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror")
_SOURCE = CHECKOUT / "cni/launcher/sriov.c"
_AARCH64 = 183  # EM_AARCH64, linux/elf-em.h


def build_launcher() -> None:
    """Build the launcher, unless it is there and newer than its source."""
    target = CHECKOUT / "build/sriov"
    changed = max(path.stat().st_mtime for path in _SOURCE.parent.glob("*.[ch]"))
    if target.is_file() and target.stat().st_mtime > changed:
        return
    say("building the CNI launcher build/sriov")
    _build(["musl-gcc"], target)


def build_for_arm64() -> Path:
    """Build the launcher for arm64, and try it where QEMU can. Raises SetupError when nothing here compiles for it."""
    target = CHECKOUT / "build/sriov-arm64"
    compiler = _find_cross_compiler()
    say(f"building {target} by {' '.join(compiler)}; zig takes minutes the first time")
    _build(compiler, target)
    machine = int.from_bytes(target.read_bytes()[18:20], "little")
    if machine != _AARCH64:
        raise SetupError(f"{target} is for machine {machine}, not for arm64: {compiler[0]} compiles for another")
    if emulator := shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64"):
        answer = run(["env", "CNI_COMMAND=VERSION", emulator, target], hint="the launcher does not work on arm64")
        say(f"it answers {answer.strip()}")
    else:
        say("it was not tried: this machine has no qemu-aarch64 (Debian's qemu-user-static)")
    return target


def _build(compiler: list[str], target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    run([*compiler, *_FLAGS, "-o", target, _SOURCE], hint=_HINT)


def _find_cross_compiler() -> list[str]:
    zig = ["cc", "-target", "aarch64-linux-musl"]
    if found := shutil.which("aarch64-linux-musl-gcc"):
        return [found]
    if found := shutil.which("zig"):
        return [found, *zig]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", *zig]
    raise SetupError(
        "nothing here compiles for arm64 with musl; install zig, which Python has as well: `python3 -m venv zig && "
        "zig/bin/pip install ziglang` (some 90 MB), and run this with zig/bin/python; on arm64 itself `make setup` does"
    )


def main() -> int:
    """Build for the architecture that is named; gives the exit code."""
    try:
        if sys.argv[1:] != ["arm64"]:
            raise SetupError("which architecture? `python3 -m setup.launcher arm64` is what there is")
        build_for_arm64()
    except SetupError as error:
        say(f"FAILED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
