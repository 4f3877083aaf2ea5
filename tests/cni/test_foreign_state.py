"""What sriov-cni and the Intel plugin of 2017 left behind, as far as it can be tested without a NIC."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cni import foreign_infiniband
from cni.foreign_state import ForeignState
from cni.policy import Policy
from cni.protocol.netconf import Network
from cni.protocol.wire import Request
from sriovdp.kernel import modules
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import ZERO_MAC, VfSettings

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


def write(folder: Path, document: object, name: str = "c1-net1") -> ForeignState:
    """A state file of another plugin."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return ForeignState(folder)


def test_cache_of_sriov_cni_reports_how_the_vf_was(tmp_path: Path, sysfs: Sysfs) -> None:
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


def test_state_of_2017_reports_the_kernel_driver(tmp_path: Path, sysfs: Sysfs) -> None:
    """In DPDK mode it is all that plugin keeps."""
    state = {"pci_addr": VF, "ifname": "north0", "kernel_driver": "iavf", "dpdk_driver": "igb_uio", "dpdk_tool": "/x"}
    found = write(tmp_path / "old", state).find(REQUEST, NETWORK, None, sysfs)

    assert found
    assert (found.device, found.original.driver, found.original.settings) == (VF, "iavf", None)


IB_GUID = "02:00:00:00:00:00:00:07"
IB_STATE = {
    "deviceID": VF, "Master": "ib0", "VFID": 1, "HostIFNames": "ib2", "HostIFGUID": IB_GUID, "ContIFNames": "net1",
    "link_state": "enable", "rdmaIsolation": True, "pkey": "0x5",
    "RdmaNetState": {"DeviceID": VF, "SandboxRdmaDevName": "mlx5_2", "ContainerRdmaDevName": "mlx5_2"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "guid"),
    [
        ({}, IB_GUID),
        ({"HostIFGUID": "00:00:00:00:00:00:00:00"}, "00:00:00:00:00:00:00:00"),
        ({"HostIFGUID": ""}, "02:00:00:00:00:00:00:aa"),
        ({"HostIFGUID": 7}, "02:00:00:00:00:00:00:aa"),
    ],
)
def test_cache_of_ib_sriov_cni(
    tmp_path: Path, sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], guid: str
) -> None:
    """Name, GUID and RDMA device; of the rest of the VF's settings nothing is changed but the link state."""
    now = VfSettings(
        ZERO_MAC, link_state="enable", node_guid="02:00:00:00:00:00:00:aa", port_guid="02:00:00:00:00:00:00:aa"
    )
    monkeypatch.setattr(foreign_infiniband, "_read_settings", lambda *_: now)
    found = write(tmp_path / "ib-sriov", {**IB_STATE, **changes}).find(REQUEST, NETWORK, None, sysfs)

    assert found
    assert (found.device, found.mode, dict(found.rdma)) == (VF, "kernel", {"mlx5_2": -1})
    assert (found.original.driver, found.original.name) == ("iavf", "ib2")
    settings = found.original.settings
    assert settings
    assert (settings.node_guid, settings.port_guid) == (guid, guid)
    assert settings.mac == ZERO_MAC


