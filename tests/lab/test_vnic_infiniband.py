"""InfiniBand VFs on the software NIC: GUIDs set and given back, RDMA devices that go into the pod and come back.

IPoIB on a real NIC makes its netdev anew when its RDMA device changes its namespace; the module does the same.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import cni.vf.rdma
from cni.policy import Policy
from cni.verbs import announce
from sriovdp.kernel import drivers, netns, rdma_netlink
from sriovdp.kernel.netlink import Netlink
from sriovdp.state.journal import Journal
from tests.fakes.recovering import recover
from tests.fakes.runtime import CniFailureError, Plugin, Sandbox
from tests.lab.faults import Fault, die, fail
from tests.lab.vnic_cards import Card, load, load_beside, run, wait_for

pytestmark = pytest.mark.lab(pfs=0, vnic="mlx5:4")

GUID, OTHER = "02:00:00:00:00:00:00:a1", "02:00:00:00:00:00:00:a2"
_WHERE = {
    "type": "host-local", "subnet": "10.56.217.0/24", "routes": [{"dst": "0.0.0.0/0"}], "gateway": "10.56.217.1"
}  # fmt: skip
# https://github.com/k8snetworkplumbingwg/ib-sriov-cni: "Usage" in README.md, and deployment/examples/ib-crd.yaml
DOCUMENTED: dict[str, dict[str, Any]] = {
    "README": {
        "cniVersion": "0.3.1", "name": "mynet", "type": "ib-sriov", "deviceID": "0000:03:02.0",
        "link_state": "enable", "rdmaIsolation": True, "ibKubernetesEnabled": False,
        "ipam": _WHERE | {"rangeStart": "10.56.217.171", "rangeEnd": "10.56.217.181"},
    },
    "ib-crd": {
        "type": "ib-sriov", "cniVersion": "0.3.1", "name": "sriov-network", "pkey": "0x5", "link_state": "enable",
        "ibKubernetesEnabled": False, "ipam": _WHERE,
    },
}  # fmt: skip
# what changes something on the way of an InfiniBand VF
CHANGES: tuple[tuple[object, str], ...] = (
    (Netlink, "set_guids"),
    (Netlink, "set_vf"),
    (Netlink, "set_link"),
    (drivers, "write_text"),
    (rdma_netlink, "move_device"),
    (rdma_netlink, "rename_device"),
    (Journal, "write_attachment"),
    (Journal, "remove_attachment"),
)


@dataclass
class Fabric:
    """A card with four InfiniBand VFs that have RDMA devices, and the plugin."""

    card: Card
    plugin: Plugin

    def network(self, index: int, **keys: Any) -> dict[str, Any]:
        """A network of ib-sriov-cni for a VF."""
        given = {"cniVersion": "1.0.0", "name": "ib", "type": "ib-sriov", "deviceID": self.card.vf(index).name}
        return {**given, **keys}

    def look(self) -> dict[str, Any]:
        """All that a pod could have changed, by `ip` and `rdma`."""
        links = json.loads(run("ip", "-d", "-j", "link").stdout)
        kept = ("ifname", "address", "mtu", "altnames", "promiscuity")
        vfs = {
            line.strip() for line in run("ip", "link", "show", self.card.netdev).stdout.splitlines() if "vf " in line
        }
        return {
            "links": sorted(str({key: link.get(key) for key in kept}) for link in links),
            "vfs": vfs,
            "rdma": sorted(one["ifname"] for one in json.loads(run("rdma", "-j", "dev").stdout)),
            "nodes": [sorted(path.name for path in (self.card.vf(i) / "infiniband_verbs").iterdir()) for i in range(4)],
        }

    def rdma(self, index: int) -> list[str]:
        """RDMA devices of a VF on the host."""
        return sorted(path.name for path in (self.card.vf(index) / "infiniband").iterdir())

    def guids(self, index: int) -> int:
        """How often the PF's list has the GUID for a VF."""
        shown = run("ip", "link", "show", "dev", self.card.netdev).stdout.splitlines()
        return next(line.count(GUID) for line in shown if f"vf {index} " in line)


