"""A test that wants the machine as it booted, and runs in the one that `leaving.py` had."""

from pathlib import Path

import pytest

from tests.lab.node import list_pfs

pytestmark = pytest.mark.lab
shares_boot = True


def test_that_finds_a_fresh_machine() -> None:
    """It is the same boot, and nothing is left."""
    assert Path("/run/boot-of-the-samples").exists()
    pf = list_pfs()[0]
    assert (pf / "sriov_numvfs").read_text() == "0\n"
    assert (next((pf / "net").iterdir()) / "mtu").read_text() == "1500\n"
    assert not Path("/sys/module/vfio_pci").exists()
    assert not list(Path("/run/netns").iterdir())
    assert [list(Path(folder).iterdir()) for folder in ("/var/lib/sriovdp", "/run/cdi", "/var/lib/cni")] == [[], [], []]
