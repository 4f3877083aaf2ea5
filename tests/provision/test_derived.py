"""MACs and GUIDs that this program makes, where no PF takes them: they degrade, and what the config gives does not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sriovdp.config.file import parse
from sriovdp.config.values import Config
from sriovdp.errors import InUseError, KernelError
from sriovdp.model import Traits, VfSettings
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision import change
from sriovdp.provision.apply import apply
from sriovdp.provision.change import Change
from sriovdp.provision.drift import find_drift
from sriovdp.provision.plan import plan
from sriovdp.provision.reset import reset
from sriovdp.provision.settings import NO_GUID, make_stable_mac
from sriovdp.provision.steps import SetGuid, SetVfMac
from sriovdp.state.journal import Journal
from tests.fakes.sysfs import PF, PF_MAC, Tree, connect, vf_address

OWN = "02:00:00:00:00:99"  # what the NIC gives a VF
STABLE = [make_stable_mac(PF_MAC, index) for index in range(4)]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A tree with one PF without VFs, which the product takes for this machine's."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    monkeypatch.setattr(change, "_is_privileged", lambda: True)
    tree.add_pf()
    return tree


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    return Journal(tmp_path / "journal")


def make_config(**keys: object) -> Config:
    """VFs 0 and 1 on their kernel driver with these keys, VF 2 on vfio-pci."""
    ranges = [{"range": "0-1", "driver": "kernel", **keys}, {"range": "2", "driver": "vfio-pci"}]
    entry = {"select": {"vendors": ["8086"]}, "numVfs": 3, "vfs": ranges}
    return parse(json.dumps({"physicalFunctions": [entry]}), "test")


def make_vfs(tree: Tree, count: int) -> None:
    """Somebody makes VFs by hand."""
    tree.write(tree.pci(PF) / "sriov_drivers_autoprobe", "1")
    tree.write(tree.pci(PF) / "sriov_numvfs", str(count))


def macs_of(tree: Tree) -> list[str]:
    """MACs of the VFs' netdevs."""
    return [vf.netdev.mac for vf in take_snapshot(tree.sysfs).pfs[0].vfs if vf.netdev]


def apply_twice(tree: Tree, journal: Journal, config: Config) -> list[str]:
    """Apply; nothing is left to do after that, for a second apply and for the agent. Gives the first one's warnings."""
    reported: list[str] = []
    apply(config, tree.sysfs, journal, reported.append)
    written, again = len(tree.log), list[str]()
    assert find_drift(config, tree.sysfs, journal).sentences == []
    apply(config, tree.sysfs, journal, again.append)
    assert (again[-1], len(tree.log)) == ("nothing to do: the node is as the config says", written)
    assert len([text for text in again if text.startswith("warning: enp1s0: its driver igb takes no admin MAC")]) == 1
    return [text for text in reported if text.startswith("warning")]


def test_netdevs_get_stable_macs_where_the_pf_has_no_settings(tree: Tree, journal: Journal) -> None:
    """As with virtio: one warning, and the netdevs have the MACs. A netdev that lost its MAC gets it again."""
    tree.sets_vfs = False
    warnings = apply_twice(tree, journal, make_config())
    [warning] = warnings
    assert warning == (
        "warning: enp1s0: its driver igb takes no admin MAC of VF 0-2: the netdev of a VF on a kernel driver gets the "
        "stable MAC, any other VF keeps the MAC it has"
    )
    assert macs_of(tree) == STABLE[:2]
    (tree.pci(vf_address(PF, 1)) / "net/v0110f2/address").write_text("02:00:00:00:00:77")
    [drift] = find_drift(make_config(), tree.sysfs, journal).sentences
    assert drift == (
        f"enp1s0 VF 1 (0000:01:10.2): set MAC {STABLE[1]} of its netdev: enp1s0 takes no admin MAC, and the MAC has to "
        "be the same after each boot"
    )
    apply_twice(tree, journal, make_config())
    assert macs_of(tree) == STABLE[:2]


@pytest.mark.parametrize("refused", [{0, 1, 2}, {1}, {2}], ids=str)
def test_a_refused_stable_mac_is_no_error(tree: Tree, journal: Journal, refused: set[int]) -> None:
    """Of all VFs or of some: those that the PF takes have theirs there, the others on their netdevs."""
    tree.refused_macs = refused
    warnings = apply_twice(tree, journal, make_config())
    assert len(warnings) == 1
    assert f"VF {min(refused)}: set admin MAC" in warnings[0]
    assert "(ENOTSUP); the netdevs of VFs on kernel drivers get the MACs" in warnings[0]
    assert macs_of(tree) == STABLE[:2]
    held = [tree.settings[vf_address(PF, index)].mac for index in range(3)]
    assert [mac == STABLE[index] for index, mac in enumerate(held)] == [index not in refused for index in range(3)]


@pytest.mark.parametrize("sets_vfs", [False, True])
def test_a_netdev_that_keeps_its_mac_is_reported_once(tree: Tree, journal: Journal, *, sets_vfs: bool) -> None:
    """The VF is good all the same; its MAC is not tried again until it is created again."""
    tree.sets_vfs, tree.refused_macs = sets_vfs, {0, 1, 2}
    tree.fixed_macs = {vf_address(PF, 0), vf_address(PF, 1)}
    warnings = apply_twice(tree, journal, make_config())
    [refusal] = [text for text in warnings if "of its netdev failed" in text]
    assert refusal.startswith("warning: enp1s0 VF 0")
    assert refusal.endswith("v0110f0 failed: Operation not permitted (EPERM); VFs keep what they have")
    assert macs_of(tree) == [OWN, OWN]
    tree.fixed_macs.clear()
    tree.write(tree.pci(PF) / "sriov_numvfs", "0")
    apply_twice(tree, journal, make_config())
    assert macs_of(tree) == STABLE[:2]


