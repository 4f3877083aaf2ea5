"""What sriov-cni and the Intel plugin of 2017 left behind, as far as it can be told without a NIC."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cni.foreign_state import Predecessor
from cni.protocol.netconf import Network
from cni.protocol.wire import Request
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import VfSettings

VF = "0000:af:06.0"
REQUEST = Request("DEL", "c1", "/run/netns/gone", "net1", "", "", b"")
NETWORK = Network("net-a", "1.0.0")
# field names of sriov-cni's pkg/types/types.go and of its own test of the cache, pkg/utils/utils_test.go
STATE = {
    "HostIFName": "enp175s6", "SpoofChk": True, "Trust": False, "AdminMAC": "aa:f3:8d:65:1b:d4",
    "EffectiveMAC": "aa:f3:8d:65:1b:d4", "Vlan": 1, "VlanQoS": 1, "VlanProto": 34984, "MinTxRate": 0, "MaxTxRate": 0,
    "LinkState": 2, "MTU": 1500,
}  # fmt: skip


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    """A node on which the VF is bound to its kernel driver."""
    device = tmp_path / "sys/bus/pci/devices" / VF
    device.mkdir(parents=True)
    (device / "driver").symlink_to("/x/iavf")
    return Sysfs(tmp_path / "sys")


def write(folder: Path, document: object, name: str = "c1-net1") -> Predecessor:
    """A state file of another plugin."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return Predecessor(folder)


def test_cache_of_sriov_cni_tells_how_the_vf_was(tmp_path: Path, sysfs: Sysfs) -> None:
    """All that it saved is what the VF gets back."""
    found = write(tmp_path / "old", {"deviceID": VF, "OrigVfState": STATE}).find(REQUEST, NETWORK, None, sysfs)

    assert found
    assert (found.device, found.mode, found.phase, found.released) == (VF, "kernel", "releasing", False)
    original = found.original
    assert (original.driver, original.name, original.mtu, original.mac) == (
        "iavf",
        "enp175s6",
        1500,
        STATE["EffectiveMAC"],
    )
    assert original.settings == VfSettings(
        "aa:f3:8d:65:1b:d4", 1, 1, "802.1ad", spoofchk=True, trust=False, link_state="disable"
    )


def test_state_of_2017_tells_the_kernel_driver(tmp_path: Path, sysfs: Sysfs) -> None:
    """In DPDK mode it is all that plugin keeps."""
    state = {"pci_addr": VF, "ifname": "north0", "kernel_driver": "iavf", "dpdk_driver": "igb_uio", "dpdk_tool": "/x"}
    found = write(tmp_path / "old", state).find(REQUEST, NETWORK, None, sysfs)

    assert found
    assert (found.device, found.original.driver, found.original.settings) == (VF, "iavf", None)


@pytest.mark.parametrize("document", ["", '{"deviceID": "0000:a', "[]", {"deviceID": "x"}, {}])
def test_damaged_cache_is_as_good_as_none(tmp_path: Path, sysfs: Sysfs, document: object) -> None:
    """sriov-cni's writes are not atomic: a truncated cache must not keep the pod terminating."""
    assert write(tmp_path / "old", document).find(REQUEST, NETWORK, None, sysfs) is None


def test_vf_that_was_given_away_is_not_released(tmp_path: Path, sysfs: Sysfs) -> None:
    """The allocation file names another sandbox by now: only the addresses are ours to free."""
    predecessor = write(tmp_path / "old", {"deviceID": VF, "OrigVfState": STATE})
    write(tmp_path / "old/pci", "/run/netns/newer", VF)

    found = predecessor.find(REQUEST, NETWORK, None, sysfs)
    assert found
    assert found.released
    predecessor.forget(found)
    assert sorted(path.name for path in (tmp_path / "old").rglob("*")) == [VF, "pci"]
    predecessor.forget(replace(found, released=False))
    assert sorted(path.name for path in (tmp_path / "old").rglob("*")) == ["pci"]


def test_allocation_of_a_dead_sandbox_is_no_owner(tmp_path: Path) -> None:
    """A path that leads nowhere, or to a plain file, is nobody."""
    predecessor = write(tmp_path / "old", {"deviceID": VF})
    assert predecessor.find_owner(VF) is None
    write(tmp_path / "old/pci", "/run/netns/gone", VF)
    assert predecessor.find_owner(VF) is None
    write(tmp_path / "old/pci", str(tmp_path / "old/c1-net1"), VF)
    assert predecessor.find_owner(VF) is None
    write(tmp_path / "old/pci", "/proc/self/ns/net", VF)
    assert "c1-net1" in (predecessor.find_owner(VF) or "")
    (tmp_path / "old/c1-net1").unlink()
    assert predecessor.find_owner(VF) is None, "sriov-cni forgot its allocation file"
