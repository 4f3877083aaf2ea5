"""The wheel's hook: no wheel without a launcher."""

from pathlib import Path
from typing import Any

import pytest

from setup.wheel import LauncherHook


def run_hook(root: Path, version: str) -> dict[str, Any]:
    """What the hook makes of a build."""
    data: dict[str, Any] = {"force_include": {}}
    hook = LauncherHook(str(root), {}, None, None, "", "wheel")  # type: ignore[arg-type]
    hook.initialize(version, data)
    return data


def test_launcher_goes_into_the_wheel(tmp_path: Path) -> None:
    """Where `sriovdp install-cni` looks for it, and the wheel is one of this architecture."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build/sriov").touch()

    data = run_hook(tmp_path, "standard")

    assert data["force_include"] == {str(tmp_path / "build/sriov"): "cni/launcher/sriov"}
    assert data["pure_python"] is False
    assert data["tag"].startswith("py3-none-linux_")


def test_wheel_without_launcher_is_refused(tmp_path: Path) -> None:
    """It would be found out on a node only; an editable install needs none."""
    with pytest.raises(FileNotFoundError, match="make setup"):
        run_hook(tmp_path, "standard")
    assert run_hook(tmp_path, "editable") == {"force_include": {}}