@pytest.mark.parametrize(
    "changes", [{"RdmaNetState": []}, {"RdmaNetState": {"SandboxRdmaDevName": 7}}, {"rdmaIsolation": False}]
)
def test_cache_of_ib_sriov_cni_without_an_rdma_device(
    tmp_path: Path, sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    """Whatever is there in its place."""
    monkeypatch.setattr(foreign_infiniband, "_read_settings", lambda *_: None)
    found = write(tmp_path / "ib-sriov", {**IB_STATE, **changes}).find(REQUEST, NETWORK, None, sysfs)
    assert found
    assert dict(found.rdma) == {}


def test_name_in_a_cache_of_ib_sriov_cni_is_an_interfaces(tmp_path: Path, sysfs: Sysfs) -> None:
    """Or nothing is done with the netdev."""
    found = write(tmp_path / "ib-sriov", {**IB_STATE, "HostIFNames": "../x"}).find(REQUEST, NETWORK, None, sysfs)
    assert found
    assert found.original.name is None


@pytest.mark.parametrize("document", ["", '{"deviceID": "0000:a', "[]", {"deviceID": "x"}, {}])
def test_damaged_cache_is_as_good_as_none(tmp_path: Path, sysfs: Sysfs, document: object) -> None:
    """sriov-cni's writes are not atomic: a truncated cache must not keep the pod terminating."""
    assert write(tmp_path / "old", document).find(REQUEST, NETWORK, None, sysfs) is None


def test_vf_that_was_given_away_is_not_released(tmp_path: Path, sysfs: Sysfs) -> None:
    """The allocation file names another sandbox by now: only the addresses are ours to free."""
    state = write(tmp_path / "old", {"deviceID": VF, "OrigVfState": STATE})
    write(tmp_path / "old/pci", "/run/netns/newer", VF)

    found = state.find(REQUEST, NETWORK, None, sysfs)
    assert found
    assert found.released
    state.forget(found)
    assert sorted(path.name for path in (tmp_path / "old").rglob("*")) == [VF, "pci"]
    state.forget(replace(found, released=False))
    assert sorted(path.name for path in (tmp_path / "old").rglob("*")) == ["pci"]


def test_allocation_of_a_dead_sandbox_is_no_owner(tmp_path: Path) -> None:
    """A path that leads nowhere, or to a plain file, is no owner."""
    state = write(tmp_path / "old", {"deviceID": VF})
    assert state.find_owner(VF) is None
    write(tmp_path / "old/pci", "/run/netns/gone", VF)
    assert state.find_owner(VF) is None
    write(tmp_path / "old/pci", str(tmp_path / "old/c1-net1"), VF)
    assert state.find_owner(VF) is None
    write(tmp_path / "old/pci", "/proc/self/ns/net", VF)
    assert "c1-net1" in (state.find_owner(VF) or "")
    (tmp_path / "old/c1-net1").unlink()
    assert state.find_owner(VF) is None, "sriov-cni forgot its allocation file"


@pytest.mark.parametrize("spoiled", ["file", "folder", "above", "link", "fifo", "large", "writable"])
def test_only_what_root_alone_can_write_is_believed(
    tmp_path: Path, sysfs: Sysfs, spoiled: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A pod's volume is a folder of the host too, and its files could name any VF, driver and setting."""
    folder = tmp_path / "above/old"
    folder.parent.mkdir()
    state = write(folder, {"deviceID": VF, "OrigVfState": STATE})
    cache = folder / "c1-net1"
    assert state.find(REQUEST, NETWORK, None, sysfs)
    if spoiled in {"link", "fifo"}:
        cache.rename(tmp_path / "moved")
        os.mkfifo(cache) if spoiled == "fifo" else cache.symlink_to(tmp_path / "moved")
    elif spoiled == "large":
        os.truncate(cache, 2 << 20)
    elif spoiled == "writable":
        folder.chmod(0o777)
    else:
        os.chown({"file": cache, "folder": folder, "above": folder.parent}[spoiled], 12345, 12345)
    write(folder / "pci", "/proc/self/ns/net", VF)

    assert state.find(REQUEST, NETWORK, None, sysfs) is None
    assert state.find_owner(VF) is None
    assert f"{cache}: state of another plugin" in caplog.text


def test_folder_of_a_network_is_one_of_the_policy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Else the usual folder counts: DEL is never refused."""
    policy, usual = Policy(state_folders=(tmp_path / "cni",)), ForeignState(tmp_path / "cni/sriov")
    assert ForeignState.choose(None, policy, usual, "c1") is usual
    assert ForeignState.choose(f"{tmp_path}/cni/dpdk", policy, usual, "c1").folder == tmp_path / "cni/dpdk"
    assert caplog.text == ""
    for named in (f"{tmp_path}/emptydir", f"{tmp_path}/cni/../emptydir", "cni/dpdk", f"{tmp_path}/cni/a\0b"):
        assert ForeignState.choose(named, policy, usual, "c1") is usual
    assert caplog.text.count("cni.stateFolders") == 4


def test_driver_that_a_file_names_is_not_loaded(tmp_path: Path, sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The VF's own kernel driver comes back, as its modalias asks for it."""
    asked: list[tuple[str, ...]] = []

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        asked.append(arguments)
        return subprocess.CompletedProcess(arguments, 0, "iavf\n", "")

    device = sysfs.pci(VF)
    (device / "driver").unlink()
    (device / "driver").symlink_to("/x/vfio-pci")
    (device / "modalias").write_text("pci:v00008086d00001889\n")
    (sysfs.root / "bus/pci/drivers/iavf").mkdir(parents=True)
    monkeypatch.setattr(modules, "_run_modprobe", run)
    found = write(tmp_path / "old", {"pci_addr": VF, "kernel_driver": "n_hdlc"}).find(REQUEST, NETWORK, None, sysfs)
    assert found
    assert found.original.driver == "iavf"
    assert asked == [("--resolve-alias", "pci:v00008086d00001889")]


WRONG: tuple[object, ...] = ("x", -1, 2**40, 1.5, True, [], {}, None)


@pytest.mark.parametrize("key", sorted(STATE))
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_wrong_types_in_a_cache_are_left_out(tmp_path: Path, sysfs: Sysfs, key: str, value: object) -> None:
    """One bad value keeps neither the pod nor the other values."""
    found = write(tmp_path / "old", {"deviceID": VF, "OrigVfState": STATE | {key: value}}).find(
        REQUEST, NETWORK, None, sysfs
    )
    assert found
    assert found.original.driver == "iavf"
    if key not in {"AdminMAC", "HostIFName", "Vlan"}:
        assert found.original.settings
        assert found.original.settings.vlan == 1


@pytest.mark.parametrize("document", [{"deviceID": VF, "OrigVfState": []}, "[" * 100_000, '{"deviceID": "\\ud800"}'])
def test_nonsense_in_a_cache_ends_nothing(tmp_path: Path, sysfs: Sysfs, document: object) -> None:
    """Wrong shape, deep nesting, half a character."""
    write(tmp_path / "old", document).find(REQUEST, NETWORK, None, sysfs)


def test_vf_in_another_sandbox_is_not_released(tmp_path: Path, sysfs: Sysfs) -> None:
    """Without the plugin's allocation file the kernel says whose it is: neither at home nor in this sandbox."""
    state = write(tmp_path / "old", {"deviceID": VF, "OrigVfState": STATE})
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        found = state.find(REQUEST, NETWORK, own, sysfs)
        assert found
        assert found.released
        (sysfs.pci(VF) / "net/enp175s6").mkdir(parents=True)
        found = state.find(REQUEST, NETWORK, own, sysfs)
        assert found
        assert not found.released
    finally:
        os.close(own)
