"""Requests in the spool are done side by side: one that hangs keeps only its own kind waiting."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cni.protocol.wire import Reply, Request
from cni.service.spool import Spool
from tests.cni.service.test_spool import DEL, keep

WAIT = 30.0


class Hanging:
    """Verbs of which those for one IPAM plugin do not end until they may."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.may_end = threading.Event()
        self.done: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()
        self.changed = threading.Condition()

    def __call__(self, request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        """Note the request's plugin, and hang if it is that one."""
        plugin = json.loads(request.stdin)["ipam"].get("type", "")
        self._note(self.begun, plugin)
        if plugin == self.plugin:
            self.may_end.wait(WAIT)
        self._note(self.done, plugin)
        return Reply(0, b"")

    def wait(self, counter: Counter[str], **wanted: int) -> None:
        """Wait until that many of each plugin's requests are counted."""
        with self.changed:
            assert self.changed.wait_for(lambda: all(counter[name] >= count for name, count in wanted.items()), WAIT)

    def _note(self, counter: Counter[str], plugin: str) -> None:
        with self.changed:
            counter[plugin] += 1
            self.changed.notify_all()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """They may end with the test."""
    verbs = Hanging("hung")
    yield verbs
    verbs.may_end.set()


def fill(folder: Path, plugin: str, count: int, start: int = 0) -> None:
    """So many DELs with that IPAM plugin, each of a container of its own."""
    for n in range(start, start + count):
        stdin = json.dumps({"name": "net-a", "ipam": {"type": plugin} if plugin else {}}).encode()
        keep(folder, f"{n:03}", replace(DEL, container_id=f"c{n}", stdin=stdin))


def test_a_plugin_that_hangs_keeps_two_threads(tmp_path: Path, hanging: Hanging) -> None:
    """It is the oldest in the spool, ten times over; all others are done meanwhile."""
    fill(tmp_path, "hung", 10)
    fill(tmp_path, "good", 12, 10)
    fill(tmp_path, "", 12, 22)
    spool = Spool(tmp_path)
    replay = threading.Thread(target=spool.replay, args=(hanging,))
    replay.start()
    hanging.wait(hanging.done, good=12)
    with hanging.changed:
        hanging.changed.wait_for(lambda: hanging.done[""] == 12, WAIT)
    assert (hanging.begun["hung"], hanging.done["hung"]) == (2, 0)
    assert replay.is_alive()
    hanging.may_end.set()
    replay.join(WAIT)
    assert hanging.done == {"hung": 10, "good": 12, "": 12}
    assert list(tmp_path.iterdir()) == []


def test_what_comes_due_meanwhile_does_not_wait(tmp_path: Path, hanging: Hanging) -> None:
    """A second look replays it, and nothing is done twice."""
    fill(tmp_path, "hung", 3)
    spool = Spool(tmp_path)
    first = threading.Thread(target=spool.replay, args=(hanging,))
    first.start()
    hanging.wait(hanging.begun, hung=2)
    fill(tmp_path, "good", 1, 3)
    assert spool.replay(hanging)
    assert hanging.done == {"good": 1}
    assert not spool.replay(hanging)
    hanging.may_end.set()
    first.join(WAIT)
    assert hanging.done == {"hung": 3, "good": 1}
