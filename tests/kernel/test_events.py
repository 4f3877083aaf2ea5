"""The kernel's events: real messages of this machine, and what of them matters."""

import asyncio
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from sriovdp.kernel.events import KernelEvents
from sriovdp.reasons import REGULAR, Reasons

NOW, SOON = 0.0, 5.0
PF = "/devices/pci0000:00/0000:00:04.0"
VF = f"{PF}/0000:01:10.0"


class Noted(list[tuple[str, float]]):
    """The reasons that were noted, each with how soon it wants its look."""

    def note(self, reason: str, within: float) -> None:
        """Keep it."""
        self.append((reason, within))


@pytest.fixture
def noted() -> Noted:
    """None yet."""
    return Noted()


@pytest.fixture
def events(noted: Noted) -> KernelEvents:
    """Not started."""
    return KernelEvents(noted.note)


@pytest.mark.parametrize(
    ("subsystem", "path", "within"),
    [
        ("pci", PF, [NOW]),
        ("vfio", "/devices/virtual/vfio/12", [NOW]),
        ("module", "/module/iavf", [NOW]),
        ("net", f"{PF}/net/eth1", [NOW]),
        ("net", f"{PF}/virtio0/net/eth1", [NOW]),
        ("net", "/devices/pci0000:00/0000:00:04.0/mlx5_core.sf.4/net/eth1", [NOW]),
        ("net", f"{VF}/net/eth5", [SOON]),
        ("net", "/devices/virtual/net/veth1", []),
    ],
)
def test_uevents(events: KernelEvents, noted: Noted, subsystem: str, path: str, within: list[float]) -> None:
    """Devices and their drivers matter, veths do not; a VF's netdev, which comes and goes with pods, can wait."""
    events.vfs = {"0000:01:10.0"}
    events.judge_uevent("add", subsystem, path)
    assert [when for _, when in noted] == within


def _write_link(kind: int, index: int, flags: int) -> bytes:
    return struct.pack("=IHHIIBxHiII", 32, kind, 0, 0, 0, 0, 1, index, flags, 0)


def test_several_links_in_a_datagram(events: KernelEvents, noted: Noted) -> None:
    """One of ours among others is found, and a cut message harms nothing."""
    other, ours = _write_link(16, 7, 0), _write_link(16, 42, 0)
    events.links = {42}
    for message in (other + other, other + ours[:20], b"\0" * 40):
        events.judge_links(message)
    assert noted == []
    events.judge_links(other + ours)
    assert noted == [("rtnetlink: link 42 changed", NOW)]


def test_link_that_is_as_before_can_wait(events: KernelEvents, noted: Noted) -> None:
    """As when a VF of a PF is set; flags that changed cannot, and a link that goes."""
    events.links = {42}
    for kind, flags in ((16, 3), (16, 3), (16, 2), (16, 2), (17, 2)):
        events.judge_links(_write_link(kind, 42, flags))
    assert [within for _, within in noted] == [NOW, SOON, NOW, SOON, NOW]


class Failing:
    """A source whose messages were lost, once."""

    def __init__(self) -> None:
        self.failures = [OSError(105, "No buffer space available")]

    def recv(self, _: int) -> bytes:
        """As a socket does."""
        raise self.failures.pop() if self.failures else BlockingIOError

    def poll(self, timeout: float) -> Any:
        """As a monitor of pyudev does."""
        if self.failures:
            raise self.failures.pop()


def test_lost_messages_count(events: KernelEvents, noted: Noted) -> None:
    """Nobody knows what they were."""
    events._read_links(Failing())  # type: ignore[arg-type]
    events._read_uevents(Failing())
    assert noted == [
        ("messages of rtnetlink were lost (No buffer space available)", NOW),
        ("uevents were lost (No buffer space available)", NOW),
    ]


async def test_no_libudev(
    events: KernelEvents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with the cure, and known; links are listened to all the same."""

    def fail() -> None:
        raise ImportError("No library named udev")

    monkeypatch.setattr("sriovdp.kernel.events._open_monitor", fail)
    await events.start()
    assert events._listener is not None
    assert not events.is_listening
    events.stop()
    assert "No library named udev; install libudev" in caplog.text


@pytest.fixture
def links() -> Iterator[list[str]]:
    """Names of two interfaces of this machine that are up."""
    names = [f"sdp{os.getpid() % 10000}{letter}" for letter in "ab"]
    for name in names:
        subprocess.run(["ip", "link", "add", name, "up", "type", "bridge"], check=True)
    yield names
    for name in names:
        subprocess.run(["ip", "link", "delete", name], check=True)


@pytest.mark.netns
async def test_link_of_this_machine(links: list[str]) -> None:
    """A real interface that goes down is reported, and another one is not."""
    reasons = Reasons()
    events = KernelEvents(reasons.note)
    events.links = {socket.if_nametoindex(links[0])}
    await events.start()
    assert events.is_listening
    await asyncio.to_thread(subprocess.run, ["ip", "link", "set", links[1], "down"], check=True)
    assert await reasons.wait(0.3) == REGULAR
    await asyncio.to_thread(subprocess.run, ["ip", "link", "set", links[0], "down"], check=True)
    assert f"link {socket.if_nametoindex(links[0])} changed" in await reasons.wait(30)
    events.stop()
    events.stop()  # a second stop has nothing to do
