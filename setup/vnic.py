"""The lab's software NIC: kernel modules of the checkout, built for the lab's kernel into the cache."""

import hashlib
import shutil
import tempfile
from pathlib import Path

from setup.headers import build_modules, prepare_headers
from setup.kernel import find_kernel
from setup.steps import CHECKOUT, SetupError, cache_folder, run, say

_SOURCE = CHECKOUT / "tests/lab/vnic"


def vnic_folder() -> Path:
    """Where the built modules are, or will be: one folder for each kernel and state of the sources."""
    kernel = find_kernel()
    if kernel is None:
        raise SetupError("the lab's kernel is not there; run `make setup` as root")
    content = hashlib.sha256()
    for path in _list_sources():
        content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return cache_folder() / f"vnic-{kernel.version}-{content.hexdigest()[:16]}"


def prepare_vnic() -> Path:
    """The folder of the modules, which are built when they are missing (some 10 s). Raises SetupError."""
    target = vnic_folder()
    if target.is_dir():
        return target
    kernel = find_kernel()
    assert kernel, "vnic_folder has found it"
    say("building the lab's software NIC")
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="building-") as name:
        source, built = Path(name) / "source", Path(name) / "built"
        source.mkdir()
        for path in _list_sources():
            shutil.copy(path, source)
        build_modules(prepare_headers(kernel.version), source)
        built.mkdir()
        for module in source.glob("*.ko"):
            # the 9p root is slow, and a module is read whole
            run(["strip", "--strip-debug", "-o", built / module.name, module], hint="install binutils")
        if not target.is_dir():  # as long as no other run was faster
            built.rename(target)
    return target


def _list_sources() -> list[Path]:
    return sorted([*_SOURCE.glob("*.[ch]"), _SOURCE / "Kbuild"])
