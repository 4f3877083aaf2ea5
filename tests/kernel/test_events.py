"""The kernel's events: real messages of this machine, and what of them matters."""

import asyncio
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator

import pytest

from sriovdp.kernel.events import KernelEvents, Pace


@pytest.fixture
def events() -> KernelEvents:
    """Not started."""
    return KernelEvents()


@pytest.mark.parametrize(
    ("message", "matters"),
    [
        (b"bind@/devices/pci0000:00/0000:00:1a.0\0ACTION=bind\0SUBSYSTEM=pci\0SEQNUM=1\0", True),
        (b"add@/devices/virtual/vfio/12\0ACTION=add\0SUBSYSTEM=vfio\0", True),
        (b"add@/devices/virtual/net/veth1\0ACTION=add\0SUBSYSTEM=net\0", False),
        (b"", False),
    ],
)
def test_uevents(events: KernelEvents, message: bytes, matters: bool) -> None:
    """Devices and their drivers matter, the veths of ordinary pods do not."""
    assert events._is_uevent(message) == matters


def test_several_links_in_a_datagram(events: KernelEvents) -> None:
    """One of ours among others is found, and a cut message harms nothing."""
    other, ours = (struct.pack("=IHHIIBxHiII", 32, 16, 0, 0, 0, 0, 1, index, 0, 0) for index in (7, 42))
    events.links = {42}
    assert events._is_of_link(other + ours)
    assert not events._is_of_link(other + other)
    assert not events._is_of_link(other + ours[:20])
    assert not events._is_of_link(b"\0" * 40)


def test_link_that_is_as_before_does_not_matter(events: KernelEvents) -> None:
    """As when a VF of a PF is set; flags that changed do, and a link that goes."""

    def tell(kind: int, flags: int) -> bool:
        return events._is_of_link(struct.pack("=IHHIIBxHiII", 32, kind, 0, 0, 0, 0, 1, 42, flags, 0))

    events.links = {42}
    assert [tell(16, 3), tell(16, 3), tell(16, 2), tell(16, 2), tell(17, 2)] == [True, False, True, False, True]


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
async def test_link_of_this_machine(events: KernelEvents, links: list[str]) -> None:
    """A real interface that goes down is reported, and another one is not."""
    events.links = {socket.if_nametoindex(links[0])}
    events.start()
    await asyncio.to_thread(subprocess.run, ["ip", "link", "set", links[1], "down"], check=True)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(events.event.wait(), 0.3)
    await asyncio.to_thread(subprocess.run, ["ip", "link", "set", links[0], "down"], check=True)
    await asyncio.wait_for(events.event.wait(), 30)
    events.stop()
    events.stop()  # a second stop has nothing to do


def test_few_events_are_followed_at_once_and_a_storm_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that flaps for a day causes as many looks as a day has pauses."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = Pace(burst=3, pause=2.0)
    assert [pace.take() for _ in range(3)] == [0, 0, 0]
    looks = 0
    end = now + 600
    while now < end:
        now += pace.take()
        looks += 1
    assert looks in range(298, 303)
    now += 3600
    assert [pace.take() for _ in range(3)] == [0, 0, 0]
    assert pace.take() > 0
