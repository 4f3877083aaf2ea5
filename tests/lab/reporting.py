"""Inside the guest: writes each report of pytest as a line of JSON, for `tests.lab.forwarding` to read outside.

Between two files it takes away what the first one left, so that the next one finds a fresh machine.
"""

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.lab.leftovers import Leftovers


class Reporting:
    """A pytest plugin that appends reports to a file as they come."""

    def __init__(self, config: pytest.Config, path: str) -> None:
        self._config = config
        self._done = _list_ended(Path(path))
        self._stream = Path(path).open("a", buffering=1)  # noqa: SIM115 - it lives as long as pytest
        self._leftovers = Leftovers()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """After a reboot, go on where it was."""
        items[:] = [item for item in items if item.nodeid not in self._done]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
        """After the last test of a file, its fixtures included; what cannot be taken away is that test's error."""
        yield
        if nextitem and nextitem.path != item.path:
            self._leftovers.remove()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test is over."""
        self._write(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file could not be imported in the guest."""
        if report.failed:
            self._write(report)

    def pytest_unconfigure(self) -> None:
        """The end."""
        self._stream.close()

    def _write(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._stream.write(json.dumps(data) + "\n")


def _list_ended(path: Path) -> set[str]:
    """Tests that were reported to their end by a pytest before."""
    reports = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {report["nodeid"] for report in reports if report.get("when") == "teardown"}
