"""Debian packages: what the lab, the launcher and the tests need of the machine."""

import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from setup.sources import add_backports, read_codename
from setup.steps import SetupError, read, run, say

_OLDEST_QEMU = 8  # the first with an emulated igb
IN_GUEST = (
    "bpftool",  # what tests compare, as ethtool
    "busybox-static",  # the first program in the lab's guest
    "containerd",
    "containernetworking-plugins",  # IPAM plugins for the tests
    "dpdk-dev",  # testpmd
    "ethtool",
    "iproute2",
    "iputils-ping",
    "kmod",
    "procps",
    "runc",
)
_PACKAGES = (
    *IN_GUEST,
    "e2fsprogs",  # the disk of a lab that reboots
    "gcc",
    "libc6-dev",
    "make",
    "musl-tools",  # the launcher is linked with musl
    "podman",  # a runtime with CDI, which Debian 12's containerd is too old for
    "python3-venv",
    "systemd",  # systemd-analyze
    "xz-utils",
)
NAMED_BY_ABI = ("librte-net-e1000-", "librte-bus-pci", "librte-mempool-ring")  # DPDK's drivers for testpmd
_DOWNLOAD_HINT = "check that apt can download (`apt-get update`) and that the disk has 2 GiB free"
_HINT = "repair apt on this machine (`apt-get update` shows what is missing) and run `make setup` again"


def install_packages() -> None:
    """Install what is missing; nothing is asked of apt when nothing is."""
    ensure_packages(_PACKAGES)
    prefixes = [prefix for prefix in NAMED_BY_ABI if not read(["dpkg-query", "-W", f"{prefix}[0-9]*"])]
    if prefixes:
        update()
        names = [choose_newest(prefix, list_names(prefix)) for prefix in prefixes]
        say(f"installing {', '.join(names)}")
        _install(names)
    if _qemu_version() < _OLDEST_QEMU:
        _install_qemu()


def ensure_packages(names: Iterable[str]) -> None:
    """Install those of the packages that are missing. Raises SetupError."""
    missing = [name for name in names if not _is_installed(name)]
    if missing:
        update()
        say(f"installing {', '.join(missing)}")
        _install(missing)


def update() -> None:
    """Fetch the package lists. A source that is broken is only reported: what is missing then fails by its name."""
    say("fetching the package lists")
    complaints = [line for line in read_both(["apt-get", "update", "-q"]).splitlines() if line.startswith(("E:", "W:"))]
    for line in complaints:
        say(f"apt says {line}")


def read_both(command: list[str]) -> str:
    """Output and errors of a command, which may fail."""
    return read(["sh", "-c", '"$@" 2>&1', "sh", *command])


def unpack(folder: Path, *names: str) -> None:
    """Download packages and unpack them below a folder, without installing them. Raises SetupError."""
    with tempfile.TemporaryDirectory(dir=folder) as downloads:
        # as root apt would hand the download to its user _apt, who cannot write here
        command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *names]
        run(command, cwd=Path(downloads), hint=_DOWNLOAD_HINT)
        for package in sorted(Path(downloads).glob("*.deb")):
            run(["dpkg", "-x", package, folder], hint=_DOWNLOAD_HINT)


def list_names(prefix: str) -> list[str]:
    """Names of all packages that begin with a prefix."""
    return read(["apt-cache", "pkgnames", prefix]).split()


def choose_newest(prefix: str, known: Iterable[str]) -> str:
    """The package of a name that ends in its ABI's version. Raises SetupError when none is known."""
    names = [name for name in known if re.fullmatch(rf"{prefix}[\d.]+", name)]
    if not names:
        raise SetupError(f"apt knows no package {prefix}*; {_HINT}")
    return max(names, key=len)


def add_release_backports() -> None:
    """Make the release's backports available. Raises SetupError when they cannot be."""
    if add_backports(read_codename()):
        update()


def _install_qemu() -> None:
    candidate = re.search(r"Candidate: (?:\d+:)?(\d+)", read(["apt-cache", "policy", "qemu-system-x86"]))
    target: list[str] = []
    if not candidate or int(candidate[1]) < _OLDEST_QEMU:
        add_release_backports()
        policy = read(["apt-cache", "policy", "qemu-system-x86"])
        suite = re.search(r"\S+-backports", policy)
        if not suite:
            raise SetupError(
                f"this release has no QEMU {_OLDEST_QEMU} or newer, and neither have its backports; {_HINT}"
            )
        target = ["-t", suite[0].split("/")[0]]
    say("installing QEMU")
    _install(["qemu-system-x86"], *target)
    if _qemu_version() < _OLDEST_QEMU:
        raise SetupError(f"qemu-system-x86_64 is older than {_OLDEST_QEMU} after its installation; {_HINT}")


def _qemu_version() -> int:
    if not shutil.which("qemu-system-x86_64"):
        return 0
    found = re.search(r"version (\d+)", read(["qemu-system-x86_64", "--version"]))
    return int(found[1]) if found else 0


def _install(names: list[str], *options: str) -> None:
    patient = ("-o", "DPkg::Lock::Timeout=300")  # seconds; another apt may be at work on this machine
    run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *patient, *options, *names], hint=_HINT)


def _is_installed(name: str) -> bool:
    return read(["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", name]).startswith("ii")
