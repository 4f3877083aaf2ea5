"""A VF that the kernel leaves out of its PF's list: waited for, and never taken for one without settings."""

from pathlib import Path

import pytest

from cni.verbs.reserve import refuse_unread
from cni.vf import settings
from cni.vf.settings import apply_settings, find_vf, refuse_settings
from sriovdp.errors import BusyError, CniError
from sriovdp.kernel.rtnl.link import Link
from sriovdp.model import ZERO_MAC, PciAddress, VfSettings
from tests.fakes.sysfs import PF, Tree, vf_address

_LINK = Link(7, "enp1s0", "02:00:00:00:00:01", 1500, 1, carrier=True, altnames=(), parent=PF)
_VF = PciAddress(vf_address(PF, 0))
_OWN = VfSettings("02:00:00:00:00:05", vlan=5)


class Client:
    """Leaves the VF out of the list for so many looks; without a list when that is negative.

    `listed` is how many VFs the list has then.
    """

    def __init__(self, hidden: int, listed: int = 1) -> None:
        self.hidden = hidden
        self.listed = listed

    def find_with_vf(self, _: str, __: int) -> tuple[Link, VfSettings | None, int | None]:
        """As Netlink has it."""
        self.hidden -= 1
        return (_LINK, _OWN if self.hidden == -1 else None, self.listed if self.hidden >= -1 else None)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A PF with a VF."""
    tree = Tree(tmp_path)
    tree.add_pf(vfs=1)
    return tree


def test_a_moment_is_waited_for(tree: Tree) -> None:
    """As i40e leaves VFs out while it does something else."""
    found = find_vf(tree.sysfs, Client(2), _VF)  # type: ignore[arg-type]
    assert (found.settings, found.is_unread) == (_OWN, False)


def test_a_driver_without_settings_is_not_waited_for(tree: Tree) -> None:
    """It has no list."""
    found = find_vf(tree.sysfs, Client(-1), _VF)  # type: ignore[arg-type]
    assert (found.settings, found.is_unread) == (None, False)
    assert "the driver of enp1s0 has no settings of it" in found.explain()


def test_one_that_stays_away_is_refused(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever may be skipped on a NIC without settings, and also when nothing but the defaults is wanted."""
    monkeypatch.setattr(settings, "_UNREAD_PATIENCE", 0.0)
    found = find_vf(tree.sysfs, Client(1 << 30), _VF)  # type: ignore[arg-type]
    assert (found.settings, found.is_unread) == (None, True)
    said = r"enp1s0 VF 0 \(0000:01:10.0\): setting mac failed: its settings cannot be read: the kernel left it out"
    with pytest.raises(CniError, match=said):
        refuse_settings(found, ["mac"], skip_unsupported=True)
    with pytest.raises(CniError, match=said):
        apply_settings(Client(0), found, VfSettings(ZERO_MAC), skip_unsupported=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("driver", "listed", "looks", "is_unread"),
    [("igb", 0, 2, True), ("igb", 1, 2, True), ("mlx5_core", 0, 1, False), ("unknown", 0, 2, False)],
)
def test_a_list_without_any_vf(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, driver: str, listed: int, looks: int, *, is_unread: bool
) -> None:
    """A driver that may list none at all, always, has no settings to wait for; of another one all are in reset."""
    monkeypatch.setattr(settings, "_UNREAD_PATIENCE", 0.05)
    link = tree.pci(PF) / "driver"
    link.unlink()
    link.symlink_to(f"../../../../bus/pci/drivers/{driver}")
    client = Client(1 << 30, listed)
    found = find_vf(tree.sysfs, client, _VF)  # type: ignore[arg-type]
    assert (found.settings, found.is_unread) == (None, is_unread)
    assert min(2, (1 << 30) - client.hidden) == looks


def test_a_vf_in_reset_is_not_attached(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key too: what is not known cannot be set back at DEL. The runtime tries again."""
    monkeypatch.setattr(settings, "_UNREAD_PATIENCE", 0.0)
    found = find_vf(tree.sysfs, Client(1 << 30), _VF)  # type: ignore[arg-type]
    with pytest.raises(BusyError, match=r"enp1s0 VF 0 \(0000:01:10.0\): attaching it failed"):
        refuse_unread(found)
    refuse_unread(find_vf(tree.sysfs, Client(0), _VF))  # type: ignore[arg-type]
