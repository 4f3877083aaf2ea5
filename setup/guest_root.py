"""`python3 -m setup.guest_root`: Debian 13 as the root of the lab's guest, in the cache; today's node.

It has containerd with CDI and NRI, and a newer Python than Debian 12, for which the locked Python packages are below
/opt. The checkout and the cache are shared with the guest beside it (`tests/lab/vm.py`).
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from setup.packages import IN_GUEST, NAMED_BY_ABI, choose_newest
from setup.release import install, list_names, remove_tree, thin, unpack_release
from setup.steps import CHECKOUT, SetupError, cache_folder, run, say

RELEASE = "trixie"
PYTHON = "3.13"
_PACKAGES = (
    *IN_GUEST,
    "ca-certificates",
    "iptables",  # the CNI plugin ptp looks for it
    "nftables",
    "python3",
    "udev",  # its library is what pyudev and DPDK link with
)
_HINT = "check that pip can download (`pip config list` shows from where), then run it again"


@dataclass(frozen=True)
class GuestRoot:
    """The system in `folder`, and the Python packages for it: `packages` is their folder as the guest sees it."""

    folder: Path
    packages: Path

    @property
    def packages_here(self) -> Path:
        """That folder as this machine sees it."""
        return self.folder / self.packages.relative_to("/")

    @property
    def is_complete(self) -> bool:
        """Whether both are there."""
        return (self.folder / "complete").is_file() and self.packages_here.is_dir()


def describe_guest_root() -> GuestRoot:
    """Where they are, or will be: one folder for each list of packages and each lock file."""
    wanted = " ".join((RELEASE, *_PACKAGES, *NAMED_BY_ABI))
    folder = cache_folder() / f"root-{RELEASE}-{_key(wanted.encode())}"
    lock = (CHECKOUT / "requirements.lock").read_bytes()
    return GuestRoot(folder, Path(f"/opt/python-{_key(lock)}"))


def prepare_guest_root() -> GuestRoot:
    """Both, made where they are missing (some 250 MB to download). Raises SetupError."""
    root = describe_guest_root()
    if not (root.folder / "complete").is_file():
        _make_root(root.folder)
    if not root.packages_here.is_dir():
        _unpack_packages(root)
    return root


def _make_root(target: Path) -> None:
    building = target.with_name(f"{target.name}-building")
    unpack_release(RELEASE, building)
    install(building, _PACKAGES)
    install(building, [choose_newest(prefix, list_names(building, prefix)) for prefix in NAMED_BY_ABI])
    thin(building)
    (building / "complete").touch()
    building.rename(target)


def _unpack_packages(root: GuestRoot) -> None:
    """The locked packages for the guest's Python, which this machine need not have."""
    say(f"unpacking the locked Python packages for Python {PYTHON}")
    building = root.packages_here.with_name("python-building")
    remove_tree(building)
    pip: list[str | Path] = [CHECKOUT / ".venv/bin/python", "-m", "pip", "--disable-pip-version-check", "-q"]
    choice = ["--python-version", PYTHON, "--only-binary=:all:", "--no-deps", "--no-compile", "--require-hashes"]
    lock = CHECKOUT / "requirements.lock"
    run([*pip, "install", *choice, "--target", building, "-r", lock], hint=_HINT)
    building.rename(root.packages_here)
    compile_all: list[str | Path] = ["python3", "-m", "compileall", "-q", root.packages]
    run(["chroot", root.folder, *compile_all], hint="one of the packages is not for this Python")


def _key(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def main() -> int:
    """Prepare it; gives the exit code."""
    try:
        say(f"the guest's root is ready in {prepare_guest_root().folder}")
    except SetupError as error:
        say(f"FAILED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
