"""Tests marked `lab` run in the lab's guest; here is what carries their results out of it."""

import os

import pytest

from tests.lab.forwarding import Forwarding
from tests.lab.reporting import Reporting
from tests.lab.vm import GUEST_VARIABLE


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the pytest in the guest puts its reports; given by the one outside."""
    parser.addoption("--lab-reports", metavar="FILE", help="in the guest: write each report to this file")


def pytest_configure(config: pytest.Config) -> None:
    """Outside, run lab tests in guests; inside, report."""
    if reports := config.getoption("--lab-reports"):
        config.pluginmanager.register(Reporting(config, reports))
    elif not os.environ.get(GUEST_VARIABLE):
        config.pluginmanager.register(Forwarding(config))
        _lift_deadlines()


def _lift_deadlines() -> None:
    """A busy machine is no fault of what is tested. Not in the guest, where the import alone takes seconds."""
    from hypothesis import settings

    settings.register_profile("sriovdp", deadline=None)
    settings.load_profile("sriovdp")
