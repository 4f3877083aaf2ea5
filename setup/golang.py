"""The Go toolchain: the machine's own, or the newest that Debian and its backports have, which fetches a newer one."""

import functools
import re
import shutil
from pathlib import Path

from setup.packages import add_release_backports, ensure_packages, list_names, update
from setup.steps import SetupError

_ROOT = Path("/usr/lib")
_OLDEST = 21  # the first minor version that fetches the toolchain which a module asks for


@functools.cache
def find_go() -> Path:
    """Path of `go`, installed when there is none. Raises SetupError."""
    if found := shutil.which("go"):
        return Path(found)
    minor = max(_list_minors(), default=0)
    if minor < _OLDEST:
        update()
        add_release_backports()
        minor = max(_list_minors(), default=0)
    if minor < _OLDEST:
        raise SetupError(
            f"apt has no Go 1.{_OLDEST} or newer, and programs have to be built with it; install Go, or name the "
            "programs by variables (docs/kubernetes.md)"
        )
    ensure_packages([f"golang-1.{minor}-go"])
    return _ROOT / f"go-1.{minor}/bin/go"


def _list_minors() -> list[int]:
    names = (re.fullmatch(r"golang-1\.(\d+)-go", name) for name in list_names("golang-1."))
    return [int(name[1]) for name in names if name]