def test_without_the_capability_a_refusal_is_an_error(
    tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses this process, and has asked no driver."""
    tree.sets_vfs, tree.fixed_macs = False, {vf_address(PF, 0)}
    monkeypatch.setattr(change, "_is_privileged", lambda: False)
    with pytest.raises(KernelError, match=r"VF 0: set MAC .* of its netdev failed: .*Operation not permitted"):
        apply(make_config(), tree.sysfs, journal)


GIVEN: list[tuple[dict[str, object], bool]] = [
    ({"mac": ["02:00:00:00:00:50", "02:00:00:00:00:51"]}, True),
    ({"mac": ["02:00:00:00:00:50", "02:00:00:00:00:51"]}, False),
    ({"vlan": 7}, False),
    ({"trust": True}, False),
]


@pytest.mark.parametrize("there", [0, 3], ids=["new VFs", "VFs that were there"])
@pytest.mark.parametrize(("keys", "sets_vfs"), GIVEN)
def test_what_the_config_gives_is_an_error(
    tree: Tree, journal: Journal, keys: dict[str, object], there: int, *, sets_vfs: bool
) -> None:
    """The whole PF is as it was, each time."""
    make_vfs(tree, there)
    tree.sets_vfs, tree.refused_macs = sets_vfs, {0, 1, 2}
    before = macs_of(tree)
    for _ in range(2):
        with pytest.raises(KernelError, match=r"not supported.*enp1s0 (was brought back|is as it was)"):
            apply(make_config(**keys), tree.sysfs, journal)
        assert macs_of(tree) == before
        assert len(take_snapshot(tree.sysfs).pfs[0].vfs) == there


def test_a_switch_that_is_off_need_not_be_set(tree: Tree, journal: Journal) -> None:
    """Where there are no settings, `false` and no VLAN are what there is."""
    tree.sets_vfs = False
    apply_twice(tree, journal, make_config(trust=False, spoofchk=False, vlan=0, maxTxRate=0))


@pytest.mark.parametrize("sets_vfs", [False, True])
def test_reset_brings_the_netdevs_macs_back(tree: Tree, journal: Journal, *, sets_vfs: bool) -> None:
    """VFs that were there before have their own MACs again."""
    make_vfs(tree, 3)
    tree.sets_vfs, tree.refused_macs = sets_vfs, {0, 1, 2}
    apply_twice(tree, journal, make_config())
    assert macs_of(tree) == STABLE[:2]
    reset(tree.sysfs, journal)
    assert macs_of(tree) == [OWN] * 3


@pytest.mark.parametrize("sets_vfs", [False, True])
def test_a_killed_apply_is_continued(
    tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch, *, sets_vfs: bool
) -> None:
    """Killed between the netdevs' MACs: the next apply ends where an undisturbed one does."""
    tree.sets_vfs, tree.refused_macs = sets_vfs, {0, 1, 2}
    really = Change._set_vf_mac

    def set_one(change: Change, step: SetVfMac) -> None:
        if step.index == 1:
            raise KeyboardInterrupt
        really(change, step)

    with monkeypatch.context() as patched:
        patched.setattr(Change, "_set_vf_mac", set_one)
        with pytest.raises(KeyboardInterrupt):
            apply(make_config(), tree.sysfs, journal)
    assert macs_of(tree) == [STABLE[0], OWN]
    apply_twice(tree, journal, make_config())
    assert macs_of(tree) == STABLE[:2]
    reset(tree.sysfs, journal)
    assert take_snapshot(tree.sysfs).pfs[0].vfs == ()


def test_a_vf_that_the_host_uses_keeps_its_mac(tree: Tree, journal: Journal) -> None:
    """To set a MAC takes the netdev down."""
    make_vfs(tree, 3)
    tree.sets_vfs = False
    (tree.root / "class/net/br0").mkdir()
    (tree.pci(vf_address(PF, 0)) / "net/v0110f0/upper_br0").symlink_to("../br0")
    with pytest.raises(InUseError, match=r"VF 0 .*is used by the host: br0 .*in the way of: .*set MAC"):
        apply(make_config(), tree.sysfs, journal)
    assert macs_of(tree)[0] == OWN


def test_no_guid_is_planned_where_it_was_refused(tree: Tree) -> None:
    """A GUID that this program makes is of the same kind."""
    make_vfs(tree, 3)
    node = take_snapshot(tree.sysfs)
    pf = node.pfs[0]
    vfs = tuple(replace(vf, settings=VfSettings(OWN, node_guid=NO_GUID, port_guid=NO_GUID)) for vf in pf.vfs)
    traits = Traits(link_type="infiniband", guid="02:00:00:00:00:00:00:01")
    infiniband = replace(node, pfs=(replace(pf, traits=traits, vfs=vfs),))
    planned = plan(make_config(), infiniband)
    assert [step.index for step in planned.steps if isinstance(step, SetGuid)] == [0, 1, 2]
    known = plan(make_config(), infiniband, refused={pf.address: {0: "PF", 1: "PF"}})
    assert [step.index for step in known.steps if isinstance(step, SetGuid)] == [2]
    assert any("takes no GUID of VF 0-1: it keeps what it has" in warning for warning in known.warnings)
