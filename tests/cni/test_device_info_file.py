"""The device-info file, whose path a network's author may choose."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cni.device_info import is_written, remove_device_info, write_device_info
from cni.policy import Policy
from sriovdp.errors import SriovdpError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Attachment, Original

VF = "0000:01:10.2"


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    """A node with one VF."""
    device = tmp_path / "sys/bus/pci/devices" / VF
    device.mkdir(parents=True)
    (device / "physfn").symlink_to("../0000:01:00.0")
    return Sysfs(tmp_path / "sys")


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    """The folder is not there yet, as on a node that Multus has not used."""
    return Policy(device_info_folders=(tmp_path / "run/devinfo",))


def attach(path: Path) -> Attachment:
    """An attachment whose ADD is to write the file."""
    return Attachment("c1", "net1", "n", VF, "kernel", Original("igbvf", None), "", 0, 0, "", device_info=str(path))


def test_file_is_written_and_removed(tmp_path: Path, sysfs: Sysfs, policy: Policy) -> None:
    """The entry knows which file it is."""
    path = tmp_path / "run/devinfo/a.json"
    assert not is_written(str(path), policy)
    made = write_device_info(attach(path), policy, sysfs)
    told = {"pci-address": VF, "pf-pci-address": "0000:01:00.0"}
    assert json.loads(path.read_text()) == {"type": "pci", "version": "1.1.0", "pci": told}
    assert (made.device_info_dev, made.device_info_ino) == (path.stat().st_dev, path.stat().st_ino)
    assert is_written(str(path), policy)
    remove_device_info(made, sysfs)
    remove_device_info(made, sysfs)
    assert not path.exists()


def test_file_of_another_program_stays(tmp_path: Path, sysfs: Sysfs, policy: Policy) -> None:
    """Neither overwritten nor removed, also when it came in our file's place."""
    path = tmp_path / "run/devinfo/a.json"
    made = write_device_info(attach(path), policy, sysfs)
    other = path.with_name("b")
    other.write_text(path.read_text())
    other.replace(path)
    remove_device_info(made, sysfs)
    assert path.exists()
    assert write_device_info(attach(path), policy, sysfs).device_info == ""
    path.write_text("{}")
    remove_device_info(attach(path), sysfs)
    assert path.read_text() == "{}"


def test_killed_add_leaves_no_file(tmp_path: Path, sysfs: Sysfs, policy: Policy) -> None:
    """The entry does not have the inode yet; the content says that it is ours."""
    path = tmp_path / "run/devinfo/a.json"
    write_device_info(attach(path), policy, sysfs)
    remove_device_info(replace(attach(path), device="0000:01:10.4"), sysfs)
    assert path.exists()
    remove_device_info(attach(path), sysfs)
    assert not path.exists()


@pytest.mark.parametrize("where", ["etc/00-a.conf", "run/devinfo/../b", "run/devinfo/link/b", "run/devinfo/file"])
def test_no_other_place_is_written_or_emptied(tmp_path: Path, sysfs: Sysfs, policy: Policy, where: str) -> None:
    """Another folder, a way out, a link on the way, a link in the file's place."""
    for name in ("etc", "run/devinfo"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "run/devinfo/link").symlink_to(tmp_path / "etc")
    (tmp_path / "run/devinfo/file").symlink_to(tmp_path / "etc/target")
    (tmp_path / "etc/b").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    attachment = attach(tmp_path / where)
    with pytest.raises(SriovdpError, match="device-info"):
        if write_device_info(attachment, policy, sysfs).device_info == "":
            raise SriovdpError("the device-info file is there")
    remove_device_info(replace(attachment, device_info_ino=(tmp_path / "etc/b").stat().st_ino), sysfs)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "etc/b").read_text() == "kept"


def test_a_representor_is_named(tmp_path: Path, sysfs: Sysfs, policy: Policy) -> None:
    """In switchdev mode, for who puts it into a switch."""
    pf = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    (pf / "net/rep0").mkdir(parents=True)
    (pf / "net/rep0/phys_port_name").write_text("pf0vf2\n")
    (pf / "virtfn2").symlink_to(f"../{VF}")
    path = tmp_path / "run/devinfo/a.json"
    write_device_info(attach(path), policy, sysfs)
    assert json.loads(path.read_text())["pci"]["representor-device"] == "rep0"
