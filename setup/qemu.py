"""QEMU 11 for the lab's virtio NIC with VFs: from Debian 13's backports, in a root of its own in the cache.

Debian 12's libraries are too old for it, so it is started by the dynamic loader of that root and with its libraries:
without a chroot, the paths that it is given stay those of this machine.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from setup.release import add_suite, install, remove_tree, thin, unpack_release
from setup.steps import SetupError, cache_folder, run, say

_RELEASE = "trixie"
_LEAST = 11  # the first with `sriov-pf` in virtio-net-pci
_SUITE = f"{_RELEASE}-backports"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"


@dataclass(frozen=True)
class Qemu:
    """An unpacked QEMU."""

    root: Path

    def command(self) -> list[str]:
        """How it is started; options follow."""
        loader = self.root / _LIBRARIES / "ld-linux-x86-64.so.2"
        binary = self.root / "usr/bin/qemu-system-x86_64"
        share = self.root / "usr/share"
        folders = ("-L", str(share / "qemu"), "-L", str(share / "seabios"))
        return [str(loader), "--library-path", str(self.root / _LIBRARIES), str(binary), *folders]


def find_qemu() -> Qemu | None:
    """The newest one in the cache that is complete."""
    found = sorted(cache_folder().glob("qemu-*/complete"), key=lambda path: path.stat().st_mtime)
    return Qemu(found[-1].parent) if found else None


def prepare_qemu() -> Qemu:
    """The one in the cache; made when there is none. Raises SetupError."""
    if found := find_qemu():
        return found
    building = cache_folder() / "qemu-building"
    say(f"unpacking QEMU from the backports of Debian {_RELEASE} (some 150 MB to download)")
    unpack_release(_RELEASE, building)
    add_suite(building, _SUITE)
    install(building, ["qemu-system-x86"], _SUITE)
    thin(building)
    version = _read_version(Qemu(building))
    if int(version.partition(".")[0]) < _LEAST:
        raise SetupError(f"the backports of Debian {_RELEASE} have QEMU {version}; {_LEAST} is needed")
    target = cache_folder() / f"qemu-{version}"
    remove_tree(target)
    building.rename(target)
    (target / "complete").touch()
    return Qemu(target)


def _read_version(qemu: Qemu) -> str:
    printed = run([*qemu.command(), "--version"], hint="its libraries do not fit")
    found = re.search(r"version (\d+\.\d+\.\d+)", printed)
    if not found:
        raise SetupError(f"QEMU prints no version but {printed!r}")
    return found[1]


def main() -> int:
    """Prepare it; gives the exit code."""
    try:
        say(f"QEMU for the lab's virtio NIC is ready in {prepare_qemu().root}")
    except SetupError as error:
        say(f"FAILED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
