"""A Debian release in a folder, made by debootstrap from where this machine's own packages come."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from setup.packages import ensure_packages
from setup.sources import find_mirror, read_codename
from setup.steps import run, say

_TOOLS = ("debootstrap", "debian-archive-keyring")
# what the official slim images lack too (docker-library/debian, .slimify-excludes), and what apt keeps
_THINNED = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/lib/apt/lists", "var/cache/apt/archives")
_HINT = "check that apt can download (`apt-get update`) and that the disk has 2 GiB free, then run it again"


def unpack_release(release: str, folder: Path) -> None:
    """Make the smallest system of a release in a new folder. Raises SetupError."""
    ensure_packages(_TOOLS)
    remove_tree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    say(f"unpacking Debian {release} into {folder}")
    run(["debootstrap", "--variant=minbase", release, folder, find_mirror(read_codename())], hint=_HINT)


def add_suite(folder: Path, suite: str) -> None:
    """Make one more suite known to the apt of that system, from the same place."""
    line = f"deb {find_mirror(read_codename())} {suite} main\n"
    (folder / f"etc/apt/sources.list.d/{suite}.list").write_text(line)


def install(folder: Path, names: Iterable[str], suite: str = "") -> None:
    """Install packages in that system, by its own apt. Raises SetupError."""
    # services of the packages must not start: there is no machine around them
    policy = folder / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    _apt(folder, "update")
    target = ("-t", suite) if suite else ()
    _apt(folder, "install", "-y", "--no-install-recommends", *target, *names)
    policy.unlink()


def list_names(folder: Path, prefix: str) -> list[str]:
    """Names of all packages that begin with a prefix, as the apt of that system knows them."""
    return run(["chroot", folder, "apt-cache", "pkgnames", prefix], hint=_HINT).split()


def thin(folder: Path) -> None:
    """Remove what no program reads: manuals, translations, downloads."""
    for name in _THINNED:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    (folder / "var/cache/apt/archives/partial").mkdir()


def remove_tree(folder: Path) -> None:
    """Remove a system's folder, which has files of all kinds of rights."""
    run(["rm", "-rf", folder], hint="remove it by hand")


def _apt(folder: Path, *arguments: str) -> str:
    # as root apt would hand its downloads to its user _apt, who cannot write everywhere
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root"]
    return run(["chroot", folder, *command, *arguments], hint=_HINT)
