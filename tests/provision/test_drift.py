"""Drift: what is not as the config says, and what came or went between two looks."""

from dataclasses import replace
from pathlib import Path

import pytest

from sriovdp.model import Node
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision.apply import apply
from sriovdp.provision.drift import describe_change, find_drift
from sriovdp.state.journal import Journal
from tests.fakes.sysfs import PF, Tree, connect, vf_address
from tests.provision.test_apply import attach, make_config


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A PF with two VFs as the config says."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf()
    return tree


def test_a_driver_that_somebody_changed_is_drift(tree: Tree, tmp_path: Path) -> None:
    """The step that would mend it, its reason, and who is in the way."""
    journal, config = Journal(tmp_path / "journal"), make_config(2)
    apply(config, tree.sysfs, journal)
    assert find_drift(config, tree.sysfs, journal).sentences == []
    before = take_snapshot(tree.sysfs)
    tree.unbind(vf_address(PF, 1))
    tree.bind(vf_address(PF, 1), "vfio-pci")
    step = "enp1s0 VF 1 (0000:01:10.2): bind to its kernel driver"
    assert find_drift(config, tree.sysfs, journal).sentences == [
        f"{step}: the config wants its kernel driver, it has vfio-pci"
    ]
    assert describe_change(before, take_snapshot(tree.sysfs)) == [
        "enp1s0 VF 1 (0000:01:10.2): its driver went from igbvf to vfio-pci"
    ]
    attach(journal, vf_address(PF, 1))
    kept = f"kept as it is: enp1s0 VF 1 (0000:01:10.2) is used by pod default/red (net1); in the way of: {step}"
    assert find_drift(config, tree.sysfs, journal).sentences[-1] == kept


def test_what_a_pf_can_not_be_is_drift_too(tree: Tree, tmp_path: Path) -> None:
    """A status page is not stopped by it."""
    (reported,) = find_drift(make_config(8), tree.sysfs, Journal(tmp_path / "journal")).sentences
    assert "it can have at most 7" in reported


def test_a_pf_that_comes_or_goes_is_reported(tree: Tree) -> None:
    """By name and address; a node that stays the same is silent."""
    node = take_snapshot(tree.sysfs)
    assert describe_change(node, node) == []
    assert describe_change(node, Node()) == ["enp1s0 (0000:01:00.0): this PF is gone"]
    assert describe_change(Node(), replace(node)) == ["enp1s0 (0000:01:00.0): this PF is new"]
