"""What an apply is about to change, which no pod should get meanwhile."""

from pathlib import Path

import pytest

from sriovdp.node.inventory import take_snapshot
from sriovdp.provision.apply import NOBODY, apply
from sriovdp.provision.pending import Pending, find_pending
from sriovdp.state.journal import Journal
from tests.fakes.sysfs import PF, Tree, connect, vf_address
from tests.provision.test_apply import attach, make_config


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A PF with two VFs as the config says."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf()
    apply(make_config(2), tree.sysfs, Journal(tmp_path / "journal"))
    return tree


def find(tree: Tree, tmp_path: Path, number: int) -> Pending:
    """What is pending with so many VFs in the config."""
    node = take_snapshot(tree.sysfs)
    return find_pending(make_config(number), tree.sysfs, Journal(tmp_path / "journal"), NOBODY, node)


def test_nothing_is_pending_on_a_node_as_the_config_says(tree: Tree, tmp_path: Path) -> None:
    """A restart of the agent keeps no VF from the pods for a moment."""
    assert find(tree, tmp_path, 2) == Pending()


def test_only_the_vf_that_is_changed_is_kept_from_pods(tree: Tree, tmp_path: Path) -> None:
    """The others are as they will be."""
    tree.unbind(vf_address(PF, 1))
    pending = find(tree, tmp_path, 2)
    assert (list(pending.vfs), pending.pfs) == ([vf_address(PF, 1)], frozenset())
    assert "bind to its kernel driver" in pending.vfs[vf_address(PF, 1)]


def test_vfs_that_are_made_again_are_hidden(tree: Tree, tmp_path: Path) -> None:
    """Those of before, and those that come before they are what they will be."""
    pending = find(tree, tmp_path, 3)
    assert pending.pfs == {PF}
    assert [pf.vfs for pf in pending.hide(take_snapshot(tree.sysfs)).pfs] == [()]


def test_a_pf_that_is_left_alone_is_offered(tree: Tree, tmp_path: Path) -> None:
    """A pod is in the way, so nothing will be changed."""
    attach(Journal(tmp_path / "journal"), vf_address(PF, 1))
    assert find(tree, tmp_path, 3) == Pending()
