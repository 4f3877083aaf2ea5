"""logFile: a file that a network's author names, on a node where that author is not root."""

import logging
import os
import subprocess
import threading
from pathlib import Path

import pytest

from cni.policy import Policy
from cni.request_log import HEADER, MAX_FILES, MAX_SIZE, log_to

logger = logging.getLogger("cni.verbs.test")


@pytest.fixture
def folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Path:
    """The one folder that the node allows; the agent logs from INFO on."""
    caplog.set_level("INFO", "cni")
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def write(path: Path | str, folder: Path, message: str = "attached", request: str = "ADD c1 net1") -> None:
    """Log one line at level INFO."""
    with log_to(str(path), logging.INFO, request, Policy(log_folders=(folder,))):
        logger.info("%s", message)


def test_lines_are_appended_to_a_file_of_ours(folder: Path) -> None:
    """The header comes once, and only root reads the file."""
    path = folder / "a.log"
    write(path, folder)
    write(path, folder, "again")
    header, *lines = path.read_text().splitlines(keepends=True)
    assert header.encode() == HEADER
    assert [line.split(" INFO ", 1)[1] for line in lines] == ["ADD c1 net1: attached\n", "ADD c1 net1: again\n"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in folder.iterdir()] == ["a.log"]


@pytest.mark.parametrize(
    "where", ["{tmp}/elsewhere.log", "{tmp}/log/../b.log", "{tmp}/logs/a.log", "a.log", "{tmp}/log"]
)
def test_other_folders_get_no_file(folder: Path, tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture) -> None:
    """A warning, and the request goes on."""
    write(where.format(tmp=tmp_path), folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["log"]
    assert "logFile" in caplog.text


def test_other_programs_files_stay_as_they_are(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Text of a network's author in auth.log would be a lie to who reads it; an empty file is somebody's as well."""
    for content in ("", "Nov 25 sshd[1]: x\n"):
        (folder / "auth.log").write_text(content)
        write(folder / "auth.log", folder)
        assert (folder / "auth.log").read_text() == content
    assert "another program made it" in caplog.text


def test_links_and_fifos_are_no_log(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither followed nor waited for."""
    (tmp_path / "target").write_bytes(HEADER)
    (folder / "link.log").symlink_to(tmp_path / "target")
    os.mkfifo(folder / "fifo.log")
    (folder / "out").symlink_to(tmp_path)
    for name in ("link.log", "fifo.log", "out/b.log"):
        write(folder / name, folder)
    assert (tmp_path / "target").read_bytes() == HEADER
    assert not (tmp_path / "b.log").exists()
    assert caplog.text.count("logFile") == 3


def test_file_does_not_grow_for_ever(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who names it need not be who has the disk."""
    path = folder / "a.log"
    path.write_bytes(HEADER)
    os.truncate(path, MAX_SIZE + 1)
    write(path, folder)
    assert path.stat().st_size == MAX_SIZE + 1
    assert "16 MiB" in caplog.text


def test_text_is_inert(folder: Path, tmp_path: Path) -> None:
    """An interface's name may hold what a shell acts on: a reader of the file runs nothing of it."""
    name = ";touch${IFS}W;#"
    write(folder / "a.log", folder, f"pod ns/p ({name}) `touch W` $(touch W)\ntouch W\x1b[2J", f"ADD c1 {name}")
    text = (folder / "a.log").read_text()
    assert "touch\\x24{IFS}W" in text
    assert (text.isascii(), set(text) & set("`$;|&<>\x1b"), text.count("\n")) == (True, set(), 2)
    subprocess.run(["sh", str(folder / "a.log")], cwd=tmp_path, capture_output=True, check=False)
    assert not (tmp_path / "W").exists()


def test_first_lines_of_many_requests_find_one_file(folder: Path) -> None:
    """Requests that come together make one file, with one header."""
    path, start = folder / "a.log", threading.Barrier(8)

    def run(number: int) -> None:
        start.wait()
        write(path, folder, f"line {number}")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_bytes().splitlines(keepends=True)
    assert (lines[0], len(lines), [one.name for one in folder.iterdir()]) == (HEADER, 9, ["a.log"])


def test_there_are_only_so_many_files(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In all folders below; those of other programs do not count, and the ones that are there go on."""
    (folder / "pods").mkdir()
    os.mkfifo(folder / "fifo", 0o600)
    (folder / "other.log").write_bytes(b"x")
    (folder / "other.log").chmod(0o600)
    for n in range(MAX_FILES + 3):
        write(folder / ("pods" if n % 2 else ".") / f"{n}.log", folder)
    ours = sorted(path.name for path in folder.rglob("[0-9]*.log"))
    assert len(ours) == MAX_FILES
    assert f"there are {MAX_FILES} logs of networks" in caplog.text
    write(folder / "0.log", folder, "goes on")
    assert "goes on" in (folder / "0.log").read_text()
    (folder / "0.log").unlink()
    write(folder / "new.log", folder)
    assert (folder / "new.log").exists()


def test_many_at_once_make_no_more(folder: Path) -> None:
    """The last free place has one taker."""
    for n in range(MAX_FILES - 1):
        write(folder / f"{n}.log", folder)
    threads = [threading.Thread(target=write, args=(folder / f"late{n}.log", folder)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(folder.iterdir())) == MAX_FILES