@pytest.fixture(scope="module")
def card() -> Iterator[Card]:
    """A card with four VFs, of which the last has no GUID; loaded once, as all tests leave it as it was."""
    (card,) = load("mlx5:4/infiniband=1")
    load_beside("vnic_verbs", "ib_core", "ib_uverbs")
    card.write_numvfs(4)
    for index in range(3):  # as `apply` does, but for one VF
        rebind(card, index, f"02:00:00:00:00:00:01:0{index}")
    yield card
    load("")
    run("rdma", "system", "set", "netns", "shared")


@pytest.fixture(params=["exclusive"])
def fabric(request: pytest.FixtureRequest, card: Card, tmp_path: Path) -> Iterator[Fabric]:
    """Four VFs, in that mode of the RDMA subsystem; after the test they are as before, and the journal is empty."""
    # while there is no sandbox
    assert wait_for(lambda: run("rdma", "system", "set", "netns", request.param).returncode == 0)
    fabric = Fabric(card, Plugin(tmp_path))
    before = fabric.look()
    yield fabric
    assert fabric.look() == before
    assert fabric.plugin.attachments() == []


def rebind(card: Card, index: int, guid: str) -> None:
    """Give a VF a GUID, and let its driver take it over."""
    for kind in ("node_guid", "port_guid"):
        assert card.set_vf(index, f"{kind} {guid}") == ""
    for what in ("unbind", "bind"):
        Path("/sys/bus/pci/drivers/mlx5_core", what).write_text(card.vf(index).name)


def link_of(pod: Sandbox) -> dict[str, Any]:
    """The pod's interface, by `ip`."""
    link: dict[str, Any] = json.loads(pod.run("ip", "-j", "address", "show", "dev", "net1").stdout)[0]
    return link


def rdma_in(pod: Sandbox) -> list[str]:
    """RDMA devices in the pod's network namespace, by `rdma`."""
    return sorted(one["ifname"] for one in json.loads(pod.run("rdma", "-j", "dev").stdout))


@pytest.mark.parametrize("index", [0, 3], ids=["with-a-guid", "without-one"])
@pytest.mark.parametrize("fabric", ["shared"], indirect=True)
def test_guid_is_set_and_given_back(fabric: Fabric, sandbox: Callable[[str], Sandbox], index: int) -> None:
    """On the PF and in the pod's address of 20 bytes, by the key that Multus fills in; DEL gives the old one back."""
    pod = sandbox("pod-a")
    network = fabric.network(index, runtimeConfig={"infinibandGUID": GUID}, link_state="enable", pkey="0x5")

    result = fabric.plugin.add(pod, network)

    link = link_of(pod)
    assert (link["link_type"], link["address"][-23:]) == ("infiniband", GUID)
    assert result["interfaces"][0]["mac"] == link["address"]
    assert fabric.guids(index) == 2
    assert fabric.plugin.call("CHECK", pod, network) == b""
    for kind in ("node_guid", "port_guid"):
        fabric.card.set_vf(index, f"{kind} {OTHER}")
    with pytest.raises(CniFailureError, match=f"node_guid on the PF is {OTHER}, {GUID} was set"):
        fabric.plugin.call("CHECK", pod, network)
    fabric.plugin.delete(pod, network)


def test_twin_guids_are_refused(fabric: Fabric, sandbox: Callable[[str], Sandbox]) -> None:
    """One that another VF has, that the PF has, and that a VF gets back after its pod."""
    first, second = sandbox("pod-a"), sandbox("pod-b")
    fabric.plugin.add(first, fabric.network(0, guid=GUID))
    pf_guid = json.loads(run("ip", "-j", "link", "show", fabric.card.netdev).stdout)[0]["address"][-23:]
    for guid, owner in (
        (GUID, "VF 0 has it"),
        ("02:00:00:00:00:00:01:02", "has it"),
        (pf_guid, f"{fabric.card.netdev} has it"),
        ("02:00:00:00:00:00:01:00", "gets it back after pod default/pod-a"),
    ):
        with pytest.raises(CniFailureError, match=owner) as refused:
            fabric.plugin.add(second, fabric.network(1, guid=guid))
        assert refused.value.code == 100
    fabric.plugin.delete(first, fabric.network(0))


