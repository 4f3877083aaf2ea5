"""`sriovdp apply` on the software NIC: drivers that accept `sriov_numvfs` and do something else."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.vnic_cards import Card, ip

pytestmark = pytest.mark.lab(pfs=0, vnic="ice:4")

_Load = Callable[..., list[Card]]


def _apply(card: Card, folder: Path, driver: str) -> subprocess.CompletedProcess[str]:
    config = folder / "config.yaml"
    entry = f"{{select: {{pciAddresses: ['{card.address}']}}, numVfs: 3, vfs: [{{range: 0-2, driver: {driver}}}]}}"
    config.write_text(f"physicalFunctions: [{entry}]\nresourceList: []\n")
    command = [sys.executable, "-m", "sriovdp.cli.main", "apply", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_fewer_vfs_than_wanted(vnic: _Load, tmp_path: Path) -> None:
    """The error says how many there are, and those are taken away again."""
    (card,) = vnic("ice:4/numvfs_at_most=2")
    ip(f"link set dev {card.netdev} up")
    done = _apply(card, tmp_path, "none")
    assert done.returncode != 0
    assert "accepted sriov_numvfs 3, but there are 2 VFs" in done.stderr
    assert card.numvfs() == 0


def test_a_registered_driver_is_used_although_modprobe_fails(vnic: _Load, tmp_path: Path) -> None:
    """The kernel has a driver of the name that modprobe gives for the VFs' modalias, whatever module made it."""
    (card,) = vnic("ice:4")
    ip(f"link set dev {card.netdev} up")
    hidden = shutil.move("/run/modprobe.d/vnic.conf", tmp_path / "vnic.conf")
    try:
        assert subprocess.run(["modprobe", "iavf"], capture_output=True, check=False).returncode != 0
        done = _apply(card, tmp_path, "kernel")
    finally:
        shutil.copy(hidden, "/run/modprobe.d/vnic.conf")
    assert done.returncode == 0, done.stderr
    assert {(card.vf(index) / "driver").readlink().name for index in range(3)} == {"iavf"}
    card.write_numvfs(0)
