"""A test whose machine died in the file before: it has another one."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.lab
shares_boot = True


def test_that_has_another_machine() -> None:
    """It is another boot."""
    assert not Path("/run/boot-of-the-samples").exists()
