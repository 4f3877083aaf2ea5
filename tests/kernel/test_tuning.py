"""What a netdev carries from one namespace to another, read from and set on a veth of this machine."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sriovdp.errors import KernelError
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.tuning import Tuning, encode_tuning, find_changes, select_restorable
from sriovdp.kernel.tuning import read_tuning

pytestmark = pytest.mark.netns

SET_BACK = {
    "ip link set {} txqueuelen 7": "txqueuelen",
    "ip link set {} alias hello": "alias",
    "ip link set {} group 77": "group",
    "ip link set {} gso_max_size 2000": "gso_max_size",
    "ip link set {} gso_max_segs 3": "gso_max_segs",
    "ip link set {} gro_max_size 3000": "gro_max_size",
    "ip link set {} mode dormant": "linkmode",
    "ip link set {} broadcast ff:ff:ff:ff:ff:fe": "broadcast",
}
FOUND = {
    "ip link set {} arp off": "flags",
    "ip link set {} multicast off": "flags",
    "ethtool -K {} tx off": "features",
    "ethtool -L {} rx 1 tx 1": "channels",
    f"{sys.executable} -m tests.lab.bpf xdp {{}}": "XDP program",
    f"{sys.executable} -m tests.lab.bpf tcx {{}}": "tcx ingress",
    "echo 7000 >/sys/class/net/{}/gro_flush_timeout": "gro_flush_timeout",
    "echo 1 >/sys/class/net/{}/queues/rx-0/rps_cpus": "rx-0",
    "echo 1 >/sys/class/net/{}/queues/tx-0/xps_cpus": "tx-0",
}


@pytest.fixture
def name() -> Iterator[str]:
    """A veth with two queues, which it can also do without."""
    name = f"tv{uuid.uuid4().hex[:8]}"
    queues = ["numrxqueues", "2", "numtxqueues", "2"]
    subprocess.run(["ip", "link", "add", name, *queues, "type", "veth", "peer", "name", f"{name}p"], check=True)
    subprocess.run(["ethtool", "-L", name, "rx", "2", "tx", "2"], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=True)


def read(name: str) -> tuple[int, Tuning]:
    """The index and the tuning of an interface."""
    with Netlink() as netlink:
        found = read_tuning(netlink, f"/sys/class/net/{name}")
    assert found
    return found[0].ifindex, found[1]


def change(command: str, name: str) -> None:
    """Run a command that changes something."""
    subprocess.run(["sh", "-c", command.format(name)], check=True)


@pytest.mark.parametrize("command", [*SET_BACK, *FOUND])
def test_each_change_is_found_by_its_name(name: str, command: str) -> None:
    """Nothing else differs, but for what the kernel couples with it; nothing differs without a change."""
    _, before = read(name)
    assert find_changes(read(name)[1], before) == {}
    change(command, name)
    changes = find_changes(read(name)[1], before)
    assert (SET_BACK | FOUND)[command] in changes
    assert set(changes) <= {(SET_BACK | FOUND)[command], *_coupled(command)}


def _coupled(command: str) -> set[str]:
    if "gso_max_size" in command or "gro_max_size" in command:
        return {"gso_ipv4_max_size", "gro_ipv4_max_size"}
    return (
        {"tx-1", "rx-1", "receive hashing"} if "ethtool -L" in command else {"features"} if "xdp" in command else set()
    )


def test_one_request_sets_all_of_it_back(name: str) -> None:
    """As far as rtnetlink can; what it cannot is left over."""
    ifindex, before = read(name)
    for command in (*SET_BACK, "ethtool -K {} tx off"):
        change(command, name)
    changes = select_restorable(find_changes(read(name)[1], before))
    assert {*SET_BACK.values()} <= set(changes)
    with Netlink() as netlink:
        netlink.set_tuning(ifindex, changes)
    assert set(find_changes(read(name)[1], before)) == {"features"}


def test_what_cannot_be_read_is_an_error_or_nothing(name: str, tmp_path: Path) -> None:
    """An interface that is gone; sysfs without it."""
    with Netlink() as netlink:
        assert read_tuning(netlink, "/sys/class/net/absent") is None
        with pytest.raises(KernelError, match=f"reading {tmp_path}/{name} failed"):
            read_tuning(netlink, f"{tmp_path}/{name}")


@pytest.mark.parametrize("damaged", [{"group": "x"}, {"group": None}, {"broadcast": "x"}, {"group": "-1"}])
def test_a_damaged_record_is_a_kernel_error(damaged: dict[str, str]) -> None:
    """A journal may hold anything."""
    with pytest.raises(KernelError, match="is no tuning"):
        encode_tuning(1, damaged)
