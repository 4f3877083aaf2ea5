"""Outside the guest: runs the tests marked `lab` in virtual machines and reports their results as if they ran here.

The tests of a file whose marks ask for the same shape share a boot; so do files of one shape that say `shares_boot =
True`, one after the other. When their machine dies, the next file has another one. Two machines are on at once where
there are two processors. Their reports come through a file of the guest's result folder and are handed to pytest in the
order of the tests, so that names, tracebacks, captured output and durations are those of the guest.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.lab.patience import Patience
from tests.lab.shape import Shape
from tests.lab.vm import LabError, Vm

_TIMEOUT_OF_A_TEST = 240.0  # seconds of the guest's own time after which it counts as hung
_TIMEOUT_OF_A_NODE = 600.0  # the same with containerd: it imports images, and a kubelet tries again and again
_POLL = 0.1
_AT_ONCE = 2  # guests; a container may see more processors than it is given, and a starved guest counts as hung
_OUTPUT_LINES = 30
_REPORTS = "reports"


class Forwarding:
    """A pytest plugin. The guests are started when the first lab test comes."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._guests: list[_Guest] = []
        self._threads = ThreadPoolExecutor(min(_AT_ONCE, len(os.sched_getaffinity(0))))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Lab tests last, those of one guest together; otherwise in their order."""
        groups = list(dict.fromkeys(_group(item) for item in items))
        items.sort(key=lambda item: (_shape(item) is not None, groups.index(_group(item))))

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Take over lab tests; leave the others to pytest."""
        if _shape(item) is None:
            return None
        if not self._guests:
            self._start(item)
        guest = self._find_guest(item)
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in guest.reports_of(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_unconfigure(self) -> None:
        """No guest outlives pytest."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for guest in self._guests:
            guest.close()

    def _start(self, first: pytest.Item) -> None:
        """A guest for each group of tests, from this test on."""
        rest = first.session.items[first.session.items.index(first) :]
        for group, items in groupby(rest, _group):
            assert group, "lab tests come last"
            self._guests.append(_Guest(self._config, group[0], [item.nodeid for item in items]))
            self._threads.submit(self._guests[-1].run)

    def _find_guest(self, item: pytest.Item) -> "_Guest":
        """The guest that runs the test; another one when its own has died in a file before."""
        while not self._guests[0].has(item):
            self._guests.pop(0).close()
        if self._guests[0].died_before(item):
            self._guests[0].close()
            self._guests[0] = self._guests[0].replace(item)
            self._threads.submit(self._guests[0].run)
        return self._guests[0]


class _Guest:
    """One boot, running the tests of one group."""

    def __init__(self, config: pytest.Config, shape: Shape, nodeids: list[str]) -> None:
        self._config = config
        self._shape = shape
        self._nodeids = nodeids
        self._read = 0
        self._pending: list[Any] = []
        self._death = ""
        self._died_in = ""  # the file of the first test that did not end
        self._started = threading.Event()
        self._stack = contextlib.ExitStack()
        self._starting_or_closing = threading.Lock()
        self._closed = False

    def run(self) -> None:
        """Boot and wait until the machine is off. QEMU does not outlive the thread of this call."""
        try:
            with self._starting_or_closing:
                self._boot()
        except LabError as error:
            self._death = str(error)
        finally:
            self._started.set()
        while not self._death and self._vm.is_running():
            time.sleep(_POLL)

    def _boot(self) -> None:
        if self._closed:
            raise LabError("the tests were given up before their machine was on")
        command = [
            *(".venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts="),
            *("--lab-reports", f"/run/lab/result/{_REPORTS}", "--rootdir", str(self._config.rootpath)),
            *self._nodeids,
        ]
        # containerd, kubelet and Multus have time limits that cannot be set: Multus gives the API server 2.5 s
        self._vm = self._stack.enter_context(Vm(self._shape, command, own_clock=self._shape.containerd))
        self._output = self._stack.enter_context((self._vm.result.parent / "output").open("w+b"))
        self._vm.start(stdout=self._output.fileno(), stderr=self._output.fileno())

    def has(self, item: pytest.Item) -> bool:
        """Whether this guest has to run the test."""
        return item.nodeid in self._nodeids

    def died_before(self, item: pytest.Item) -> bool:
        """Whether it died at a test of another file."""
        return bool(self._died_in) and self._died_in != _file(item)

    def replace(self, item: pytest.Item) -> "_Guest":
        """Another guest for the tests from this one on."""
        return _Guest(self._config, self._shape, self._nodeids[self._nodeids.index(item.nodeid) :])

    def close(self) -> None:
        """Switch off."""
        with self._starting_or_closing:
            self._closed = True
            self._stack.close()

    def reports_of(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """The reports of one test as they come; a failure when the guest died or hung before the last of them."""
        self._started.wait()
        limit = _TIMEOUT_OF_A_NODE if self._shape.containerd else _TIMEOUT_OF_A_TEST
        patience = None if self._death else Patience(limit, self._vm.read_cpu_seconds)
        while not self._death:
            for report in self._take():
                if isinstance(report, pytest.CollectReport):
                    self._death = f"the guest cannot import {report.nodeid}:\n{report.longreprtext}"
                elif report.nodeid == item.nodeid:
                    yield report
                    if report.when == "teardown":
                        return
            if not self._vm.is_running() and not self._has_more():
                self._death = "the guest ended before the test did"
            elif patience and patience.is_over():
                self._death = f"the guest did not end the test within {limit:.0f} s of its own time"
            time.sleep(_POLL)
        self._died_in = self._died_in or _file(item)
        yield self._report_death(item)

    def _take(self) -> Iterator[Any]:
        """Reports that were not read before; those that are not taken now are for the tests after this one."""
        self._load()
        while self._pending:
            yield self._pending.pop(0)

    def _has_more(self) -> bool:
        self._load()
        return bool(self._pending)

    def _load(self) -> None:
        path: Path = self._vm.result / _REPORTS
        if not path.exists():
            return
        with path.open("rb") as stream:
            stream.seek(self._read)
            for line in stream:
                if not line.endswith(b"\n"):
                    break  # half a line; the rest comes
                self._read += len(line)
                data = json.loads(line)
                report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
                if isinstance(report.longrepr, list):  # where a test was skipped: a tuple, which JSON has not
                    report.longrepr = tuple(report.longrepr)
                self._pending.append(report)

    def _report_death(self, item: pytest.Item) -> pytest.TestReport:
        text = self._death
        if hasattr(self, "_output"):
            self._output.seek(0)
            printed = self._output.read().decode(errors="replace").splitlines()[-_OUTPUT_LINES:]
            text = "\n".join((text, "last lines of its pytest:", *printed, "and of its console:", self._vm.tail()))
        return pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _group(item: pytest.Item) -> tuple[Shape, str] | None:
    """The tests that share a boot with this one: those of its shape and file, or of all files that share."""
    shape = _shape(item)
    shares = getattr(getattr(item, "module", None), "shares_boot", False)
    return (shape, "" if shares else _file(item)) if shape else None


def _shape(item: pytest.Item) -> Shape | None:
    """The machine that a test asks for; marks nearer to it win, and what they leave out comes from those around."""
    marks = list(item.iter_markers("lab"))
    if not marks:
        return None
    shape = Shape()
    for mark in reversed(marks):
        shape = replace(shape, **mark.kwargs)
    return shape
