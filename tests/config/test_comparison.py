"""Whether a file still says what an agent runs with."""

from functools import partial
from pathlib import Path

import pytest

from sriovdp.config.comparison import ComparedFile, FileState
from sriovdp.config.file import load
from sriovdp.config.nodes import NodeIdentity
from sriovdp.config.values import Config

FILE = """
resourceList:
  - {resourceName: a, selectors: {drivers: [igbvf]}}
  - {resourceName: b, selectors: {drivers: [iavf]}, nodes: {names: [blue]}}
"""
RED = NodeIdentity("red")


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (FILE, FileState(valid=True, current=True)),
        (f"# a comment\n{FILE}", FileState(valid=True, current=True)),
        (FILE.replace("iavf", "ixgbevf"), FileState(valid=True, current=True)),
        (FILE.replace("igbvf", "ixgbevf"), FileState(valid=True, current=False)),
        (FILE.replace("[blue]", "[red]"), FileState(valid=True, current=False)),
        (FILE.replace("resourceName: a", "resourceName: a b"), FileState(valid=False, current=False)),
        ("", FileState(valid=False, current=False)),
        (None, FileState(valid=False, current=False)),
    ],
)
def test_a_new_file_is_compared(tmp_path: Path, text: str | None, state: FileState) -> None:
    """What changes nothing for this node is current; what would be refused, or is not there, is not valid."""
    path = tmp_path / "config.yaml"
    path.write_text(FILE)
    running = load(path, RED)
    file = ComparedFile(path, partial(load, path, RED))
    assert file.compare(running) == FileState(valid=True, current=True)
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert file.compare(running) == state
    path.write_text(FILE)
    assert file.compare(running) == FileState(valid=True, current=True)


def test_a_configmap_is_followed(tmp_path: Path) -> None:
    """The kubelet puts a new version beside the old one and turns a symbolic link."""
    for name, text in (("1", FILE), ("2", FILE.replace("igbvf", "vfio-pci"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "config.yaml").symlink_to("..data/config.yaml")
    file = ComparedFile(tmp_path / "config.yaml", partial(load, tmp_path / "config.yaml", RED))
    running = load(tmp_path / "config.yaml", RED)
    assert file.compare(running).current
    (tmp_path / "..new").symlink_to("2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert not file.compare(running).current


def test_a_file_that_nobody_touched_is_read_once(tmp_path: Path) -> None:
    """Scrapes come all day; only another file, or another config at work, is a reason to look."""
    path = tmp_path / "config.yaml"
    path.write_text(FILE)
    running, reads = load(path, RED), []

    def count() -> Config:
        reads.append(path)
        return load(path, RED)

    file = ComparedFile(path, count)
    for _ in range(3):
        assert file.compare(running).current
    assert len(reads) == 1
    other = load(path, NodeIdentity("blue"))
    assert not file.compare(other).current
    assert len(reads) == 2
