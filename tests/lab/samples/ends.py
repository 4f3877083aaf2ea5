"""Tests that end in every way a test can."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.lab
shares_boot = True


def test_that_passes() -> None:
    """Nothing is wrong."""
    print("printed in the guest")  # noqa: T201


def test_that_fails() -> None:
    """Something is wrong."""
    hostname = Path("/proc/sys/kernel/hostname").read_text().strip()
    assert hostname == "elsewhere"


def test_that_is_skipped() -> None:
    """Something is missing."""
    pytest.skip("the moon is not full")


def test_that_kills_the_guest() -> None:
    """Everything is wrong."""
    Path("/proc/sysrq-trigger").write_text("c")


def test_after_the_end() -> None:
    """Nobody is there to run it."""
