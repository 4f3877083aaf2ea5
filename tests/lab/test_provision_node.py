"""Provisioning of a whole node: two PFs, VFs on every kind of driver, pods that must not notice, and the way back."""

import asyncio
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sriovdp.cli.main import cli
from sriovdp.kernel.events import KernelEvents
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import Node as ModelNode
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision.drift import describe_change
from sriovdp.reasons import REGULAR, Reasons
from sriovdp.state.journal import Attachment, Journal, Original, read_boot_id
from sriovdp.state.provisioned import PfState
from tests.lab.node import LabNode, list_pfs
from tests.lab.patience import own_time

pytestmark = pytest.mark.lab(pfs=2, roots=True, wire=True, hugepages=448)

CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 7
    vfs:
      - {range: "0-3", driver: kernel}
      - {range: "4-5", driver: vfio-pci}
      - {range: "6", driver: igb_uio}
"""
THREE = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 3
    vfs:
      - {range: "0", driver: kernel}
      - {range: "1", driver: vfio-pci}
      - {range: "2", driver: igb_uio}
"""


def run(command: str) -> str:
    """Run a command that must succeed."""
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout


class Node(LabNode):
    """The lab's node with its state in a folder of the test."""

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.config.parent / "state"

    @property
    def journal(self) -> Journal:
        """The journal in it."""
        return Journal(self.state / "journal")

    def write(self, text: str) -> None:
        """Write the config."""
        self.config.write_text(text)

    def expect(self, code: int, command: str, *options: str) -> str:
        """Run a command in this process, which must end with this code; gives what it wrote."""
        config = [] if command == "reset" else ["--config", str(self.config)]
        done = CliRunner().invoke(cli, [command, *config, "--state-dir", str(self.state), *options])
        assert done.exit_code == code, f"{command}: {done.exit_code}\n{done.output}\n{done.exception!r}"
        return done.output


def drivers(pf: Path) -> list[str]:
    """Driver of each VF."""
    count = int((pf / "sriov_numvfs").read_text())
    links = [pf / f"virtfn{index}/driver" for index in range(count)]
    return [link.resolve().name if link.exists() else "-" for link in links]


def remove_all_vfs() -> None:
    """No VFs on any PF."""
    for pf in list_pfs():
        (pf / "sriov_numvfs").write_text("0")


def look() -> list[PfState]:
    """All PFs as they are now."""
    return [PfState.of(pf) for pf in take_snapshot(Sysfs()).pfs]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """The node without VFs, its PFs up."""
    node = Node(tmp_path / "config.yaml")
    node.write(CONFIG)
    remove_all_vfs()
    for pf in list_pfs():
        run(f"ip link set {next((pf / 'net').iterdir()).name} up")
    yield node
    remove_all_vfs()


@contextmanager
def pod(node: Node, index: int, name: str, address: str) -> Iterator[str]:
    """A pod that has a kernel VF of the first PF: in the journal, and its netdev in a namespace of its own."""
    netdev, vf = node.netdev(index), node.vf(index)
    run(f"ip netns add {name}")
    entry = Attachment(
        *(
            f"c-{name}",
            "net1",
            "net",
            vf,
            "kernel",
            Original("igbvf", None),
            f"/run/netns/{name}",
            0,
            0,
            read_boot_id(),
        ),
        args=f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}",
        phase="attached",
    )
    node.journal.write_attachment(entry)
    try:
        run(f"ip link set {netdev} netns {name}")
        run(f"ip -n {name} addr add {address}/24 dev {netdev}")
        run(f"ip -n {name} link set {netdev} up")
        yield netdev
    finally:
        subprocess.run(["ip", "-n", name, "link", "set", netdev, "down"], check=False)
        subprocess.run(["ip", "-n", name, "link", "set", netdev, "netns", "1"], check=False)
        run(f"ip netns del {name}")
        node.journal.remove_attachment(entry)