def test_kinds_that_do_not_fit_are_refused(fabric: Fabric, sandbox: Callable[[str], Sandbox]) -> None:
    """A VF without GUID, a MAC, a GUID that the node does not allow."""
    pod = sandbox("pod-a")
    with pytest.raises(CniFailureError, match="mac is 02:00:00:00:00:01, but it is an InfiniBand VF"):
        fabric.plugin.add(pod, fabric.network(0, type="sriov", mac="02:00:00:00:00:01"))
    strict = Plugin(fabric.plugin.root, policy=Policy(guid=False))
    with pytest.raises(CniFailureError, match=r"guid is .*does not allow \(cni.allow.guid\)"):
        strict.add(pod, fabric.network(0, guid=GUID))
    with pytest.raises(CniFailureError, match="InfiniBand VF"):
        fabric.plugin.add(pod, fabric.network(0, type="sriov", ipam={"type": "dhcp"}))


@pytest.mark.parametrize("fabric", ["shared"], indirect=True)
def test_no_isolation_in_shared_mode(fabric: Fabric, sandbox: Callable[[str], Sandbox]) -> None:
    """Refused before anything is changed; without the key the VF is attached, and the RDMA device stays."""
    pod = sandbox("pod-a")
    with pytest.raises(CniFailureError, match=r"in shared mode.*netns_mode=0"):
        fabric.plugin.add(pod, fabric.network(0, rdmaIsolation=True))
    fabric.plugin.add(pod, fabric.network(0))
    assert fabric.rdma(0) == ["mlx5_0"]
    fabric.plugin.delete(pod, fabric.network(0))


@pytest.mark.parametrize("keys", [{}, {"guid": GUID}], ids=["plain", "with-guid"])
def test_rdma_device_goes_with_the_vf(fabric: Fabric, sandbox: Callable[[str], Sandbox], keys: Any) -> None:
    """Into the pod, where CHECK looks for it, and back under its name although the pod renamed it."""
    pod = sandbox("pod-a")
    path = fabric.plugin.root / "devinfo/info"
    network = fabric.network(0, rdmaIsolation=True, runtimeConfig={"CNIDeviceInfoFile": str(path)}, **keys)
    fabric.plugin.add(pod, network)

    assert (rdma_in(pod), fabric.rdma(0)) == (["mlx5_0"], [])
    assert json.loads(path.read_text())["pci"]["rdma-device"] == "mlx5_0"
    assert link_of(pod)["link_type"] == "infiniband"
    assert fabric.plugin.call("CHECK", pod, network) == b""
    assert pod.run("rdma", "dev", "set", "mlx5_0", "name", "mine").returncode == 0
    assert fabric.plugin.call("CHECK", pod, network) == b""
    fabric.plugin.delete(pod, network)
    assert (rdma_in(pod), fabric.rdma(0)) == ([], ["mlx5_0"])


def test_rdma_device_comes_back_from_a_sandbox_that_is_gone(fabric: Fabric, sandbox: Callable[[str], Sandbox]) -> None:
    """The kernel brings it back; DEL waits for that, and gives its name and the GUID back."""
    pod = sandbox("pod-a")
    fabric.plugin.add(pod, fabric.network(0, rdmaIsolation=True, guid=GUID))
    pod.run("rdma", "dev", "set", "mlx5_0", "name", "mine")
    pod.remove()
    fabric.plugin.delete(pod, fabric.network(0))
    assert fabric.rdma(0) == ["mlx5_0"]


