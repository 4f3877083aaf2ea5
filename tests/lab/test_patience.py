"""A guest's patience counts its own time."""

from collections.abc import Callable
from pathlib import Path

from tests.lab.patience import OwnTime, Patience, own_time


class Machine:
    """A clock, and a machine that gets a share of a processor."""

    def __init__(self) -> None:
        self.now = self.used = 0.0

    def run_until(self, patience: Patience, share: Callable[[float], float], limit: float = 10_000.0) -> float:
        """The second in which patience is over."""
        while not patience.is_over() and self.now < limit:
            self.used += share(self.now)
            self.now += 1.0
        return self.now

    def give(self, limit: float) -> Patience:
        """Patience with this machine."""
        return Patience(limit, lambda: self.used, lambda: self.now)


def test_a_guest_that_hangs_asleep_is_given_up_after_the_limit() -> None:
    """It uses next to nothing, so it is never kept from going on."""
    machine = Machine()
    assert 100 < machine.run_until(machine.give(100), lambda _: 0.01) < 105


def test_a_guest_that_hangs_computing_is_given_up_after_the_limit() -> None:
    """It has a processor to itself all the time."""
    machine = Machine()
    assert 100 < machine.run_until(machine.give(100), lambda _: 1.0) < 105


def test_a_starved_guest_gets_the_time_that_others_took() -> None:
    """With a quarter of a processor it has four times as long."""
    machine = Machine()
    assert 398 < machine.run_until(machine.give(100), lambda _: 0.25) < 405


def test_a_guest_that_works_now_and_then_ends_too() -> None:
    """Whatever it does, the clock has the last word."""
    machine = Machine()
    assert 499 < machine.run_until(machine.give(100), lambda _: 0.1) < 505


def test_own_time_stands_still_while_others_have_the_processors() -> None:
    """A starved guest's wait of ten seconds takes as long as it takes to compute for ten."""
    machine = Machine()
    own = OwnTime(lambda: machine.used, lambda: machine.now)
    while own.read() < 10:
        machine.used += 0.125
        machine.now += 1.0
    assert 80 <= machine.now <= 84


def test_own_time_in_a_guest_is_what_its_machine_says(tmp_path: Path) -> None:
    """Where nobody says it, it is the clock."""
    (tmp_path / "own-time").write_text("12.50\n")
    assert own_time(tmp_path / "own-time") == 12.5
    first = own_time(tmp_path / "none")
    assert first <= own_time(tmp_path / "none")
