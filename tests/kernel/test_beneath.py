"""Files below a folder and nowhere else."""

import errno
import os
from pathlib import Path

import pytest

from sriovdp.kernel.beneath import open_beneath


def test_file_below_is_opened_and_closed_on_exec(tmp_path: Path) -> None:
    """The folder itself may be reached by a link: it is the admin's word."""
    (tmp_path / "real/a").mkdir(parents=True)
    (tmp_path / "real/a/b").write_text("x")
    (tmp_path / "link").symlink_to("real")
    descriptor = open_beneath(tmp_path / "link", "a/b", os.O_RDONLY)
    try:
        assert os.read(descriptor, 9) == b"x"
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("relative", "number"),
    [
        ("../out", errno.EXDEV),
        ("a/../../out", errno.EXDEV),
        ("/etc/hostname", errno.EXDEV),
        ("link", errno.ELOOP),
        ("folder/out", errno.ELOOP),
        ("a\0b", errno.EINVAL),
        ("a\ud800b", errno.EINVAL),
        ("missing/b", errno.ENOENT),
    ],
)
def test_every_way_out_is_refused(tmp_path: Path, relative: str, number: int) -> None:
    """A parent, an absolute path, a link in the file's place and one on the way."""
    (tmp_path / "out").write_text("secret")
    inside = tmp_path / "inside"
    (inside / "a").mkdir(parents=True)
    (inside / "link").symlink_to(tmp_path / "out")
    (inside / "folder").symlink_to(tmp_path)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what matters
        open_beneath(inside, relative, os.O_RDWR | os.O_CREAT, 0o600)
    assert caught.value.errno == number
    assert (tmp_path / "out").read_text() == "secret"


def test_magic_link_is_refused() -> None:
    """/proc/PID/root leads out of any folder."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - as above
        open_beneath("/proc", "self/root/etc/hostname", os.O_RDONLY)
    assert caught.value.errno == errno.ELOOP


def test_fifo_does_not_block(tmp_path: Path) -> None:
    """Nobody writes to it, and the open returns all the same."""
    os.mkfifo(tmp_path / "fifo")
    os.close(open_beneath(tmp_path, "fifo", os.O_RDONLY))
