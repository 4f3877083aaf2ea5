"""A test that leaves behind what tests of a node may leave."""

import subprocess
from pathlib import Path

import pytest

from tests.lab.node import list_pfs

pytestmark = pytest.mark.lab
shares_boot = True


def test_that_leaves_much() -> None:
    """VFs, a driver, a namespace with a VF in it, a PF's settings, files of a node."""
    subprocess.run(["modprobe", "-a", "igbvf", "vfio-pci"], check=True)
    (list_pfs()[0] / "sriov_numvfs").write_text("2")
    netdev = next((list_pfs()[0] / "net").iterdir()).name
    for words in (f"link set {netdev} mtu 1400 up", "netns add left", "link add left0 netns left type dummy"):
        subprocess.run(["ip", *words.split()], check=True)
    for folder in ("/var/lib/sriovdp/journal", "/run/cdi", "/var/lib/cni/networks/net"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, "left").write_text("left")
    Path("/run/boot-of-the-samples").touch()
