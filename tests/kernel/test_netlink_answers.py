"""What the netlink client makes of answers that a test cannot get from this kernel: failures, and VFs of a big NIC."""

import errno
import json
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sriovdp.errors import KernelError
from sriovdp.kernel.netlink import Netlink

GUID = "02:11:22:33:44:55:66:77"
LINK = struct.pack("=BxHiII", 0, 1, 7, 0x1003, 0)  # struct ifinfomsg
DONE, NEWLINK, ERROR = 3, 16, 2
HEADER = r"""
#include <linux/if_link.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    struct ifla_vf_guid guid;
    memset(&guid, 0, sizeof(guid));
    guid.vf = 3;
    guid.guid = 0x0211223344556677;
    printf("[%d, %d, %d, %d, \"", IFLA_VFINFO_LIST, IFLA_VF_INFO, IFLA_VF_IB_NODE_GUID, IFLA_VF_IB_PORT_GUID);
    for (unsigned at = 0; at < sizeof(guid); at++)
        printf("%02x", ((unsigned char *)&guid)[at]);
    printf("\"]\n");
}
"""


def attribute(kind: int, data: bytes) -> bytes:
    """An attribute as the kernel writes it: its length has 16 bits, whatever the length is."""
    return struct.pack("=HH", 4 + len(data) & 0xFFFF, kind) + data + bytes(-len(data) % 4)


def list_vfs(count: int, *, guids: bool = False, missing: int = -1) -> bytes:
    """A PF with that many VFs, of which a driver may not report one (net/core/rtnetlink.c, rtnl_fill_vf)."""
    infos = b""
    for index in range(count):
        number = struct.pack("=I", index)
        parts = [(1, number + index.to_bytes(6, "big").ljust(32, b"\0")), (13, number + bytes(32))]
        parts += [(2, struct.pack("=III", index, index % 4096, 0)), (6, bytes(12)), (3, bytes(8)), (4, bytes(8))]
        parts += [(5, bytes(8)), (7, bytes(8)), (9, struct.pack("=II", index, index % 2))]
        if guids:
            parts += [(kind, struct.pack("=I4xQ", index, index)) for kind in (10, 11)]
        parts += [(12, attribute(1, struct.pack("=III", index, index % 4096, 0) + b"\x81\0\0\0"))]
        if index != missing:
            infos += attribute(1, b"".join(attribute(kind, value) for kind, value in parts))
    name, parent = attribute(3, b"eth0\0"), attribute(56, b"0000:01:00.0\0")
    mac = attribute(1, bytes.fromhex("020000000007"))
    return LINK + name + mac + attribute(21, struct.pack("=I", count)) + attribute(22, infos) + parent


class Kernel:
    """Answers requests with what is in `answers`: lists of datagrams, or the errno of a system call."""

    def __init__(self, *answers: list[bytes] | int) -> None:
        self.answers = list(answers)
        self.sent: list[bytes] = []
        self._queue: list[bytes] = []

    def send(self, data: bytes) -> None:
        """As a socket has it."""
        self.sent.append(data)
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        self._queue = list(answer)

    def recvmsg(self, room: int) -> tuple[bytes, list[int], int, None]:
        """As a socket has it; the answer gets the number of the request."""
        data = self._queue.pop(0)
        at = 0
        while at < len(data):
            size = struct.unpack_from("=I", data, at)[0]
            data = data[: at + 8] + self.sent[-1][8:12] + data[at + 12 :]
            at += (size + 3) & ~3
        return data[:room], [], socket.MSG_TRUNC if len(data) > room else 0, None

    def recv(self, *_: int) -> bytes:
        """As a socket has it, without waiting."""
        if not self._queue:
            raise BlockingIOError
        return self._queue.pop(0)

    def close(self) -> None:
        """As a socket has it."""


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    """A message of the kernel."""
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body + bytes(-len(body) % 4)


DONE_WELL = message(DONE, bytes(4))
REFUSAL = {number: message(ERROR, struct.pack("=i", -number) + bytes(16)) for number in (errno.ENOBUFS, errno.EPERM)}


