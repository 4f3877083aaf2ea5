"""Open vSwitch for the lab: Debian's packages, unpacked into the cache and not installed, as they would start it here.

The lab's kernel has the module. The libraries that its programs need are installed.
"""

import re
import shutil
import tempfile
from pathlib import Path

from setup import packages
from setup.sources import read_codename
from setup.steps import SetupError, cache_folder, read, run, say

_PACKAGES = ("openvswitch-switch", "openvswitch-common")
_PROGRAMS = ("usr/sbin/ovsdb-server", "usr/lib/openvswitch-switch/ovs-vswitchd", "usr/bin/ovs-vsctl")
_LIBRARY = re.compile(r"Depends: (lib[a-z0-9.+-]+)$", re.MULTILINE)


def find_open_vswitch() -> Path:
    """The folder that has it, or will have it."""
    return cache_folder() / f"openvswitch-{read_codename()}"


def prepare_open_vswitch() -> Path:
    """That folder; made when it is missing (some 4 MB to download). Raises SetupError."""
    target = find_open_vswitch()
    if (target / "complete").is_file():
        return target
    say("unpacking Open vSwitch")
    if not _list_libraries():
        packages.update()
    packages.ensure_packages(_list_libraries())
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="unpacking-") as name:
        folder = Path(name) / "root"
        folder.mkdir()
        packages.unpack(folder, *_PACKAGES)
        shutil.rmtree(folder / "usr/share/man", ignore_errors=True)
        _check_programs(folder)
        (folder / "complete").touch()
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    return target


def _list_libraries() -> list[str]:
    return sorted(set(_LIBRARY.findall(read(["apt-cache", "depends", *_PACKAGES]))))


def _check_programs(folder: Path) -> None:
    for program in _PROGRAMS:
        if not (folder / program).is_file():
            raise SetupError(f"{_PACKAGES[0]} has no {program}; another release has it elsewhere: mend {__name__}")
        run([folder / program, "--version"], hint="one of its libraries is missing")
