"""Hatch's hook for the wheel: the launcher goes into it, for `sriovdp install-cni`, and makes it one of a platform."""

import platform
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LauncherHook(BuildHookInterface):  # type: ignore[type-arg] # its parameter is Hatch's own business
    """Adds `build/sriov` to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raises FileNotFoundError when the launcher was not built; an editable install finds it in the checkout."""
        if version == "editable":
            return
        launcher = Path(self.root) / "build/sriov"
        if not launcher.is_file():
            raise FileNotFoundError(f"{launcher} is missing: run `make setup` in the checkout, then build the wheel")
        build_data["force_include"][str(launcher)] = "cni/launcher/sriov"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{platform.machine()}"
