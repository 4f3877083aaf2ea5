"""What provisioning asks of rtnetlink: on interfaces of this machine with pyroute2 as the oracle, GUIDs with C."""

import errno
import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from sriovdp.errors import KernelError
from sriovdp.kernel import netns, pf_netlink
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.pf_netlink import PfNetlink

T = TypeVar("T")
NAME = "pf-netlink"
GUID = "02:11:22:33:44:55:66:77"
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


@pytest.fixture
def inside() -> Iterator[Callable[[Callable[[], T]], T]]:
    """Runs a function in a namespace with the bridge `br1`."""
    subprocess.run(["ip", "netns", "add", NAME], check=True)
    subprocess.run(["ip", "-n", NAME, "link", "add", "br1", "type", "bridge"], check=True)
    fd = os.open(f"/run/netns/{NAME}", os.O_RDONLY)
    yield lambda function: netns.run_in(fd, function)
    os.close(fd)
    subprocess.run(["ip", "netns", "del", NAME], check=True)


@pytest.mark.netns
def test_interfaces_and_addresses_are_those_of_pyroute2(inside: Callable[[Callable[[], None]], None]) -> None:
    """All that a snapshot takes from them; and a change of each kind is done, or refused with the kernel's reason."""
    for address in ("192.0.2.7/24", "2001:db8::7/64"):
        subprocess.run(["ip", "-n", NAME, "address", "add", address, "dev", "br1"], check=True)

    def compare() -> None:
        with PfNetlink() as netlink, Netlink() as oracle:
            assert netlink.devices() == oracle.devices()
            bridge = netlink.find("br1")
            assert bridge
            assert bridge == oracle.find("br1")
            assert netlink.find("br2") is None
            netlink.set_link(bridge.ifindex, "setting up", state="up")
            netlink.set_link(bridge.ifindex, "setting MTU", mtu=1400)
            assert netlink.addresses(bridge.ifindex) == oracle.addresses(bridge.ifindex)
            assert {"192.0.2.7/24", "2001:db8::7/64"} <= set(netlink.addresses(bridge.ifindex))
            assert (netlink.vf_settings(bridge.ifindex), netlink.guids(bridge.ifindex)) == ({}, {})
            changed = oracle.find("br1")
            assert changed
            assert (changed.up, changed.mtu) == (True, 1400)
            with pytest.raises(KernelError, match="setting trust True of VF 1 failed: Operation not supported"):
                netlink.set_vf(bridge.ifindex, 1, {"trust": True})
            with pytest.raises(KernelError, match=f"setting the node GUID of VF 1 to {GUID} failed: Operation not sup"):
                netlink.set_guids(bridge.ifindex, 1, GUID)

    inside(compare)


def test_the_guid_structure_is_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent is what the kernel's own header makes of it, in a request for each GUID; so is what is read."""
    (tmp_path / "guid.c").write_text(HEADER)
    subprocess.run(["cc", "-o", tmp_path / "guid", tmp_path / "guid.c"], check=True)
    shown = subprocess.run([tmp_path / "guid"], check=True, capture_output=True)
    info_list, info, node, port, value = json.loads(shown.stdout)
    sent: list[bytes] = []
    monkeypatch.setattr(pf_netlink._Socket, "_change", lambda _, kind, flags, body, what: sent.append(body))

    def wrap(kind: int, data: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(data), kind) + data

    with PfNetlink() as netlink:
        netlink.set_guids(7, 3, GUID)
        nested = [wrap(info | 0x8000, wrap(kind, bytes.fromhex(value))) for kind in (node, port)]
        head = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 7, 0, 0)
        assert sent == [head + wrap(info_list | 0x8000, part) for part in nested]
        told = wrap(info, wrap(node, bytes.fromhex(value)) + wrap(port, bytes.fromhex(value)))
        other = wrap(info, wrap(1, bytes(36)))  # a VF of Ethernet
        monkeypatch.setattr(pf_netlink._Socket, "_get", lambda *_: head + wrap(info_list, other + told))
        assert netlink.guids(7) == {3: (GUID, GUID)}


def test_a_busy_device_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while; a refusal is told at once."""
    monkeypatch.setattr(pf_netlink, "_BUSY_PAUSE", 0.0)
    answers = [errno.EBUSY, errno.EAGAIN, 0]

    def refuse(*_: object) -> None:
        if number := answers.pop(0):
            raise KernelError("it is busy", errno=number)

    monkeypatch.setattr(pf_netlink._Socket, "set_vf", refuse)
    with PfNetlink() as netlink:
        netlink.set_vf(7, 3, {"trust": True})
        assert answers == []
        answers += [errno.EPERM, 0]
        with pytest.raises(KernelError):
            netlink.set_vf(7, 3, {"trust": True})
        assert answers == [0]
        answers[:] = [errno.EBUSY, 0]
        monkeypatch.setattr(pf_netlink, "_BUSY_TIMEOUT", -1.0)
        with pytest.raises(KernelError):
            netlink.set_vf(7, 3, {"trust": True})
