"""The agent's log: repetitions are counted, and nothing else is held back."""

import logging
import time

import pytest

from sriovdp.cli.log import RepeatFilter


def record(text: str, level: int = logging.ERROR) -> logging.LogRecord:
    """A record of the agent's."""
    return logging.LogRecord("sriovdp.agent", level, "agent.py", 1, "looking at %s failed", (text,), None)


def test_a_repeated_error_is_logged_once_and_then_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of every five seconds fills a day's log with some thirty lines, and each has the number."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    repeats = RepeatFilter()
    logged = []
    for _ in range(24 * 3600 // 5):
        now += 5
        if repeats.filter(found := record("the node")):
            logged.append(found.getMessage())
    assert logged[:2] == [
        "looking at the node failed",
        "looking at the node failed (12 times since it was logged last)",
    ]
    assert len(logged) < 40
    assert repeats.filter(record("the other node"))
    now += 24 * 3600
    last = record("the node")
    assert repeats.filter(last)
    assert last.getMessage() == "looking at the node failed"


def test_what_happens_is_not_held_back() -> None:
    """Events of pods are alike, and each is one."""
    repeats = RepeatFilter()
    assert all(repeats.filter(record("x", logging.INFO)) for _ in range(3))


def test_it_remembers_little() -> None:
    """However many kinds of errors there are."""
    repeats = RepeatFilter()
    assert all(repeats.filter(record(f"{number}")) for number in range(5000))
    assert len(repeats._seen) == 1024
