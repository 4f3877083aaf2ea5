"""What drivers can do: the table of them, its page, and where it is used. The kernel's answer counts more."""

import re
from dataclasses import replace

import pytest

from sriovdp.config.ranges import VfIndices
from sriovdp.config.values import Config, PfConfig, PfSelect, VfConfig
from sriovdp.kernel.abilities import SETTINGS, TABLE, list_doubts, list_wanted
from sriovdp.model import NetDevice, Node, PciAddress, PhysicalFunction, VfSettings
from sriovdp.provision.plan import plan
from tests.kernel.driver_table import PAGE, render

PF = PhysicalFunction(
    PciAddress("0000:01:00.0"),
    *("8086", "10c9", "igb", 0),
    NetDevice("eth0", 2, "52:54:00:aa:00:01", 1500, up=True, carrier=True),
    total_vfs=7,
)
NAMES = set(VfSettings.__dataclass_fields__)


def test_the_page_has_the_table() -> None:
    """`python -m tests.kernel.driver_table` writes it."""
    assert PAGE.read_text() == render(PAGE.read_text())


def test_the_settings_are_those_of_a_vf() -> None:
    """No name is misspelt, and each habit concerns something."""
    assert set(SETTINGS) <= NAMES
    for driver in TABLE.values():
        assert driver.settings <= set(SETTINGS)
        assert all(set(quirk.about) <= {*SETTINGS, "vfs", "driver"} and quirk.about for quirk in driver.quirks)
        sources = [driver.source, *(quirk.source for quirk in driver.quirks)]
        assert all(re.match(r"[\w/-]+\.c(, \w+)?$", source) for source in sources)


@pytest.mark.parametrize(
    ("driver", "names", "doubts"),
    [
        (
            "igb",
            ["link_state"],
            ["by its source igb does not take link_state (intel/igb/igb_main.c, igb_netdev_ops, "],
        ),
        ("igb", ["max_tx_rate"], ["with igb rates need the PF's link"]),
        ("virtio-pci", ["trust", "mac"], ["by its source virtio-pci does not take trust, mac"]),
        ("bnxt_en", ["vfs"], ["with bnxt_en sriov_numvfs does nothing while the PF is down"]),
        ("of-a-vendor", ["trust"], []),
        (None, ["trust"], []),
    ],
)
def test_doubts_name_the_source(driver: str | None, names: list[str], doubts: list[str]) -> None:
    """Of what is not in the table nothing is said."""
    found = list(list_doubts(driver, names))
    assert [text.startswith(start) for text, start in zip(found, doubts, strict=True)] == [True] * len(doubts)


def test_what_is_off_is_not_asked_of_a_driver() -> None:
    """And the VLAN protocol that every driver has is no wish."""
    values = {"vlan": 5, "qos": 0, "vlan_proto": "802.1Q", "trust": False, "spoofchk": True}
    assert list_wanted(values) == ["vlan", "spoofchk"]
    assert list_wanted({"vlan_proto": "802.1ad"}) == ["vlan_proto"]


def test_a_plan_warns_and_has_the_step_all_the_same() -> None:
    """The kernel is asked: a vendor's driver of the same name may take it."""
    vfs = (VfConfig(VfIndices.parse("0-1"), min_tx_rate=10, max_tx_rate=100),)
    config = Config((PfConfig(PfSelect(pf_names=("eth0",)), 2, vfs),))
    found = plan(config, Node((PF,)))
    assert [w for w in found.warnings if "takes no min_tx_rate of VFs in Linux 6.12" in w]
    assert [step for step in found.steps if step.action == "set_vf"]
    other = plan(config, Node((replace(PF, driver="of-a-vendor"),)))
    assert not other.warnings
