"""Reading and writing attributes: nothing there is None, a refused write is an error with its errno."""

import errno
import os
from pathlib import Path

import pytest

from sriovdp.errors import DeviceError, KernelError
from sriovdp.kernel.sysfs import Folder, Sysfs, list_names, read_int, read_link, read_text, write_text


def test_what_is_not_there_reads_as_nothing(tmp_path: Path) -> None:
    """A function can vanish at any moment; readers get None."""
    gone = tmp_path / "gone"
    assert (read_text(gone), read_int(gone), read_link(gone), list_names(gone)) == (None, None, None, [])
    assert Sysfs(tmp_path).addresses() == []
    with pytest.raises(DeviceError, match=r"there is no PCI function 0000:01:00.0"):
        Sysfs(tmp_path).pci("0000:01:00.0")


@pytest.mark.parametrize(
    ("text", "number"), [("7\n", 7), ("-1\n", -1), ("0x1003\n", 0x1003), ("\n", None), ("x", None)]
)
def test_numbers_are_decimal_or_hex(tmp_path: Path, text: str, number: int | None) -> None:
    """As the kernel writes them; everything else is no number."""
    (tmp_path / "n").write_text(text)
    assert read_int(tmp_path / "n") == number


def test_a_refused_write_has_path_and_errno(tmp_path: Path) -> None:
    """The message says what was written where; a real attribute that is read-only refuses too."""
    with pytest.raises(KernelError, match=r"writing '7' to .*/sriov_numvfs failed: No such file.*\(ENOENT\)") as caught:
        write_text(tmp_path / "none/sriov_numvfs", "7")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(KernelError):
        write_text(Path("/sys/kernel/notes"), "7")


def test_content_beyond_a_page_is_read(tmp_path: Path) -> None:
    """Attributes have a page at most, but the routes of /proc are read by the same function."""
    (tmp_path / "route").write_text("x" * 10000)
    assert read_text(tmp_path / "route") == "x" * 10000


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_what_could_not_be_asked_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A process without file descriptors would otherwise see a node without devices."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("1")
    (tmp_path / "folder/link").symlink_to("file")
    folder = Folder(str(tmp_path / "folder"))
    assert folder.names == {"file", "link"}

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    for function in ("open", "listdir", "readlink"):
        monkeypatch.setattr(os, function, refuse)
    for call, asked in (
        (lambda: read_text(f"{folder.path}/file"), "reading .*/file"),
        (lambda: read_int(f"{folder.path}/file"), "reading .*/file"),
        (lambda: read_link(f"{folder.path}/link"), "reading .*/link"),
        (lambda: list_names(folder.path), "listing .*/folder"),
        (lambda: folder.number("file"), "reading .*/file"),
        (lambda: folder.link("link"), "reading .*/link"),
        (lambda: Folder(folder.path).names, "listing .*/folder"),
        (Sysfs(tmp_path).addresses, "listing .*/bus/pci/devices"),
    ):
        with pytest.raises(KernelError, match=f"{asked} failed: {os.strerror(number)}") as caught:
            call()
        assert caught.value.errno == number
