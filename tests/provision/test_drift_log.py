"""Drift in the log: once when it lasts, once when it is gone."""

import logging

import pytest

from sriovdp.provision.drift_log import DriftLog

BIND, GROW = "bind VF 1", "create 4 VFs"


@pytest.fixture(autouse=True)
def _log_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_each_difference_is_reported_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    """Looking again and again at the same adds nothing; a second difference does not bring up the first."""
    drift = DriftLog(lasting=0)
    assert drift.settled
    for found in ([BIND], [BIND], [BIND, GROW], [GROW, BIND], [GROW], [], []):
        drift.update(found)
        assert drift.settled
    assert caplog.messages == [
        f"{BIND}; the node is not as its config says",
        f"{GROW}; the node is not as its config says",
        f"{BIND}; this is settled",
        f"{GROW}; this is settled",
    ]


def test_what_cannot_be_read_is_neither_settled_nor_a_difference(caplog: pytest.LogCaptureFixture) -> None:
    """What was found of that VF before still counts; what was found of others does not."""
    drift = DriftLog(lasting=0)
    vlan, trust = "e0 VF 1 (0000:01:10.2): set VLAN 5: it is 0", "e0 VF 2 (0000:01:10.4): set trust on: it is off"
    unread = "e0 VF 1 (0000:01:10.2): its settings could not be read"
    drift.update([vlan, trust])
    caplog.clear()
    drift.update([], [unread])
    assert drift.settled
    assert caplog.messages == [f"{unread}; the node is not known to be as its config says", f"{trust}; this is settled"]
    caplog.clear()
    drift.update([vlan])
    assert caplog.messages == [f"{unread}; this is settled"]


def test_what_does_not_last_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """A VF that an ADD has in its hands for an instant; until that is known, the same node is looked at again."""
    drift = DriftLog(lasting=3600)
    settled = []
    for found in ([BIND], [BIND], []):
        drift.update(found)
        settled.append(drift.settled)
    assert settled == [False, False, True]
    assert caplog.messages == []
