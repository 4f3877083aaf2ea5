"""Provisioning on a real SR-IOV NIC: VFs, admin MACs and drivers, with sysfs and `ip` as the oracle."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sriovdp.provision.settings import make_stable_mac
from tests.lab.node import LabNode, QuickNode

pytestmark = pytest.mark.lab(hugepages=448)

ALL_DRIVERS = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 4
    vfs:
      - {range: "1", driver: vfio-pci}
      - {range: "2", driver: igb_uio}
      - {range: "3", driver: uio_pci_generic}
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LabNode]:
    """The lab's node without VFs, and a config for one VF on each kind of driver."""
    config = tmp_path / "config.yaml"
    config.write_text(ALL_DRIVERS)
    node = QuickNode(config)
    node.remove_vfs()
    yield node
    node.remove_vfs()


def _try(node: LabNode, command: str) -> subprocess.CompletedProcess[str]:
    return node.run_sriovdp(command, "--config", str(node.config))


@contextmanager
def _program_holding(path: Path) -> Iterator[str]:
    """A process that has a device node open."""
    with subprocess.Popen(["sh", "-c", f"exec 3<>{path}; echo; exec sleep 600"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield str(process.pid)
        finally:
            process.kill()


def test_apply_makes_vfs_on_every_driver_and_then_finds_nothing_to_do(node: LabNode) -> None:
    """VFs exist, are bound as asked and have stable admin MACs; the netdev of the kernel VF has its MAC too."""
    planned = _try(node, "plan").stdout
    assert "create 4 VFs" in planned
    assert (node.pf / "sriov_numvfs").read_text().strip() == "0", "a plan changes nothing"

    node.apply()

    drivers = [(node.pf / f"virtfn{index}/driver").resolve().name for index in range(4)]
    assert drivers == ["igbvf", "vfio-pci", "igb_uio", "uio_pci_generic"]
    pf_mac = (node.pf / "net" / node.pf_netdev / "address").read_text().strip()
    macs = [make_stable_mac(pf_mac, index) for index in range(4)]
    assert [node.look_vf(index)["address"] for index in range(4)] == macs
    assert Path(f"/sys/class/net/{node.netdev(0)}/address").read_text().strip() == macs[0]
    assert (node.pf / "sriov_drivers_autoprobe").read_text().strip() == "1", "it is as it was"

    before = node.look()
    again = _try(node, "apply")
    assert (again.returncode, "nothing to do" in again.stdout) == (0, True)
    assert node.look() == before


def test_device_nodes_for_programs_are_there(node: LabNode) -> None:
    """vfio-pci and igb_uio give what `discover` prints and a container would get."""
    node.apply()

    [pf] = json.loads(node.sriovdp("discover", "--json").stdout)

    assert (pf["netdev"]["name"], pf["link"], pf["num_vfs"], pf["total_vfs"]) == (node.pf_netdev, "up", 4, 7)
    assert Path(f"/dev/vfio/{pf['vfs'][1]['iommu_group']}").is_char_device()
    assert Path(f"/dev/{pf['vfs'][2]['uio']}").is_char_device()
    assert pf["device_name"].startswith("82576")
    assert [vf["address"] for vf in pf["vfs"]] == [node.vf(index) for index in range(4)]


def test_a_driver_changes_both_ways(node: LabNode) -> None:
    """A VF goes from its kernel driver to vfio-pci and back, and has its MAC as before."""
    node.apply()
    before = node.look()
    node.config.write_text(ALL_DRIVERS.replace('range: "1"', 'range: "0-1"'))
    node.apply()
    assert (node.pf / "virtfn0/driver").resolve().name == "vfio-pci"

    node.config.write_text(ALL_DRIVERS)
    node.apply()

    assert node.look() == before


def test_a_foreign_admin_mac_is_set_right_on_a_bound_vf(node: LabNode) -> None:
    """An admin MAC that comes while igbvf is bound is not taken over by it; the VF is bound again and then has it."""
    node.apply()
    before = node.look()
    subprocess.run(f"ip link set {node.pf_netdev} vf 0 mac 02:00:00:00:00:99".split(), check=True)

    node.apply()

    assert node.look() == before


def test_vf_of_a_program_is_never_touched(node: LabNode) -> None:
    """A change that would take a VF from a program that has it open is refused as a whole and names the program."""
    node.apply()
    before = node.look()
    group = (node.pf / "virtfn1/iommu_group").resolve().name
    node.config.write_text(ALL_DRIVERS.replace("numVfs: 4", "numVfs: 5"))

    with _program_holding(Path("/dev/vfio") / group) as process:
        refused = _try(node, "apply")

    assert refused.returncode == 3
    assert f"process {process}" in refused.stderr
    assert node.look() == before
    node.apply()
    assert len(list(node.pf.glob("virtfn*"))) == 5


def test_vf_in_another_network_namespace_is_never_touched(node: LabNode) -> None:
    """A VF that was moved away is in use, by any program."""
    node.apply()
    subprocess.run(["ip", "netns", "add", "elsewhere"], check=True)
    try:
        subprocess.run(f"ip link set {node.netdev(0)} netns elsewhere".split(), check=True)
        node.config.write_text(ALL_DRIVERS.replace("numVfs: 4", "numVfs: 7"))
        refused = _try(node, "apply")
    finally:
        subprocess.run(["ip", "netns", "del", "elsewhere"], check=True)

    assert (refused.returncode, "another network namespace" in refused.stderr) == (3, True)
    assert len(list(node.pf.glob("virtfn*"))) == 4


def test_too_many_vfs_are_reported_with_the_limit(node: LabNode) -> None:
    """The NIC's limit is in the message, and nothing was changed."""
    node.config.write_text(ALL_DRIVERS.replace("numVfs: 4", "numVfs: 8"))

    failed = _try(node, "apply")

    assert (failed.returncode, "at most 7" in failed.stderr) == (1, True)
    assert (node.pf / "sriov_numvfs").read_text().strip() == "0"