@pytest.fixture
def netlink() -> Iterator[Netlink]:
    """A client whose socket a test replaces."""
    with Netlink() as client:
        yield client


def answer(netlink: Netlink, *answers: list[bytes] | int) -> Kernel:
    """Let a kernel answer a client."""
    kernel = Kernel(*answers)
    netlink._requests.close()
    vars(netlink._requests)["_socket"] = kernel
    return kernel


@pytest.mark.parametrize("failure", [errno.ENOBUFS, [REFUSAL[errno.ENOBUFS]], [message(DONE, b"\x97\xff\xff\xff")]])
@pytest.mark.parametrize(
    ("call", "asked"),
    [
        (lambda netlink: netlink.links(), "listing the interfaces"),
        (lambda netlink: netlink.find("eth0"), "reading eth0"),
        (lambda netlink: netlink.addresses(1), "listing the addresses of lo"),
        (lambda netlink: netlink.routes(1), "listing the routes of lo"),
        (lambda netlink: netlink.vf_settings(1), "reading lo"),
        (lambda netlink: netlink.guids(1), "reading lo"),
        (lambda netlink: netlink.find_with_vf("eth0", 0), "reading eth0"),
        (lambda netlink: netlink.set_vf(1, 2, {"trust": True}), "setting trust True of lo VF 2"),
        (lambda netlink: netlink.set_guids(1, 2, GUID), f"setting the node GUID of lo VF 2 to {GUID}"),
        (lambda netlink: netlink.set_link(1, "setting lo up", state="up"), "setting lo up"),
        (lambda netlink: netlink.add_address(1, "10.0.0.1/8"), "adding address 10.0.0.1/8 to lo"),
        (lambda netlink: netlink.add_route(1, "10.0.0.0/8", None), "adding route 10.0.0.0/8 to lo"),
        (lambda netlink: netlink.add_altname(1, "x"), "adding altname x to lo"),
        (lambda netlink: netlink.remove_altname(1, "x"), "removing altname x of lo"),
    ],
)
def test_every_failure_is_a_kernel_error_that_names_the_device(
    netlink: Netlink, failure: list[bytes] | int, call: Iterator[object], asked: str
) -> None:
    """Of the system call, of the request, and of a list that the kernel gives up."""
    answer(netlink, failure)
    with pytest.raises(KernelError, match=f"^{asked} failed: No buffer space available") as told:
        call(netlink)  # type: ignore[operator]
    assert told.value.errno == errno.ENOBUFS


def test_no_socket_is_a_kernel_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(KernelError, match=r"opening a netlink socket failed: Too many open files .EMFILE."):
        Netlink()


def test_interrupted_list_is_asked_for_again(netlink: Netlink) -> None:
    """A list that says of itself that it changed meanwhile is used in no part; and not forever."""
    link = LINK + attribute(3, b"eth0\0")
    torn = [message(NEWLINK, link, 0x10), message(DONE, bytes(4), 0x10)]
    answer(netlink, torn, [message(NEWLINK, link) + DONE_WELL])
    assert [link.name for link in netlink.links()] == ["eth0"]
    answer(netlink, *[torn] * 5)
    with pytest.raises(KernelError, match="listing the interfaces failed: changes interrupted"):
        netlink.links()


def test_list_without_room_is_asked_for_again(netlink: Netlink) -> None:
    """With more room, after what is left of the first answer was dropped; of one message and of several."""
    vfs = message(NEWLINK, list_vfs(700))
    assert len(vfs) > 128 << 10
    answer(netlink, [vfs], [vfs])
    assert len(netlink.vf_settings(7) or ()) == 700
    netlink._requests._room = 1024
    kernel = answer(netlink, [vfs, message(NEWLINK, LINK), DONE_WELL], *[[vfs, DONE_WELL]] * 4)
    assert [link.name for link in netlink.links()] == ["eth0"]
    assert len(kernel.answers) == 0


