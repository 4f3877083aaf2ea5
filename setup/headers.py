"""Headers of the lab's kernel in the cache, and building modules against them."""

import tempfile
from pathlib import Path

from setup.packages import unpack
from setup.steps import SetupError, cache_folder, run, say

_COMPILER_HINT = "the C compiler or the kernel's headers do not fit; the compiler's messages follow"


def prepare_headers(version: str) -> Path:
    """The folder for `make -C`, downloaded (17 MB) and unpacked (95 MB) when it is missing. Raises SetupError."""
    target = cache_folder() / f"headers-{version}"
    headers = target / f"usr/src/linux-headers-{version}"
    if headers.is_dir():
        return headers
    say(f"unpacking the headers of Linux {version} into {cache_folder()}")
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="unpacking-") as name:
        folder = Path(name) / "headers"
        _unpack_headers(folder, version)
        makefile = folder / f"usr/src/linux-headers-{version}/Makefile"
        makefile.write_text(makefile.read_text().replace("/usr/src/", f"{target}/usr/src/"))
        if not headers.is_dir():  # as long as no other checkout was faster
            folder.rename(target)
    return headers


def _unpack_headers(folder: Path, version: str) -> None:
    common = version.removesuffix("-amd64")
    folder.mkdir()
    try:
        unpack(folder, f"linux-headers-{version}", f"linux-headers-{common}-common", f"linux-kbuild-{common}")
    except SetupError as error:
        kernel = cache_folder() / f"kernel-{version}"
        raise SetupError(
            f"apt cannot download the headers of Linux {version}: {error}\n"
            f"If apt has only a newer {version.partition('.')[0]}.x kernel now, remove {kernel} and run `make setup` "
            "again: it takes the kernel that apt has. Otherwise run `apt-get update` and repair what it reports."
        ) from error


def build_modules(headers: Path, source: Path) -> None:
    """Build all modules of a folder in place. Raises SetupError with the compiler's messages."""
    # without type information for BPF, which would need pahole
    command: list[str | Path] = [
        "make",
        "-C",
        headers,
        f"M={source}",
        "-j2",
        "CONFIG_DEBUG_INFO_BTF_MODULES=",
        "modules",
    ]
    run(command, hint=_COMPILER_HINT)
