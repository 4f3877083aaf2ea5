"""Failure and death after every single change that ADD and DEL make: afterwards all is as it was."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cni.ipam.delegate
import cni.vf.sandbox
from sriovdp.kernel import drivers
from sriovdp.kernel.netlink import Netlink
from sriovdp.state.journal import Journal
from tests.fakes.recovering import recover
from tests.fakes.runtime import CniFailureError, Plugin, Sandbox, make_sandboxes
from tests.lab.faults import Fault, die, fail
from tests.lab.node import LabNode

pytestmark = pytest.mark.lab(hugepages=448)

CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 3
    vfs: [{range: "0", driver: kernel}, {range: "1", driver: vfio-pci}, {range: "2", driver: igb_uio}]
"""

# every function that changes something: on the NIC, in the sandbox, on the disk, at the IPAM plugin
CHANGES: tuple[tuple[object, str], ...] = (
    (Netlink, "set_vf"),
    (Netlink, "set_link"),
    (Netlink, "add_address"),
    (Netlink, "add_route"),
    (Netlink, "add_altname"),
    (drivers, "write_text"),
    (Journal, "write_attachment"),
    (Journal, "remove_attachment"),
    (cni.vf.sandbox, "_set_sysctl"),
    (cni.ipam.delegate.IpamCall, "_finish"),
)

KERNEL = {"vlan": 210, "vlanQoS": 3, "mac": "02:00:00:00:aa:01", "max_tx_rate": 100}
POD = {"mtu": 9000, "promisc": True, "trust": "on", "mac": "02:00:00:00:aa:02", "spoofchk": "off"}
CASES = [
    pytest.param(0, KERNEL, id="kernel"),
    pytest.param(0, POD, id="trusted"),
    pytest.param(0, {"driver": "vfio-pci", "vlan": 210}, id="bound-to-vfio"),
    pytest.param(1, {"driver": "kernel", "mac": "02:00:00:00:aa:03"}, id="bound-to-kernel"),
]


@pytest.fixture
def pod() -> Iterator[Sandbox]:
    """One sandbox."""
    with make_sandboxes() as create:
        yield create("pod-a")


@pytest.fixture
def bench(node: LabNode, pod: Sandbox, tmp_path: Path) -> "Bench":
    """The node as it was before the test."""
    return Bench(node, pod, tmp_path)


class Bench:
    """A plugin, a sandbox, and how all was before."""

    def __init__(self, node: LabNode, pod: Sandbox, root: Path) -> None:
        self.node, self.pod, self.root = node, pod, root
        self.plugin = Plugin(root)
        self.before = node.look()

    def config(self, index: int, keys: dict[str, Any]) -> dict[str, Any]:
        """A network with two addresses and a route."""
        ranges = [[{"subnet": "10.56.217.0/24"}], [{"subnet": "fd00:56::/64"}]]
        ipam: dict[str, Any] = {"type": "host-local", "ranges": ranges, "dataDir": str(self.root / "leases")}
        ipam["routes"] = [{"dst": "10.99.0.0/16"}]
        device = self.node.vf(index)
        return {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": device, "ipam": ipam, **keys}

    def check_clean(self, when: str) -> None:
        """Nothing is left: not on the NIC, in the sandbox, in the journal, at the IPAM plugin."""
        assert self.node.look() == self.before, when
        assert self.plugin.attachments() == [], when
        leases = [path.name for path in (self.root / "leases").rglob("*") if path.name[0] in "1f"]
        assert leases == [], when
        assert "net1" not in self.pod.run("ip", "-o", "link").stdout, when

    def run_faulty(self, command: str, config: dict[str, Any], fault: Fault) -> None:
        """Run a verb in a process of its own, in which the fault happens."""
        child = os.fork()
        if child == 0:
            code = 3
            try:
                fault.install(pytest.MonkeyPatch())
                self.plugin.call(command, self.pod, config)
                code = 0
            except CniFailureError:
                code = 1
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        while subprocess.run(["pgrep", "-x", "host-local"], capture_output=True, check=False).returncode == 0:
            time.sleep(0.01)
        self.ended = status


def count_changes(bench: Bench, command: str, config: dict[str, Any]) -> int:
    """How many changes a verb makes when nothing goes wrong."""
    counter = Fault(CHANGES, 0, fail)
    with pytest.MonkeyPatch.context() as patch:
        counter.install(patch)
        bench.plugin.call(command, bench.pod, config)
    return counter.count


@pytest.mark.parametrize(("index", "keys"), CASES)
@pytest.mark.parametrize("act", [fail, die])
def test_add_that_fails_after_any_change_leaves_nothing(
    bench: Bench, index: int, keys: dict[str, Any], act: Callable[[], None]
) -> None:
    """An error is undone before the answer; what a crash left is undone by DEL, or by the agent's next start."""
    config = bench.config(index, keys)
    changes = count_changes(bench, "ADD", config)
    bench.plugin.delete(bench.pod, config)
    bench.check_clean("after a whole life")
    assert changes >= 8
    for at in range(1, changes + 1):
        when = f"after change {at} of {changes}"
        bench.run_faulty("ADD", config, Fault(CHANGES, at, act))
        if act is fail and os.waitstatus_to_exitcode(bench.ended) == 0:
            assert "mac" in keys, f"{when}: only for a MAC there is another way, to bind the driver again"
            assert bench.plugin.call("CHECK", bench.pod, config) == b"", when
        elif act is fail:
            assert os.waitstatus_to_exitcode(bench.ended) == 1, when
            bench.check_clean(when)
        else:
            assert os.waitstatus_to_exitcode(bench.ended) == -signal.SIGKILL, when
            if at % 2:
                assert recover(bench.plugin.recovery) == {}, when
        bench.plugin.delete(bench.pod, config)
        bench.check_clean(f"{when} and DEL")


@pytest.mark.parametrize(("index", "keys"), CASES)
@pytest.mark.parametrize("act", [fail, die])
def test_del_that_fails_after_any_change_is_finished_later(
    bench: Bench, index: int, keys: dict[str, Any], act: Callable[[], None]
) -> None:
    """What a DEL did not finish is finished by the next one, or by the agent."""
    config = bench.config(index, keys)
    bench.plugin.add(bench.pod, config)
    changes = count_changes(bench, "DEL", config)
    assert changes > 4
    for at in range(1, changes + 1):
        bench.plugin.add(bench.pod, config)
        bench.run_faulty("DEL", config, Fault(CHANGES, at, act))
        if at % 2:
            assert recover(bench.plugin.recovery) == {}
        bench.plugin.delete(bench.pod, config)
        bench.check_clean(f"after change {at} of {changes}")
