"""The way home, in real network namespaces of this machine with a veth for the VF."""

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from cni.vf import homecoming
from cni.vf.homecoming import fetch_home
from cni.vf.names import restore_names
from sriovdp.kernel import netns
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl import link as links
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Attachment, Original

pytestmark = pytest.mark.netns

VF = "0000:01:10.2"


def run(command: str) -> str:
    """Run a command line of iproute2."""
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout


@dataclass
class Pod:
    """A sandbox with a VF in it, which the host knows as `name`."""

    namespace: str
    name: str
    fd: int
    attachment: Attachment

    def ip(self, command: str) -> str:
        """Run `ip` in the sandbox."""
        return run(f"ip -n {self.namespace} {command}")

    def look(self) -> Link | None:
        """The VF on the host."""
        with Netlink() as netlink:
            return next((link for link in netlink.links() if link.parent == VF), None)

    def fetch(self, *, sandbox: bool = True) -> bool:
        """Bring the VF home."""
        return fetch_home(Sysfs(), self.attachment, self.fd if sandbox else None)


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    """A pod with a veth that the kernel, as far as this process sees it, has below the VF's address."""
    suffix = uuid.uuid4().hex[:7]
    mac = f"02:00:{suffix[:2]}:{suffix[2:4]}:{suffix[4:6]}:01"
    read = links.read_link

    def read_link(message: bytes) -> Link:
        link = read(message)
        return replace(link, parent=VF) if link.mac == mac and not link.lower else link

    def find_netdev(*_: Any) -> str | None:
        with Netlink() as netlink:
            return next((link.name for link in netlink.links() if link.parent == VF), None)

    run(f"ip netns add pod{suffix}")
    run(f"ip netns add away{suffix}")
    run(f"ip link add va{suffix} address {mac} type veth peer name vb{suffix} netns away{suffix}")
    run(f"ip link set va{suffix} netns pod{suffix} name net1")
    monkeypatch.setattr(links, "read_link", read_link)
    monkeypatch.setattr(homecoming, "find_netdev", find_netdev)
    monkeypatch.setattr(homecoming, "list_parents", lambda *_: {VF})
    fd = os.open(f"/run/netns/pod{suffix}", os.O_RDONLY)
    original = Original("igbvf", None, f"va{suffix}", (f"alt{suffix}",), mac, 1500)
    known = netns.identify(fd)
    place = (f"/run/netns/pod{suffix}", known.dev, known.ino, "")
    yield Pod(f"pod{suffix}", f"va{suffix}", fd, Attachment("c1", "net1", "net", VF, "kernel", original, *place))
    os.close(fd)
    for name in (f"pod{suffix}", f"away{suffix}"):
        subprocess.run(["ip", "netns", "del", name], check=False)


def test_names_of_the_pod_stay_behind(pod: Pod) -> None:
    """One is the host's too, one is free; neither comes along, nor keeps the VF there."""
    taken = f"{pod.name}x"
    run(f"ip link add {taken} type bridge")
    try:
        for altname in (taken, f"{pod.name}y"):
            pod.ip(f"link property add dev net1 altname {altname}")
        assert pod.fetch()
    finally:
        run(f"ip link del {taken}")
    found = pod.look()
    assert found
    assert (found.name, found.altnames) == (pod.name, ())


@pytest.mark.parametrize("as_altname", [False, True])
def test_a_name_that_the_host_has_given_away_keeps_nothing(pod: Pod, as_altname: bool) -> None:
    """The VF's own name or altname of old belongs to another interface by now: the VF is home under a free one."""
    lost = pod.attachment.original.altnames[0] if as_altname else pod.name
    if as_altname:
        pod.ip(f"link property add dev net1 altname {lost}")
    run(f"ip link add {lost} type bridge")
    try:
        assert pod.fetch()
        found = pod.look()
        assert found
        with Netlink() as netlink:
            restore_names(netlink, found, pod.name, pod.attachment.original.altnames, "v0")
            found = pod.look()
            assert found
            assert found.name == (pod.name if as_altname else f"dev{found.ifindex}")
            assert found.altnames == (() if as_altname else pod.attachment.original.altnames)
    finally:
        run(f"ip link del {lost}")


def test_what_is_stacked_on_it_goes(pod: Pod) -> None:
    """The kernel would leave it in the sandbox, on what is the next pod's VF by then."""
    pod.ip("link add link net1 name m1 type macvlan")
    pod.ip("link add link m1 name m2 type macvtap")
    pod.ip("link add link net1 name x1 type vxlan id 5 dev net1 dstport 4789")
    assert pod.fetch()
    assert [line.split(":")[1].strip() for line in pod.ip("-o link").splitlines()] == ["lo"]


def test_a_vf_that_is_elsewhere_is_not_waited_for(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod moved it on: that is reported at once."""
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
    pod.ip(f"link set net1 netns away{pod.namespace.removeprefix('pod')}")
    assert not pod.fetch()


def test_a_dying_sandbox_gives_it_up(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is awaited for a moment, and no longer."""
    moments = iter(range(1000))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    assert not pod.fetch(sandbox=False)
    assert next(moments) <= 4
