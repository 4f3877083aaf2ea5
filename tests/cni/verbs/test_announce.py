"""Announcements: frames that a neighbour understands, from the right interface, so often as is due."""

import os
import socket
import subprocess
import threading
import time
from contextlib import suppress

import pytest

from cni.verbs import announce
from cni.verbs.announce import Announcer
from sriovdp.kernel import netns
from sriovdp.state.journal import Attachment, Original

MAC = bytes.fromhex("020000000001")
ATTACHMENT = Attachment(
    container_id="c1", ifname="net1", network="net-a", device="0000:01:00.1", mode="kernel",
    original=Original("igbvf", None, "eth1"), netns="/run/netns/pod", netns_dev=0, netns_ino=0, boot_id="",
)  # fmt: skip


@pytest.mark.netns
@pytest.mark.parametrize(("family", "address"), [("-4", "10.0.0.2"), ("-6", "fd00::2")])
def test_neighbour_learns_the_new_mac(family: str, address: str) -> None:
    """A kernel that knows the address at an old MAC takes the new one from the announcement."""
    script = f"""
        ip link add va address 02:00:00:00:00:01 type veth peer name vb && ip link set va up && ip link set vb up
        ip address add 10.0.0.1/24 dev vb && ip address add fd00::1/64 dev vb nodad
        ip {family} neigh add {address} lladdr 02:00:00:00:00:99 dev vb nud stale
        .venv/bin/python -c '
import socket
from cni.verbs import frames
with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as packets:
    packets.bind(("va", 0))
    frames.send(packets, frames.build_announcement("{address}/24", bytes.fromhex("020000000001")))'
        for _ in 1 2 3 4 5 6 7 8 9; do ip {family} neigh show dev vb | grep -q :00:01 && break; sleep 0.1; done
        ip {family} neigh show dev vb
    """
    shown = subprocess.run(["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert f"{address} lladdr 02:00:00:00:00:01" in shown


@pytest.mark.netns
def test_address_under_detection_is_not_advertised() -> None:
    """A NIC may send the frame back to us, and the kernel would take its own address for another host's."""
    name = "announce"
    script = f"""
        ip netns add {name} && ip -n {name} link add va address {MAC.hex(":")} type veth peer name vb
        ip netns exec {name} sysctl -qw net.ipv6.conf.va.dad_transmits=100
        ip -n {name} link set vb up && ip -n {name} link set va up && ip -n {name} address add 10.0.0.2/24 dev va
        ip -n {name} address add fd00::2/64 dev va && ip -n {name} address add fd00::3/64 dev va nodad
    """

    def listen() -> list[str]:
        heard = []
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as packets, suppress(TimeoutError):
            packets.bind(("vb", 3))
            packets.settimeout(0.5)
            assert announce._send("va", MAC.hex(":"), ("10.0.0.2/24", "fd00::2/64", "fd00::3/64"))
            while frame := packets.recv(2048):
                if frame[12:14] == b"\x08\x06":
                    heard.append("ARP")
                elif frame[54] == 136:
                    heard.append(socket.inet_ntop(socket.AF_INET6, frame[62:78]))
        return heard

    subprocess.run(["sh", "-ec", script], check=True)
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        assert netns.run_in(fd, listen) == ["ARP", "fd00::3"]
    finally:
        os.close(fd)
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.netns
def test_only_the_interface_that_was_attached_is_announced() -> None:
    """One that is gone, is down, or is another with the same name, is not; one without a carrier differs."""
    name, mac = "announce", MAC.hex(":")
    script = f"""
        ip netns add {name} && ip -n {name} link add va address {mac} type veth peer name vb
        ip -n {name} link add down address {mac} type veth peer name other && ip -n {name} link set va up
    """
    subprocess.run(["sh", "-ec", script], check=True)
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)

    def send(ifname: str, mac: str) -> bool | None:
        return netns.run_in(fd, announce._send, ifname, mac, ("10.0.0.2/24",))

    try:
        assert [send("none", mac), send("down", mac), send("va", "02:00:00:00:00:02")] == [None, None, None]
        assert send("va", mac) is False
        subprocess.run(["ip", "-n", name, "link", "set", "vb", "up"], check=True)
        assert send("va", mac) is True
    finally:
        os.close(fd)
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.parametrize(
    ("answers", "rounds"),
    [([True] * 4, 2), ([False, True, False, True], 4), ([False] * 4, 4), ([None], 1), ([True, None], 2)],
)
def test_rounds_end_when_enough_were_heard(
    monkeypatch: pytest.MonkeyPatch, answers: list[bool | Exception | None], rounds: int
) -> None:
    """Two with a carrier are enough, four without are too, and an interface that has gone ends them."""
    done = _record_rounds(monkeypatch, answers, pauses=(0, 0, 0, 0))
    _announce_to_the_end(ATTACHMENT)

    assert len(done) == rounds


def test_one_thread_announces_all_when_each_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes while the thread waits for another's later round is not kept waiting."""
    done = _record_rounds(monkeypatch, [True] * 4, pauses=(0, 0.3))
    announcer = Announcer()
    announcer.start(ATTACHMENT, ["10.0.0.1/24"])
    while not done:
        time.sleep(0.001)
    announcer.start(ATTACHMENT, ["10.0.0.2/24"])
    thread = announcer._thread
    assert thread
    _wait_for_the_end(announcer)

    assert [address for _, address in done] == ["10.0.0.1/24", "10.0.0.2/24"] * 2
    assert {found for found, _ in done} == {thread}


def test_attachment_that_fails_keeps_no_other_from_being_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by an unforeseen error."""
    done = _record_rounds(monkeypatch, [RuntimeError("unheard of"), True, True], pauses=(0, 0))
    _announce_to_the_end(ATTACHMENT, ATTACHMENT)

    assert len(done) == 3


def _record_rounds(
    monkeypatch: pytest.MonkeyPatch, answers: list[bool | Exception | None], pauses: tuple[float, ...]
) -> list[tuple[threading.Thread, str]]:
    """Let each round answer what is said here; gives a list of the thread and the first address of each."""
    done: list[tuple[threading.Thread, str]] = []

    def once(attachment: Attachment, addresses: tuple[str, ...]) -> bool | None:
        answer = answers[len(done)]
        done.append((threading.current_thread(), addresses[0]))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(announce, "announce_once", once)
    monkeypatch.setattr(announce, "_PAUSES", pauses)
    return done


def _announce_to_the_end(*attachments: Attachment) -> None:
    announcer = Announcer()
    for attachment in attachments:
        announcer.start(attachment, ["10.0.0.2/24"])
    _wait_for_the_end(announcer)


def _wait_for_the_end(announcer: Announcer) -> None:
    """Until nothing is due any more; a thread that died of something is no end."""
    if thread := announcer._thread:
        thread.join(10)
    assert announcer._thread is None
