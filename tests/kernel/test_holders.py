"""Who holds a device node open: on this machine's own /proc, and with answers as the VFIO group would give them."""

import errno
import os
from pathlib import Path

import pytest

from sriovdp.kernel.holders import _find_process, _is_busy


def test_the_process_that_has_a_device_open_is_named() -> None:
    """By the device's number: another path to the same device is the same device."""
    master, slave = os.openpty()
    try:
        own = f"process {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"
        assert _find_process([Path(os.ttyname(slave))]) == own
    finally:
        os.close(master)
        os.close(slave)
    assert _find_process([Path("/dev/there-is-no-such-device")]) is None


def test_a_group_that_nobody_has_is_free(tmp_path: Path) -> None:
    """A file that can be opened, and one that is not there, are not busy."""
    (tmp_path / "12").touch()
    assert not _is_busy(tmp_path / "12")
    assert not _is_busy(tmp_path / "13")


def test_a_group_that_answers_ebusy_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that error means a user; without the right to open it, nothing is known."""
    for number, busy in ((errno.EBUSY, True), (errno.EACCES, False), (errno.ENODEV, False)):
        monkeypatch.setattr(os, "open", lambda *_, number=number: _raise(OSError(number, "no")))
        assert _is_busy(Path("/dev/vfio/12")) is busy


def _raise(error: OSError) -> None:
    raise error
