"""Hysteresis of health, by seconds that a test counts."""

import pytest

from sriovdp.config.values import HealthRule
from sriovdp.pools.faults import Lack
from sriovdp.pools.holds import Holds

LACK = Lack("pfCarrier", "its PF eth0 has no link")
ERROR = Lack("pcieErrors", "it has had 1 uncorrectable PCIe errors")
VF = "0000:3b:02.1"


class Link:
    """A device whose PF has a link, or not, and the rule for it."""

    def __init__(self, hold: int | None) -> None:
        self.holds = Holds()
        self.rule = HealthRule("pfCarrier", hold=hold)
        self.now = 100.0
        self.look(0, is_lacking=False)

    def look(self, passed: float, *, is_lacking: bool) -> bool:
        """Look so many seconds later; gives whether the lack counts."""
        self.now += passed
        self.holds.update(self.now, lambda _: self.rule, [(VF, LACK)] if is_lacking else [])
        return VF in self.holds.find()


def test_without_a_hold_time_each_look_counts() -> None:
    """As it was before there were hold times."""
    link = Link(None)
    assert [link.look(0.1, is_lacking=lacking) for lacking in (True, False, True)] == [True, False, True]
    assert link.holds.find_next() is None


def test_a_lack_counts_when_it_has_lasted_and_ends_when_it_was_gone_as_long() -> None:
    """And it is known when to look again."""
    link = Link(10)
    assert not link.look(1, is_lacking=True)
    assert link.holds.find_next() == 10
    assert not link.look(4, is_lacking=True)
    assert link.holds.find_next() == 6
    assert link.look(6, is_lacking=True)
    assert link.holds.find_next() is None
    assert link.look(3600, is_lacking=False)
    assert link.holds.find_next() == 10
    assert link.look(9.5, is_lacking=False)
    assert not link.look(0.5, is_lacking=False)
    assert link.holds.find_next() is None


@pytest.mark.parametrize("began", [True, False])
def test_a_link_that_comes_and_goes_by_the_second_changes_nothing(began: bool) -> None:
    """For an hour: it stays what it was."""
    link = Link(10)
    link.look(0, is_lacking=began)
    assert link.look(60, is_lacking=began) == began
    seen = {link.look(1, is_lacking=bool(second % 2) is began) for second in range(3600)}
    assert seen == {began}


def test_a_link_that_is_mostly_down_counts_as_down() -> None:
    """Nine seconds of ten, and never ten in a row."""
    link = Link(10)
    seen = []
    for _ in range(5):
        link.look(1, is_lacking=True)
        seen.append(link.look(9, is_lacking=False))
    assert seen == [False, True, True, True, True]


def test_what_is_lacking_at_the_first_look_counts_at_once() -> None:
    """An agent that starts does not know since when: a restart makes nothing healthy for ten seconds."""
    holds = Holds()
    holds.update(100.0, lambda _: HealthRule("pfCarrier", hold=10), [(VF, LACK)])
    assert VF in holds.find()


def test_an_error_counts_at_once_and_for_its_time() -> None:
    """From the last one on."""
    holds, rule = Holds(), HealthRule("pcieErrors", hold=60)
    holds.update(0.0, lambda _: rule, ())
    holds.update(1.0, lambda _: rule, (), [(VF, ERROR)])
    assert holds.find() == {VF: [(ERROR, rule)]}
    holds.update(31.0, lambda _: rule, (), [(VF, ERROR)])
    assert holds.find_next() == 60
    holds.update(90.0, lambda _: rule, ())
    assert VF in holds.find()
    holds.update(91.0, lambda _: rule, ())
    assert holds.find() == {}


def test_a_device_that_went_is_forgotten() -> None:
    """Once its time is over."""
    link = Link(10)
    link.look(0, is_lacking=True)
    assert link.look(10, is_lacking=True)
    link.look(1, is_lacking=False)
    link.look(10, is_lacking=False)
    assert link.holds._levels == {}


def test_another_rule_counts_at_once() -> None:
    """A hold time that is shorter now ends sooner, and what is ignored now does not linger."""
    link = Link(3600)
    link.look(0, is_lacking=True)
    assert not link.look(60, is_lacking=True)
    link.rule = HealthRule("pfCarrier", hold=30)
    assert link.look(1, is_lacking=True)
    link.rule = HealthRule("pfCarrier", "ignore")
    assert not link.look(1, is_lacking=False)
