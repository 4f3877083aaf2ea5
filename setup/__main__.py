"""`python3 -m setup`: make this machine ready, as root. Safe to repeat; does only what is missing."""

import os
import sys
import time
from collections.abc import Callable

from setup.environment import make_environment
from setup.kernel import prepare_kernel
from setup.launcher import build_launcher
from setup.open_vswitch import prepare_open_vswitch
from setup.packages import install_packages
from setup.steps import SetupError, say
from setup.vnic import prepare_vnic

_OLDEST_PYTHON = (3, 11)
_STEPS: tuple[tuple[str, Callable[[], object]], ...] = (
    ("Debian packages", install_packages),
    ("the lab's kernel", prepare_kernel),
    ("the lab's software NIC", prepare_vnic),
    ("Open vSwitch for the lab", prepare_open_vswitch),
    ("the virtual environment", make_environment),
    ("the CNI launcher", build_launcher),
)


def main() -> int:
    """Run all steps; gives the exit code."""
    try:
        if os.geteuid() != 0:
            raise SetupError("the set-up installs packages, so it has to be run as root; run it with sudo")
        if sys.version_info < _OLDEST_PYTHON:
            raise SetupError("Python 3.11 or newer is needed; Debian 12 and newer have it as python3")
        for number, (name, step) in enumerate(_STEPS, 1):
            started = time.monotonic()
            step()
            say(f"[{number}/{len(_STEPS)}] {name}: ready ({time.monotonic() - started:.1f} s)")
    except SetupError as error:
        say(f"FAILED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
