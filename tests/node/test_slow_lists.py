"""A PF whose list of VFs is slow rests; others are asked each time."""

import logging
import time

import pytest

from sriovdp.model import ZERO_MAC, VfSettings
from sriovdp.node.slow_lists import SlowLists

_READ = {0: VfSettings(ZERO_MAC)}


class Kernel:
    """Answers after so many seconds of its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.takes, self.asked = 0.0, 0.0, 0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def read(self) -> dict[int, VfSettings]:
        """The list."""
        self.asked += 1
        self.now += self.takes
        return _READ if self.takes < 1 else {}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """With its own clock."""
    return Kernel(monkeypatch)


def _look(lists: SlowLists, kernel: Kernel, pf: str = "0000:01:00.0", vfs: int = 1) -> int:
    before = kernel.asked
    lists.ask(pf, "eth0", vfs, kernel.read)
    return kernel.asked - before


def test_a_slow_pf_rests_and_the_others_go_on(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    """Its last answer stands, and it is logged once how long; a share of one in twenty, a minute at most."""
    caplog.set_level(logging.INFO)
    lists = SlowLists()
    kernel.takes = 0.8
    assert _look(lists, kernel) == 1
    for _ in range(3):
        kernel.now += 5
        assert _look(lists, kernel) == 0
        kernel.takes = 0.01
        assert _look(lists, kernel, "0000:02:00.0") == 1
    kernel.now += 2
    kernel.takes = 80.0
    assert _look(lists, kernel) == 1
    kernel.now += 59
    assert _look(lists, kernel) == 0
    kernel.now += 2
    kernel.takes = 0.01
    assert [_look(lists, kernel) for _ in range(2)] == [1, 1]
    of_first = [record.getMessage() for record in caplog.records if "0000:01:00.0" in record.getMessage()]
    assert [text.partition("): ")[2][:18] for text in of_first] == ["the kernel took 0.", "the kernel lists i"]


def test_changes_are_seen_at_once(kernel: Kernel) -> None:
    """Another number of VFs, and what this program changed itself."""
    lists = SlowLists()
    kernel.takes = 0.8
    assert [_look(lists, kernel), _look(lists, kernel), _look(lists, kernel, vfs=2)] == [1, 0, 1]
    lists.forget()
    assert _look(lists, kernel, vfs=2) == 1