def test_rdma_device_that_the_pod_moved_on(fabric: Fabric, sandbox: Callable[[str], Sandbox]) -> None:
    """CHECK misses it, and DEL lets its driver make another one."""
    pod, other = sandbox("pod-a"), sandbox("pod-b")
    network = fabric.network(0, rdmaIsolation=True)
    fabric.plugin.add(pod, network)
    assert pod.run("rdma", "dev", "set", "mlx5_0", "netns", other.name).returncode == 0
    assert rdma_in(other) == ["mlx5_0"]
    with pytest.raises(CniFailureError, match="RDMA device mlx5_0 is not in the sandbox"):
        fabric.plugin.call("CHECK", pod, network)
    fabric.plugin.delete(pod, network)
    assert rdma_in(other) == []


def test_name_that_another_rdma_device_has_by_now(fabric: Fabric, sandbox: Callable[[str], Sandbox]) -> None:
    """It keeps the one that it has: the VF is as good as before."""
    pod = sandbox("pod-a")
    fabric.plugin.add(pod, fabric.network(0, rdmaIsolation=True))
    pod.run("rdma", "dev", "set", "mlx5_0", "name", "mine")
    assert run("rdma", "dev", "set", "mlx5_1", "name", "mlx5_0").returncode == 0
    fabric.plugin.delete(pod, fabric.network(0))
    assert fabric.rdma(0) == ["mine"]
    run("rdma", "dev", "set", "mlx5_0", "name", "mlx5_1")
    run("rdma", "dev", "set", "mine", "name", "mlx5_0")


