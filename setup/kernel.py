"""The lab's kernel: Debian's own, unpacked into the cache and never installed, with igb_uio built for it."""

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from setup import packages
from setup.headers import build_modules, prepare_headers
from setup.steps import SetupError, cache_folder, run, say

_SERIES = "6.12"
_HINT = "check that apt can download (`apt-get update`) and that the disk has 2 GiB free, then run `make setup` again"


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel. `folder` has `boot/` and `lib/modules/VERSION/`."""

    folder: Path

    @property
    def version(self) -> str:
        """What `uname -r` says under it."""
        return self.folder.name.removeprefix("kernel-")

    @property
    def image(self) -> Path:
        """The bootable image."""
        return self.folder / "boot" / f"vmlinuz-{self.version}"

    @property
    def modules(self) -> Path:
        """The folder of its modules."""
        return self.folder / "lib/modules" / self.version


def find_kernel() -> Kernel | None:
    """The newest kernel in the cache that is complete."""
    complete = sorted(cache_folder().glob("kernel-*/complete"), key=lambda path: path.stat().st_mtime)
    return Kernel(complete[-1].parent) if complete else None


def prepare_kernel() -> None:
    """Download, unpack and complete a kernel, unless the cache has one."""
    if find_kernel():
        return
    version = _choose_version()
    say(f"unpacking Linux {version} into {cache_folder()} (some 110 MB to download)")
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="unpacking-") as name:
        folder = Path(name)
        packages.unpack(folder, f"linux-image-{version}")
        # Debian 12 has the modules below /lib, later releases below /usr/lib
        if not (folder / "lib/modules").exists():
            (folder / "lib").mkdir(exist_ok=True)
            (folder / "usr/lib/modules").rename(folder / "lib/modules")
        _decompress_modules(folder)
        _build_igb_uio(folder, version)
        run(["depmod", "-b", str(folder), version], hint=_HINT)
        shutil.rmtree(folder / "usr", ignore_errors=True)
        (folder / "complete").touch()
        target = cache_folder() / f"kernel-{version}"
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        folder.mkdir()  # for the clean-up of the temporary directory


def _choose_version() -> str:
    versions = _list_versions()
    if not versions:
        packages.update()
        versions = _list_versions()
    if not versions:
        packages.add_release_backports()
        versions = _list_versions()
    if not versions:
        raise SetupError(f"neither this release nor its backports have a Linux {_SERIES}; {_HINT}")
    return max(versions, key=lambda version: [int(number) for number in re.findall(r"\d+", version)])


def _list_versions() -> list[str]:
    """Versions of the signed kernels for ordinary machines: no debug, cloud or real-time ones."""
    wanted = re.compile(rf"linux-image-({re.escape(_SERIES)}\.\d+[^-]*(?:-\d+)?-amd64)")
    return [found[1] for name in packages.list_names(f"linux-image-{_SERIES}") if (found := wanted.fullmatch(name))]


def _decompress_modules(folder: Path) -> None:
    """Once here instead of at each boot, where an emulated processor would do it."""
    say("decompressing its modules")
    packed = [str(path) for path in (folder / "lib/modules").rglob("*.ko.xz")]
    for first in range(0, len(packed), 500):
        run(["xz", "--decompress", "--threads=0", *packed[first : first + 500]], hint=_HINT)


def _build_igb_uio(folder: Path, version: str) -> None:
    """Build the module from Debian's source against the kernel's own headers."""
    say("building igb_uio")
    packages.unpack(folder, "dpdk-kmods-dkms")
    source = next((folder / "usr/src").glob("dpdk-kmods-*"))
    build_modules(prepare_headers(version), source)
    target = folder / "lib/modules" / version / "updates"
    target.mkdir()
    shutil.copy(source / "igb_uio.ko", target)