@contextmanager
def pinging(name: str, target: str) -> Iterator[Callable[[], tuple[int, int]]]:
    """A ping that runs; gives a function that ends it and says how many it sent and received."""
    command = ["ip", "netns", "exec", name, "ping", "-i", "0.02", "-W", "2", target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:

        def end() -> tuple[int, int]:
            process.send_signal(2)
            printed, _ = process.communicate(timeout=30)
            found = re.search(r"(\d+) packets transmitted, (\d+) received", printed)
            assert found, printed
            return int(found[1]), int(found[2])

        try:
            yield end
        finally:
            process.kill()


def wait_for_ping(name: str, target: str) -> None:
    """Wait until two pods reach each other."""
    deadline = own_time() + 30
    while subprocess.run(["ip", "netns", "exec", name, "ping", "-c1", "-W1", target], check=False).returncode:
        assert own_time() < deadline, "no ping came through"


def test_two_pfs_from_nothing_to_everything_and_back(node: Node) -> None:
    """Apply, apply again, another driver beside a running ping, a refused shrink, growing when idle, and reset."""
    original = look()
    node.write(CONFIG.replace("numVfs: 7", "numVfs: 6").replace('{range: "6"', '{range: "5"').replace("4-5", "4"))
    assert "done: " in node.expect(4, "apply", "--detailed-exitcode")
    assert [drivers(pf) for pf in list_pfs()] == [["igbvf"] * 4 + ["vfio-pci", "igb_uio"]] * 2
    assert "nothing to do" in node.expect(0, "apply", "--detailed-exitcode")

    with pod(node, 0, "red", "10.77.0.1"), pod(node, 1, "blue", "10.77.0.2"):
        wait_for_ping("red", "10.77.0.2")
        with pinging("red", "10.77.0.2") as end:
            node.write(node.config.read_text().replace('"4", driver: vfio-pci', '"4", driver: igb_uio'))
            node.expect(4, "apply", "--detailed-exitcode")
            assert [drivers(pf) for pf in list_pfs()] == [["igbvf"] * 4 + ["igb_uio"] * 2] * 2
            node.write(node.config.read_text().replace("numVfs: 6", "numVfs: 2").split("    vfs:")[0])
            refused = node.expect(3, "apply", "--all-or-nothing")
            assert "pod default/red (net1)" in refused
            assert "pod default/blue (net1)" in refused
            assert [drivers(pf) for pf in list_pfs()] == [["igbvf"] * 4 + ["igb_uio"] * 2] * 2
            assert "pod default/red (net1)" in node.expect(3, "reset")
            sent, received = end()
        assert received == sent > 0, "no packet was lost"

    node.write(CONFIG)
    node.expect(4, "apply", "--detailed-exitcode")
    assert [drivers(pf) for pf in list_pfs()] == [["igbvf"] * 4 + ["vfio-pci"] * 2 + ["igb_uio"]] * 2
    for pf in list_pfs():
        macs = [entry["address"] for entry in json.loads(run(f"ip -d -j link show {_name(pf)}"))[0]["vfinfo_list"]]
        own = [Path(next((pf / f"virtfn{index}/net").iterdir()), "address").read_text().strip() for index in range(4)]
        assert own == macs[:4], "each kernel VF came up with the admin MAC it was given"
        assert (pf / "sriov_drivers_autoprobe").read_text().strip() == "1"

    node.expect(0, "reset")
    assert look() == original
    assert list(node.state.glob("journal/pf-*")) == []


def _name(pf: Path) -> str:
    return next((pf / "net").iterdir()).name


def test_what_the_kernel_refuses_leaves_everything_as_it_was(node: Node) -> None:
    """A module that is not there; and igb, which refuses to be bound to a VF: no VF is left."""
    node.write(THREE.replace("igb_uio", "no_such_driver"))
    failed = node.expect(1, "apply")
    assert "no_such_driver" in failed
    assert "not found" in failed
    assert [drivers(pf) for pf in list_pfs()] == [[], []]

    node.write(THREE.replace("igb_uio", "igb"))
    failed = node.expect(1, "apply")
    assert "bind to igb failed" in failed
    assert "was brought back to what it was before" in failed
    assert [drivers(pf) for pf in list_pfs()] == [[], []], "the VFs that were created are gone again"


def test_a_failed_change_of_vfs_leaves_them_as_they_were(node: Node) -> None:
    """Igb refuses one VF; the other, whose change had worked, is back on its kernel driver with its MAC."""
    node.write(THREE)
    node.expect(0, "apply")
    before = look()
    node.write(THREE.replace("igb_uio", "igb").replace('"0", driver: kernel', '"0", driver: vfio-pci'))
    assert "was brought back" in node.expect(1, "apply")
    assert look() == before


def test_a_vfio_group_that_testpmd_has_open_is_not_touched(node: Node) -> None:
    """Its VF would change the driver: refused with the process, and done once that has ended."""
    node.write(THREE)
    node.expect(0, "apply")
    before = look()
    node.write(THREE.replace('"1", driver: vfio-pci', '"1", driver: kernel'))
    command = [
        *("stdbuf", "--output=L", "dpdk-testpmd", "-l", "0-1", "-m", "200", "--no-telemetry", "-a", node.vf(1)),
        *("--", "--total-num-mbufs=4096"),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as testpmd:
        assert testpmd.stdin
        assert testpmd.stdout
        for line in testpmd.stdout:
            if "Press enter to exit" in line:
                break
        refused = node.expect(3, "apply", "--all-or-nothing")
        assert f"process {testpmd.pid}" in refused
        assert look() == before
        testpmd.communicate("\n", timeout=60)
    node.expect(0, "apply")
    assert drivers(list_pfs()[0]) == ["igbvf", "igbvf", "igb_uio"]


UPPERS = {
    "default route": ("ip addr add 10.9.9.2/24 dev {pf}", "ip route add default via 10.9.9.1"),
    "default route v6": ("ip addr add fd09::2/64 dev {pf} nodad", "ip -6 route add default via fd09::1"),
    "address": ("ip addr add 10.9.9.2/24 dev {pf}",),
    "VLAN": ("ip link add link {pf} name up0 type vlan id 5",),
    "bridge": ("ip link add up0 type bridge", "ip link set {pf} master up0"),
    "macvlan": ("ip link add link {pf} name up0 type macvlan",),
    "bond": ("ip link add up0 type bond mode 1", "ip link set {pf} down", "ip link set {pf} master up0"),
}


@pytest.fixture
def uplink(node: Node) -> Iterator[str]:
    """The first PF's name; what the host has on it goes afterwards."""
    name = node.pf_netdev
    yield name
    subprocess.run(["ip", "link", "del", "up0"], check=False)
    for command in ("addr", "route", "-6 route"):
        subprocess.run(["ip", *command.split(), "flush", "dev", name], check=False)
    run(f"ip link set {name} up")


def test_the_hosts_uplink_gets_vfs_but_is_never_reset(node: Node, uplink: str) -> None:
    """A PF with the default route: VFs from nothing, no other number and no MTU, until allowHostUplink says so."""
    first = f"physicalFunctions: [{{select: {{pfNames: [{uplink}]}}, numVfs: 2}}]"
    for command in UPPERS["default route"]:
        run(command.format(pf=uplink))
    node.write(first)
    node.expect(0, "apply")
    assert "default via 10.9.9.1" in run("ip route")
    node.write(first.replace("numVfs: 2", "numVfs: 3"))
    assert f"the host needs {uplink} ({uplink} carries the default route" in node.expect(3, "apply")
    node.write(first.replace("numVfs: 2", "numVfs: 2, mtu: 2000"))
    assert "set MTU 2000; allowHostUplink: true" in node.expect(3, "apply")
    assert "the host needs" in node.expect(3, "reset")
    node.write(first.replace("numVfs: 2", "numVfs: 3, mtu: 2000, allowHostUplink: true"))
    node.expect(0, "apply")
    assert len(drivers(list_pfs()[0])) == 3
    assert Path(f"/sys/class/net/{uplink}/mtu").read_text() == "2000\n"
    assert Path(f"/sys/class/net/{node.netdev(0)}/mtu").read_text() == "2000\n"
    node.expect(0, "reset")
    assert (drivers(list_pfs()[0]), Path(f"/sys/class/net/{uplink}/mtu").read_text()) == ([], "1500\n")


@pytest.mark.parametrize("use", [use for use in UPPERS if use != "default route"])
def test_whatever_the_host_has_on_a_pf_is_seen(node: Node, uplink: str, use: str) -> None:
    """Route, address, VLAN, bridge, macvlan, bond: each makes the PF one that is not reset."""
    assert take_snapshot(Sysfs()).pfs[0].traits.host_use == ""
    for command in UPPERS[use]:
        run(command.format(pf=uplink))
    assert uplink in take_snapshot(Sysfs()).pfs[0].traits.host_use


def test_settings_of_the_config_are_the_nics(node: Node) -> None:
    """Trust, spoofchk, VLAN, rate, MAC and MTU are read back through `ip`; a VF can be left unbound."""
    node.write(
        CONFIG.replace('devices: ["10c9"]', f"pfNames: [{node.pf_netdev}]")
        .replace("numVfs: 7", "numVfs: 3\n    mtu: 3000")
        .split("      - {range")[0]
        + '      - {range: "0", driver: kernel, trust: true, spoofchk: false, vlan: 210, maxTxRate: 100,'
        + ' mac: ["02:00:00:00:77:01"]}\n'
        + '      - {range: "1", driver: none}\n      - {range: "2", driver: vfio-pci, trust: true}\n'
    )
    node.expect(0, "apply", "--boot")
    vf = node.look_vf(0)
    assert (vf["trust"], vf["spoofchk"], node.vlan(0)) == (True, False, 210)
    assert (vf["rate"]["max_tx"], vf["address"]) == (100, "02:00:00:00:77:01")
    assert Path(f"/sys/class/net/{node.netdev(0)}/address").read_text() == "02:00:00:00:77:01\n"
    assert Path(f"/sys/class/net/{node.netdev(0)}/mtu").read_text() == "3000\n"
    assert drivers(list_pfs()[0]) == ["igbvf", "-", "vfio-pci"]
    assert "nothing to do" in node.expect(0, "apply", "--boot")
    node.expect(0, "reset")


def test_reset_by_force_names_the_pod_that_loses_its_vf(node: Node) -> None:
    """Without force it is refused."""
    node.write(THREE)
    node.expect(0, "apply")
    with pod(node, 0, "red", "10.77.0.1"):
        node.expect(3, "reset")
        assert " VF 0 (" in (forced := node.expect(0, "reset", "--force"))
        assert "pod default/red (net1)" in forced
        assert drivers(list_pfs()[0]) == []


def test_hotplug_and_foreign_changes_are_noticed(node: Node) -> None:
    """A PF that is removed and found again, and a VF that somebody unbinds: an event each, and what it means."""
    node.write(CONFIG.replace("numVfs: 7", "numVfs: 1").split("    vfs:")[0])
    node.expect(0, "apply")
    second = list_pfs()[1]

    def see(change: Callable[[], Any]) -> list[str]:
        return asyncio.run(listen(change, take_snapshot(Sysfs())))

    async def listen(change: Callable[[], Any], before: ModelNode) -> list[str]:
        reasons = Reasons()
        events = KernelEvents(reasons.note)
        await events.start()
        try:
            await asyncio.to_thread(change)
            while True:
                assert await reasons.wait(30) != REGULAR
                if told := describe_change(before, await asyncio.to_thread(take_snapshot, Sysfs())):
                    return told
        finally:
            events.stop()

    vf = (second / "virtfn0").resolve().name
    assert see(lambda: Path(f"/sys/bus/pci/devices/{vf}/driver/unbind").write_text(vf)) == [
        f"{_name(second)} VF 0 ({vf}): its driver went from igbvf to no driver"
    ]
    assert "bind to its kernel driver" in node.expect(0, "plan")
    name = _name(second)
    assert see(lambda: (second / "remove").write_text("1")) == [f"{name} ({second.name}): this PF is gone"]
    assert see(lambda: Path("/sys/bus/pci/rescan").write_text("1"))[0].endswith("is new")
    node.expect(0, "apply", "--boot")
    assert [drivers(pf) for pf in list_pfs()] == [["igbvf"], ["igbvf"]]


def find_first(node: Node) -> tuple[str, str]:
    """The check that the doctor names first, and what it says."""
    first = examine(node)[0]
    return first["name"], first["findings"][0]["text"]


def test_the_doctor_names_what_is_broken(node: Node, tmp_path: Path) -> None:
    """Of the real node: no VFs, an unbound VF, a PF that is down, and in its report it finds the same."""
    assert find_first(node)[0] == "vf-count"
    node.expect(0, "apply")
    assert "fail" not in {one["status"] for one in examine(node)}
    vf, pf = node.vf(1), node.pf_netdev
    override = Path(f"/sys/bus/pci/devices/{vf}/driver_override")
    override.write_text("igbvf")
    Path(f"/sys/bus/pci/devices/{vf}/driver/unbind").write_text(vf)
    assert find_first(node) == ("vf-driver", f"{pf} VF 1 ({vf}): on no driver, the config wants kernel")
    report, unpacked = tmp_path / "r.tar.gz", tmp_path / "unpacked"
    node.expect(0, "report", str(report), "--log", str(node.config))
    unpacked.mkdir()
    run(f"tar -xzf {report} -C {unpacked}")
    root = unpacked / "r/node"
    here = [(one["name"], one["status"]) for one in examine(node)]
    inside = json.loads(
        CliRunner().invoke(cli, ["doctor", "--root", str(root), "--state-dir", str(node.state), "--json"]).stdout
    )["checks"]
    assert [(one["name"], one["status"]) for one in inside] == here
    override.write_text("\n")
    node.expect(0, "apply")
    run(f"ip link set {pf} down")
    assert find_first(node)[0] == "pf-link"
    run(f"ip link set {pf} up")


def examine(node: Node) -> list[dict[str, Any]]:
    """All checks of the doctor."""
    shown = CliRunner().invoke(cli, ["doctor", str(node.config), "--state-dir", str(node.state), "--json"])
    checks: list[dict[str, Any]] = json.loads(shown.stdout)["checks"]
    return checks
