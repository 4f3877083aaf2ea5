"""Inside the guest: writes each report of pytest as a line of JSON, for `tests.lab.forwarding` to read outside."""

import json
from pathlib import Path

import pytest


class Reporting:
    """A pytest plugin that appends reports to a file as they come."""

    def __init__(self, config: pytest.Config, path: str) -> None:
        self._config = config
        self._done = _list_ended(Path(path))
        self._stream = Path(path).open("a", buffering=1)  # noqa: SIM115 - it lives as long as pytest

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """After a reboot, go on where it was."""
        items[:] = [item for item in items if item.nodeid not in self._done]

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
