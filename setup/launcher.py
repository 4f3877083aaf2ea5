"""The CNI launcher, built as `build/sriov` when it is older than its source."""

from setup.steps import CHECKOUT, run, say

_HINT = "install Debian's musl-tools; the compiler's message follows"
_FLAGS = ("-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror")


def build_launcher() -> None:
    """Build the launcher, unless it is there and newer than its source."""
    folder, target = CHECKOUT / "cni/launcher", CHECKOUT / "build/sriov"
    changed = max(path.stat().st_mtime for path in folder.glob("*.[ch]"))
    if target.is_file() and target.stat().st_mtime > changed:
        return
    say("building the CNI launcher build/sriov")
    target.parent.mkdir(exist_ok=True)
    run(
        ["musl-gcc", *_FLAGS, "-o", target, folder / "sriov.c"],
        hint=_HINT,
    )
