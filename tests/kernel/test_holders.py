"""Who holds a device node open: on this machine's own /proc, and with answers as the VFIO group would give them."""

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from sriovdp.errors import KernelError
from sriovdp.kernel.holders import _find_process, _try_opening, find_holder
from sriovdp.kernel.sysfs import Sysfs


def test_the_process_that_has_a_device_open_is_named() -> None:
    """By the device's number: another path to the same device is the same device."""
    master, slave = os.openpty()
    try:
        own = f"process {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"
        assert _find_process([Path(os.ttyname(slave))], "a VF") == own
    finally:
        os.close(master)
        os.close(slave)
    assert _find_process([Path("/dev/there-is-no-such-device")], "a VF") is None


def test_a_group_that_nobody_has_is_free(tmp_path: Path) -> None:
    """A file that can be opened, and one that is not there, are not busy."""
    (tmp_path / "12").touch()
    assert _try_opening(tmp_path / "12", "a VF") == 0
    assert _try_opening(tmp_path / "13", "a VF") == errno.ENOENT


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.EBUSY, "a program through vfio"), (errno.EACCES, None), (errno.EPERM, None), (errno.ENODEV, None)],
)
def test_a_group_that_answers_ebusy_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: str | None
) -> None:
    """Only that error means a user by itself."""
    vf = make_vf(tmp_path)
    monkeypatch.setattr(os, "open", lambda *_: _raise(OSError(number, "no")))
    assert find_holder(Sysfs(tmp_path / "sys"), vf, tmp_path / "dev") == told


def test_holder_is_found_where_opening_is_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container that may not open the group, the processes show who has it."""
    vf = make_vf(tmp_path)
    master, slave = os.openpty()
    try:
        (tmp_path / "dev/vfio/12").symlink_to(os.ttyname(slave))
        monkeypatch.setattr(os, "open", lambda *_: _raise(PermissionError(errno.EPERM, "no")))
        holder = find_holder(Sysfs(tmp_path / "sys"), vf, tmp_path / "dev")
    finally:
        os.close(master)
        os.close(slave)
    assert holder
    assert holder.startswith(f"process {os.getpid()} ")


def test_who_cannot_look_does_not_say_that_nobody_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file descriptor left neither the group nor a process can be looked at."""
    vf = make_vf(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *_: _raise(OSError(errno.EMFILE, "Too many open files")))
        with pytest.raises(KernelError, match=f"opening .*/vfio/12 to see who uses {vf} failed: Too many open files"):
            find_holder(Sysfs(tmp_path / "sys"), vf, tmp_path / "dev")
    listdir = os.listdir

    def refuse(path: str) -> list[str]:
        return listdir(path) if not str(path).startswith("/proc") else _raise(OSError(errno.ENFILE, "Too many open"))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(KernelError, match="listing /proc failed: Too many open"):
        _find_process([Path("/dev/null")], vf)


def make_vf(folder: Path) -> str:
    """A VF on vfio-pci in IOMMU group 12."""
    address = "0000:02:10.0"
    vf = folder / "sys/bus/pci/devices" / address
    vf.mkdir(parents=True)
    (vf / "driver").symlink_to("../../drivers/vfio-pci")
    (vf / "iommu_group").symlink_to("../../../kernel/iommu_groups/12")
    (folder / "dev/vfio").mkdir(parents=True)
    return address


def _raise(error: OSError) -> NoReturn:
    raise error
