"""The CNI launcher, built as `build/sriov` when it is older than its source."""

from setup.steps import CHECKOUT, run, say

_FLAGS = ("-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror")


def build_launcher() -> None:
    """Build the launcher, unless it is there and newer than its source."""
    source, target = CHECKOUT / "cni/launcher/sriov.c", CHECKOUT / "build/sriov"
    if target.is_file() and target.stat().st_mtime > source.stat().st_mtime:
        return
    say("building the CNI launcher build/sriov")
    target.parent.mkdir(exist_ok=True)
    run(["musl-gcc", *_FLAGS, "-o", target, source], hint="install Debian's musl-tools; the compiler's message follows")
