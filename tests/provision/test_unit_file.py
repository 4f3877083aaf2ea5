"""The systemd unit for the boot, as systemd itself reads it."""

import subprocess
from pathlib import Path

UNIT = Path(__file__).parents[2] / "config/deploy/systemd/sriovdp-provision.service"


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """No unknown key, nothing that systemd would pass over in silence; and it reports one that is put in."""
    verify = ["systemd-analyze", "verify"]
    good = subprocess.run([*verify, UNIT], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stderr) == (0, "")
    bad = tmp_path / UNIT.name
    bad.write_text(UNIT.read_text().replace("SuccessExitStatus", "SuccesExitStatus"))
    told = subprocess.run([*verify, bad], capture_output=True, text=True, check=False)
    assert "Unknown key" in told.stderr
