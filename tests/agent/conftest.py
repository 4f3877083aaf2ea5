"""The node and the kubelet of the agent's tests."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fakes.kubelet import Kubelet
from tests.fakes.sysfs import Tree, connect


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short name, as a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A node with one PF without VFs."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf()
    (tmp_path / "dev/vfio").mkdir(parents=True)
    for name in ("vfio", *map(str, range(10, 17))):
        (tmp_path / "dev/vfio" / name).touch()
    return tree


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[Kubelet]:
    """A kubelet with a plugin watcher."""
    async with Kubelet(tmp_path / "k") as kubelet:
        yield kubelet
