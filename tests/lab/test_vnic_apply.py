"""`sriovdp apply` on the software NIC: drivers that accept `sriov_numvfs` and do something else."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sriovdp.provision.settings import make_stable_mac
from tests.lab.vnic_cards import Card, ip

pytestmark = pytest.mark.lab(pfs=0, vnic="ice:4")
shares_boot = True

_Load = Callable[..., list[Card]]


def _apply(
    card: Card, folder: Path, driver: str, verb: str = "apply", more: str = ""
) -> subprocess.CompletedProcess[str]:
    config = folder / "config.yaml"
    vfs = f"{{range: 0-2, driver: {driver}{more}}}"
    entry = f"{{select: {{pciAddresses: ['{card.address}']}}, numVfs: 3, vfs: [{vfs}]}}"
    config.write_text(f"physicalFunctions: [{entry}]\nresourceList: []\n")
    command = [
        sys.executable,
        "-m",
        "sriovdp.cli.main",
        verb,
        "--config",
        str(config),
        "--state-dir",
        str(folder / "state"),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_fewer_vfs_than_wanted(vnic: _Load, tmp_path: Path) -> None:
    """The error says how many there are, and those are taken away again."""
    (card,) = vnic("ice:4/numvfs_at_most=2")
    ip(f"link set dev {card.netdev} up")
    done = _apply(card, tmp_path, "none")
    assert done.returncode != 0
    assert "accepted sriov_numvfs 3, but there are 2 VFs" in done.stderr
    assert card.numvfs() == 0


@pytest.mark.parametrize("profile", ["ice", "i40e"])
def test_a_vf_that_the_list_leaves_out_is_neither_right_nor_wrong(vnic: _Load, tmp_path: Path, profile: str) -> None:
    """As one in reset: `plan` and `apply` name it and fail, and change nothing; later all is as wanted."""
    (card,) = vnic(f"{profile}:4/reset_wait_ms=0")
    ip(f"link set dev {card.netdev} up")
    wanted = ", vlan: 7, trust: true, mac: keep"
    assert _apply(card, tmp_path, "none", more=wanted).returncode == 0
    missing = f"{card.netdev} VF 2 ({card.vf(2).name}): its settings could not be read"
    with card.with_habits(hidden_vf=2):
        for verb in ("plan", "apply"):
            done = _apply(card, tmp_path, "none", verb, wanted)
            assert (done.returncode, missing in done.stdout + done.stderr) == (1, True)
            assert "nothing to do" not in done.stdout
        done = _apply(card, tmp_path, "none", more=", vlan: 8, trust: true, mac: keep")
        assert (done.returncode, "nothing was changed" in done.stderr) == (1, True)
    with card.with_habits(list_pending=5):
        assert "nothing to do" in _apply(card, tmp_path, "none", "plan", wanted).stdout
    assert {vf["vlan_list"][0]["vlan"] for vf in card.listed().values()} == {7}
    card.write_numvfs(0)


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


_NO_MAC = {
    "ice:4/mac_errno=95": "set admin MAC",
    "idpf:4": "its driver idpf takes no admin MAC of VF 0-2",
    "mlx5:4/no_manager=1": "set admin MAC",
}


@pytest.mark.parametrize("card", _NO_MAC)
def test_a_stable_mac_goes_to_the_netdev_where_the_pf_takes_none(vnic: _Load, tmp_path: Path, card: str) -> None:
    """A driver that refuses it, and one without settings of VFs; each is reported once, and nothing is left to do."""
    (only,) = vnic(card)
    ip(f"link set dev {only.netdev} up")
    mac = Path(f"/sys/class/net/{only.netdev}/address").read_text().strip()
    done = _apply(only, tmp_path, "kernel")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count(_NO_MAC[card]) >= 1
    macs = [Path(f"/sys/class/net/{only.vf_netdev(index)}/address").read_text().strip() for index in range(3)]
    assert macs == [make_stable_mac(mac, index) for index in range(3)]
    again = _apply(only, tmp_path, "kernel")
    assert "nothing to do" in again.stdout + again.stderr
    assert (again.stdout + again.stderr).count("takes no admin MAC of VF 0-2") == 1
    only.write_numvfs(0)


def test_vfs_that_were_there_and_that_no_list_has(vnic: _Load, tmp_path: Path) -> None:
    """As on the host of a DPU: stable MACs go to the netdevs, with one warning; a setting that is given is an error."""
    (card,) = vnic("mlx5:4/no_manager=1")
    card.up()
    card.write_numvfs(3)
    mac = Path(f"/sys/class/net/{card.netdev}/address").read_text().strip()
    for expected in ("set MAC", "nothing to do"):
        done = _apply(card, tmp_path, "kernel")
        assert (done.returncode, expected in done.stdout + done.stderr) == (0, True), done.stderr
        assert (done.stdout + done.stderr).count("lists no admin MAC of VF 0-2") == 1
    macs = [Path(f"/sys/class/net/{card.vf_netdev(index)}/address").read_text().strip() for index in range(3)]
    assert macs == [make_stable_mac(mac, index) for index in range(3)]
    done = _apply(card, tmp_path, "kernel", more=", vlan: 7")
    assert (done.returncode, f"{card.netdev} VF 2 ({card.vf(2).name}): its settings could not" in done.stderr) == (
        1,
        True,
    )
    card.write_numvfs(0)