@pytest.mark.parametrize(("count", "guids"), [(1, False), (334, False), (335, False), (400, False), (700, True)])
def test_all_vfs_of_a_big_list_are_read(netlink: Netlink, count: int, guids: bool) -> None:
    """Where the length of the list has wrapped too, and what follows the list is not taken from the midst of it."""
    vfs = [message(NEWLINK, list_vfs(count, guids=guids))]
    netlink._requests._room = 1 << 20
    answer(netlink, *[vfs] * 4)
    settings = netlink.vf_settings(7) or {}
    assert {index: (vf.mac[-2:], vf.vlan, vf.trust) for index, vf in settings.items()} == {
        index: (f"{index % 256:02x}", index, index % 2 == 1) for index in range(count)
    }
    assert len(netlink.guids(7)) == (count if guids else 0)
    assert {(vf.node_guid, vf.port_guid) for vf in settings.values()} == (
        {(guid, guid) for guid in ("00:00:00:00:00:00:" + f"{n:04x}"[:2] + ":" + f"{n:04x}"[2:] for n in range(count))}
        if guids
        else {(None, None)}
    )
    found = netlink.find_with_vf("eth0", count - 1)
    assert found
    assert (found[0].name, found[0].mac, found[0].parent) == ("eth0", "02:00:00:00:00:07", "0000:01:00.0")
    assert found[1] == settings[count - 1]
    link = netlink.find("eth0")
    assert link == found[0]


def test_vf_that_the_driver_does_not_report_is_left_out(netlink: Netlink) -> None:
    """All others are there."""
    answer(netlink, [message(NEWLINK, list_vfs(400, missing=3))])
    assert (netlink.vf_settings(7) or {}).keys() == set(range(400)) - {3}


def test_a_driver_without_settings_of_vfs_has_no_list(netlink: Netlink) -> None:
    """One that can read none of its VFs just now has an empty one."""
    answer(netlink, [message(NEWLINK, LINK)], [message(NEWLINK, list_vfs(1, missing=0))])
    assert netlink.vf_settings(7) is None
    assert netlink.vf_settings(7) == {}


def test_list_that_cannot_be_read_is_said_so(netlink: Netlink) -> None:
    """Rather than to take a part of it for all."""
    vfs = bytearray(list_vfs(400))
    place = vfs.index(attribute(1, struct.pack("=I", 100) + (100).to_bytes(6, "big").ljust(32, b"\0")))
    vfs[place + 2] = 99
    answer(netlink, [message(NEWLINK, bytes(vfs))])
    with pytest.raises(KernelError, match=r"reading the VFs of eth0 failed: the kernel's list of 400 VFs .* only 100"):
        netlink.find_with_vf("eth0", 0)


def test_the_guid_structure_is_the_kernels(tmp_path: Path, netlink: Netlink) -> None:
    """What is sent is what the kernel's own header makes of it, in a request for each GUID; so is what is read."""
    (tmp_path / "guid.c").write_text(HEADER)
    subprocess.run(["cc", "-o", tmp_path / "guid", tmp_path / "guid.c"], check=True)
    shown = subprocess.run([tmp_path / "guid"], check=True, capture_output=True)
    info_list, info, node, port, value = json.loads(shown.stdout)
    kernel = answer(netlink, [message(ERROR, bytes(20))], [message(ERROR, bytes(20))])
    netlink.set_guids(7, 3, GUID)
    head = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 7, 0, 0)
    nested = [attribute(info | 0x8000, attribute(kind, bytes.fromhex(value))) for kind in (node, port)]
    assert [sent[16:] for sent in kernel.sent] == [head + attribute(info_list | 0x8000, part) for part in nested]

    told = attribute(
        info,
        attribute(1, struct.pack("=I", 3) + bytes(32))
        + b"".join(attribute(kind, bytes.fromhex(value)) for kind in (node, port)),
    )
    other = attribute(info, attribute(1, bytes(36)))  # a VF of Ethernet
    answer(netlink, [message(NEWLINK, head + attribute(info_list, other + told))])
    assert netlink.guids(7) == {3: (GUID, GUID)}
