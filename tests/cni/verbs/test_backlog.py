"""Owed releases in the background: none keeps another, and the ones that fail are tried ever less often."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cni.ipam.delegate import IpamError
from cni.verbs.backlog import Backlog
from cni.verbs.recovery import Recovery
from sriovdp.errors import BusyError, DeviceError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Attachment, Journal, Original, read_boot_id
from sriovdp.state.locks import Locks


class Script(Recovery):
    """A recovery whose parts end as a test says, and which are written down."""

    act: Callable[[str, Attachment], None]
    seen: list[tuple[str, str]]

    def bring_back(self, listed: Attachment) -> None:
        """The VF's part."""
        self.seen.append(("VF", listed.container_id))
        self.act("VF", listed)

    def free(self, listed: Attachment) -> None:
        """The addresses' part."""
        self.seen.append(("addresses", listed.container_id))
        self.act("addresses", listed)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """It does nothing, as if somebody else was at it."""
    journal = Journal(tmp_path / "journal")
    made = Script(Sysfs(tmp_path / "sys"), journal, Locks(journal.locks))

    def is_busy(part: str, entry: Attachment) -> None:
        raise BusyError(f"{part} of {entry.key}")

    object.__setattr__(made, "act", is_busy)
    object.__setattr__(made, "seen", [])
    return made


def owe(journal: Journal, number: int, *, released: bool = False, plugin: str = "host-local") -> Attachment:
    """Write down a release that is owed."""
    entry = Attachment(
        container_id=f"c{number}",
        ifname="net1",
        network="net-a",
        device=f"0000:01:{number:02x}.0",
        mode="kernel",
        original=Original("igbvf", None, "eth1"),
        netns="/run/netns/gone",
        netns_dev=0,
        netns_ino=0,
        boot_id=read_boot_id(),
        config={"name": "net-a", "ipam": {"type": plugin}},
        phase="releasing",
        released=released,
    )
    journal.write_attachment(entry)
    return entry


def act_as(script: Script, act: Callable[[str, Attachment], None]) -> None:
    """Let each part end so."""
    object.__setattr__(script, "act", act)


def settle(backlog: Backlog, ended: threading.Event) -> None:
    """Wait for all that is being tried."""
    while backlog.is_working:
        assert ended.wait(30), backlog.report()
        ended.clear()


def test_plugin_that_hangs_keeps_two_threads(script: Script) -> None:
    """The addresses of other plugins are freed, and each VF comes back, while it does."""
    go, hanging, ended = threading.Event(), threading.Semaphore(0), threading.Event()

    def act(part: str, entry: Attachment) -> None:
        if part == "addresses" and entry.network == "slow":
            hanging.release()
            assert go.wait(30)
        script.journal.remove_attachment(entry)

    act_as(script, act)
    for number in range(12):
        entry = owe(script.journal, number, released=True, plugin="whereabouts")
        script.journal.write_attachment(replace(entry, network="slow"))
    for number in range(12, 15):
        owe(script.journal, number, released=True)
        owe(script.journal, number + 10)
    backlog = Backlog(script.sysfs, script.journal, lambda: script, ended.set)
    backlog.look()
    deadline = time.monotonic() + 30
    while {f"c{number}" for number in (*range(12, 15), *range(22, 25))} - {container for _, container in script.seen}:
        assert time.monotonic() < deadline, script.seen
        time.sleep(0.01)
    assert [hanging.acquire(timeout=30) for _ in range(2)] == [True, True]
    assert sum(container in {f"c{number}" for number in range(12)} for _, container in script.seen) == 2
    go.set()
    settle(backlog, ended)
    assert script.journal.attachments() == []


@pytest.mark.parametrize("error", [DeviceError("it is stuck"), ZeroDivisionError("never seen"), RecursionError()])
def test_vf_that_fails_is_named_logged_once_and_tried_less_often(
    script: Script, error: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are released; nothing that one entry runs into gets out."""
    bad = owe(script.journal, 1)

    def act(part: str, entry: Attachment) -> None:
        if entry.device == bad.device:
            raise error
        script.journal.remove_attachment(entry)

    act_as(script, act)
    owe(script.journal, 2)
    ended = threading.Event()
    backlog = Backlog(script.sysfs, script.journal, lambda: script, ended.set)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(24 * 60):  # a look in each minute of a day
        now += 60
        backlog.look()
        settle(backlog, ended)
    [found] = backlog.report()
    assert (found.device, found.owner, found.attempts) == (bad.device, bad.owner, script.seen.count(("VF", "c1")))
    assert str(error) in backlog.broken()[bad.device]
    assert 100 < found.attempts < 200, "every ten minutes"
    assert sum(record.levelno >= logging.WARNING for record in caplog.records) == 1

    act_as(script, lambda _, entry: script.journal.remove_attachment(entry))
    now += 3600
    backlog.look()
    settle(backlog, ended)
    assert backlog.report() == []


def test_addresses_that_fail_leave_the_vf_alone(script: Script) -> None:
    """It is another pod's by now."""

    def act(part: str, entry: Attachment) -> None:
        raise IpamError(11, "API server: timeout")

    act_as(script, act)
    owe(script.journal, 1, released=True)
    ended = threading.Event()
    backlog = Backlog(script.sysfs, script.journal, lambda: script, ended.set)
    backlog.look()
    settle(backlog, ended)
    assert backlog.broken() == {}
    assert [(found.device, found.attempts) for found in backlog.report()] == [("", 1)]


def test_what_is_at_work_is_no_failure(script: Script) -> None:
    """An ADD or DEL holds the locks: its VF is not kept from pods, but for the time before the first attempt."""
    owe(script.journal, 1)
    ended = threading.Event()
    backlog = Backlog(script.sysfs, script.journal, lambda: script, ended.set)
    backlog.look()
    settle(backlog, ended)
    assert backlog.report() == []


def test_damaged_file_is_named_and_logged_once(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    """Its VF is kept from pods as long as the file is there."""
    entry = owe(script.journal, 1)
    [path] = (script.journal.locks.parent).glob("attachment-*")
    path.write_text(path.read_text()[:150])
    backlog = Backlog(script.sysfs, script.journal, lambda: script, lambda: None)
    for _ in range(3):
        backlog.look()
        assert entry.device in backlog.broken()
    assert len(caplog.records) == 1
    path.unlink()
    backlog.look()
    assert backlog.report() == []