def test_nodes_of_another_vf_are_never_the_pods(
    fabric: Fabric, sandbox: Callable[[str], Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bound again, an RDMA device can get other device nodes than the container was given: ADD fails then."""
    pod = sandbox("pod-a")
    answers = iter([["uverbs0"], ["uverbs7"]])
    monkeypatch.setattr(cni.vf.rdma, "list_nodes_of", lambda *_: next(answers))
    with pytest.raises(CniFailureError, match="changed its device nodes from uverbs0 to uverbs7"):
        fabric.plugin.add(pod, fabric.network(0, guid=GUID))


@pytest.mark.parametrize("name", list(DOCUMENTED))
def test_documented_networks_of_ib_sriov_cni(fabric: Fabric, sandbox: Callable[[str], Sandbox], name: str) -> None:
    """Unchanged but for the VF, which the runtime fills in; a second DEL has nothing to do."""
    pod, network = sandbox("pod-a"), DOCUMENTED[name] | {"deviceID": fabric.card.vf(0).name}
    result = fabric.plugin.add(pod, network)
    assert result["ips"][0]["address"].startswith("10.56.217.")
    link = link_of(pod)
    assert (link["link_type"], link["operstate"]) == ("infiniband", "UP")
    assert {one["local"] for one in link["addr_info"]} >= {result["ips"][0]["address"].partition("/")[0]}
    assert json.loads(pod.run("ip", "-j", "route", "show", "default").stdout)[0]["gateway"] == "10.56.217.1"
    assert rdma_in(pod) == (["mlx5_0"] if network.get("rdmaIsolation") else [])
    pod.remove()
    fabric.plugin.delete(pod, network)
    fabric.plugin.delete(pod, network)


def test_pods_of_ib_sriov_cni_are_released(fabric: Fabric, sandbox: Callable[[str], Sandbox]) -> None:
    """By its cache: GUID, name and RDMA device of before."""
    pod, name = sandbox("pod-a"), fabric.card.vf_netdev(0)
    rebind(fabric.card, 0, GUID)
    for command in (f"rdma dev set mlx5_0 netns {pod.name}", f"ip link set {name} netns {pod.name} name net1"):
        assert run(*command.split()).returncode == 0
    folder = fabric.plugin.root / "ib-sriov"
    folder.mkdir()
    cache = {"HostIFNames": name, "HostIFGUID": "02:00:00:00:00:00:01:00", "ContIFNames": "net1", "VFID": 0}
    rdma = {"RdmaNetState": {"SandboxRdmaDevName": "mlx5_0", "ContainerRdmaDevName": "mlx5_0"}, "rdmaIsolation": True}
    (folder / f"{pod.container_id}-net1").write_text(json.dumps({**fabric.network(0), **cache, **rdma}))

    fabric.plugin.delete(pod, fabric.network(0))

    assert (rdma_in(pod), fabric.rdma(0), list(folder.iterdir())) == ([], ["mlx5_0"], [])


def test_addresses_are_announced(fabric: Fabric, sandbox: Callable[[str], Sandbox]) -> None:
    """With hardware addresses of 20 bytes, as a program sees what the interface sends."""
    pod = sandbox("pod-a")
    fabric.plugin.add(pod, fabric.network(0, guid=GUID, link_state="enable"))  # without a carrier nothing is sent
    address = link_of(pod)["address"]
    own = bytes.fromhex(address.replace(":", ""))

    def listen() -> list[bytes]:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as packets:
            packets.bind(("net1", 3))
            packets.settimeout(5)
            # the kernel itself announces only what the interface has
            assert announce._send("net1", address, ("10.0.0.2/24", "fd00::2/64")) is not None
            arp = next(packet for packet in iter(lambda: packets.recv(2048), b"") if packet[:2] == b"\0\x20")
            return [arp, next(packet for packet in iter(lambda: packets.recv(2048), b"") if packet[40:41] == b"\x88")]

    with Path(pod.path).open("rb") as there:
        arp, advertisement = netns.run_in(there.fileno(), listen)
    assert arp[:8].hex() == "0020080014040001"
    assert (arp[8:28], arp[28:32]) == (own, bytes((10, 0, 0, 2)))
    assert advertisement[64:].hex() == "02030000" + own.hex()
    fabric.plugin.delete(pod, fabric.network(0))


def run_faulty(fabric: Fabric, command: str, pod: Sandbox, network: dict[str, Any], fault: Fault) -> int:
    """Run a verb in a process of its own, in which the fault happens; gives its exit code."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            fault.install(pytest.MonkeyPatch())
            fabric.plugin.call(command, pod, network)
            code = 0
        except CniFailureError:
            code = 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(("command", "act"), [("ADD", fail), ("ADD", die), ("DEL", die)])
def test_fault_after_any_change(
    fabric: Fabric, sandbox: Callable[[str], Sandbox], command: str, act: Callable[[], None]
) -> None:
    """With a GUID and an RDMA device; what a crash left is undone by the agent or by DEL."""
    pod, network = sandbox("pod-a"), fabric.network(0, guid=GUID, rdmaIsolation=True, link_state="enable")
    before = fabric.look()
    if command == "DEL":
        fabric.plugin.add(pod, network)
    with pytest.MonkeyPatch.context() as patch:
        counter = Fault(CHANGES, 0, act)
        counter.install(patch)
        fabric.plugin.call(command, pod, network)
    fabric.plugin.delete(pod, network)
    assert counter.count >= 8
    for at in range(1, counter.count + 1):
        when = f"after change {at} of {counter.count}"
        if command == "DEL":
            fabric.plugin.add(pod, network)
        run_faulty(fabric, command, pod, network, Fault(CHANGES, at, act))
        if at % 2:
            assert recover(fabric.plugin.recovery) == {}, when
        fabric.plugin.delete(pod, network)
        assert fabric.look() == before, when
        assert (rdma_in(pod), fabric.plugin.attachments()) == ([], []), when


def test_ethernet_vf_is_no_infiniband(vnic: Callable[..., list[Card]], sandbox: Any, tmp_path: Path) -> None:
    """Neither by type nor by GUID."""
    (card,) = vnic("mlx5:1")
    card.write_numvfs(1)
    card.vf_netdev(0)
    network = {"cniVersion": "1.0.0", "name": "n", "deviceID": card.vf(0).name}
    pod, plugin = sandbox("pod-a"), Plugin(tmp_path)
    with pytest.raises(CniFailureError, match="type is ib-sriov, but it is no InfiniBand VF"):
        plugin.add(pod, {**network, "type": "ib-sriov"})
    with pytest.raises(CniFailureError, match="guid is given, but it is no InfiniBand VF"):
        plugin.add(pod, {**network, "type": "sriov", "guid": GUID})
