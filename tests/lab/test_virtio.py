"""A NIC whose PF takes no setting of its VFs, and whose driver is built in: virtio-net with VFs. All of it is real.

Beside it are a NIC without a PF, as a virtual machine has a VF, and software NICs whose VFs have two netdevs.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cni.policy import Policy
from sriovdp.kernel import drivers
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import KERNEL_DRIVER
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision.settings import make_stable_mac
from tests.fakes.runtime import CniFailureError, Plugin, Sandbox
from tests.lab.node import LabNode, QuickNode
from tests.lab.shape import ALONE_MAC
from tests.lab.vnic_cards import Card, wait_for

pytestmark = pytest.mark.lab(nic="virtio", hugepages=448, vnic="mlx5:2")

CONFIG = """
physicalFunctions:
  - select: {pciAddresses: ["0000:01:00.0"]}
    numVfs: 4
    vfs:
      - {range: "0-2", driver: kernel}
      - {range: "3", driver: vfio-pci}
"""
PF_MAC = "52:54:00:bb:00:00"
STABLE = [make_stable_mac(PF_MAC, index) for index in range(4)]
GIVEN = "02:00:00:00:bb:99"
_PCI = Path("/sys/bus/pci/devices")


def run(*command: str) -> str:
    """Run a command, which must succeed."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def link_of(name: str) -> dict[str, Any]:
    """What `ip` says of a netdev of the host."""
    link: dict[str, Any] = json.loads(run("ip", "-j", "link", "show", "dev", name))[0]
    return link


def pod_link(pod: Sandbox) -> dict[str, Any]:
    """What `ip` says of a pod's net1."""
    link: dict[str, Any] = json.loads(pod.run("ip", "-j", "address", "show", "dev", "net1").stdout)[0]
    return link


def build(device: str, number: int, **keys: Any) -> dict[str, Any]:
    """A network with one static address."""
    ipam = {"type": "static", "addresses": [{"address": f"192.0.2.{number}/24"}]}
    return {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": device, "ipam": ipam} | keys


def check(plugin: Plugin, pod: Sandbox, config: dict[str, Any], result: dict[str, Any]) -> None:
    """CHECK with the result of the ADD. Raises CniFailureError."""
    plugin.call("CHECK", pod, {**config, "prevResult": result})


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabNode]:
    """The node as CONFIG wants it, with commands in this process."""
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write_text(CONFIG)
    node = QuickNode(config)
    node.apply()
    yield node
    node.remove_vfs()


@pytest.fixture
def clean(node: LabNode, tmp_path: Path) -> Iterator[Plugin]:
    """The plugin; after the test all netdevs and drivers are as they were, and the journal is empty."""
    plugin = Plugin(tmp_path)
    before = node.look()
    yield plugin
    assert node.look() == before
    assert plugin.attachments() == []


def test_apply_gives_stable_macs_by_the_netdevs(node: LabNode) -> None:
    """The driver is built in and found; the PF takes no MAC, which is said once; there is nothing left to do."""
    assert [link_of(node.netdev(index))["address"] for index in range(3)] == STABLE[:3]
    bound = [(_PCI / node.vf(index) / "driver").resolve().name for index in range(4)]
    assert bound == ["virtio-pci"] * 3 + ["vfio-pci"]
    again = node.sriovdp("apply", "--config", str(node.config))
    said = again.stdout + again.stderr
    assert "nothing to do: the node is as the config says" in said
    assert said.count("takes no admin MAC of VF 0-3") == 1
    assert (node.pf / "sriov_drivers_autoprobe").read_text().strip() == "1"


def test_two_pods_reach_each_other_and_keep_the_stable_macs(node: LabNode, clean: Plugin, sandbox: Any) -> None:
    """ADD, CHECK, packets, DEL; the MAC of the pod is the one that apply gave, and it is there after the release."""
    pods = [sandbox("pod-a"), sandbox("pod-b")]
    configs = [build(node.vf(index), index + 1) for index in range(2)]
    results = [clean.add(pod, config) for pod, config in zip(pods, configs, strict=True)]
    assert [result["interfaces"][0]["mac"] for result in results] == STABLE[:2]
    assert pods[0].ping("192.0.2.2", count=20)
    for pod, config, result in zip(pods, configs, results, strict=True):
        check(clean, pod, config, result)
    for pod, config in zip(pods, configs, strict=True):
        clean.delete(pod, config)
    assert link_of(node.netdev(0))["address"] == STABLE[0]


def test_mac_and_mtu_of_a_network_are_the_netdevs(node: LabNode, clean: Plugin, sandbox: Any) -> None:
    """The PF knows nothing of them; CHECK finds what a pod changes, and the release brings both back."""
    pod, peer = sandbox("pod-a"), sandbox("pod-b")
    config, other = build(node.vf(0), 1, mac=GIVEN, mtu=1400), build(node.vf(1), 2)
    result = clean.add(pod, config)
    clean.add(peer, other)
    link = pod_link(pod)
    assert (link["address"], link["mtu"]) == (GIVEN, 1400)
    assert (result["interfaces"][0]["mac"], result["interfaces"][0]["mtu"]) == (GIVEN, 1400)
    assert peer.ping("192.0.2.1", count=20)
    check(clean, pod, config, result)
    pod.run("ip", "link", "set", "net1", "address", "02:00:00:00:bb:66")
    with pytest.raises(CniFailureError, match="MAC of net1 is 02:00:00:00:bb:66, not 02:00:00:00:bb:99"):
        check(clean, pod, config, result)
    clean.delete(pod, config)
    clean.delete(peer, other)
    assert (link_of(node.netdev(0))["address"], link_of(node.netdev(0))["mtu"]) == (STABLE[0], 1500)


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"vlan": 7}, "vlan"),
        ({"trust": "on"}, "trust"),
        ({"spoofchk": "on"}, "spoofchk"),
        ({"link_state": "disable"}, "link_state"),
        ({"max_tx_rate": 100}, "max_tx_rate"),
    ],
)
def test_what_only_a_pf_can_set_is_refused_by_name(
    node: LabNode, clean: Plugin, sandbox: Any, keys: dict[str, Any], name: str
) -> None:
    """The error names the key, the VF, the PF and why; nothing is left behind."""
    with pytest.raises(CniFailureError, match=f"VF 0 .*{name}.*driver of {node.pf_netdev} has no settings"):
        clean.add(sandbox("pod-a"), build(node.vf(0), 1, **keys))


def test_a_switch_may_be_skipped_and_a_vlan_never(node: LabNode, clean: Plugin, sandbox: Any) -> None:
    """As on a NIC that lacks one setting."""
    pod = sandbox("pod-a")
    config = build(node.vf(0), 1, trust="on", onUnsupported="warn")
    result = clean.add(pod, config)
    check(clean, pod, config, result)
    clean.delete(pod, config)
    with pytest.raises(CniFailureError, match=r"setting .*vlan"):
        clean.add(pod, build(node.vf(0), 1, vlan=7, onUnsupported="warn"))


def test_testpmd_sends_from_a_vf_on_vfio(node: LabNode, clean: Plugin, sandbox: Any) -> None:
    """DPDK's net_virtio drives the VF in DPDK mode, and a pod on a kernel VF gets its packets."""
    pod, peer = sandbox("pod-dpdk"), sandbox("pod-b")
    config, other = {**build(node.vf(3), 4), "ipam": {}}, build(node.vf(0), 1)
    assert clean.add(pod, config)["interfaces"][0]["pciID"] == node.vf(3)
    target = clean.add(peer, other)["interfaces"][0]["mac"]
    before = int(peer.run("cat", "/sys/class/net/net1/statistics/rx_packets").stdout)
    sent = node.send_by_testpmd(node.vf(3), target)
    after = int(peer.run("cat", "/sys/class/net/net1/statistics/rx_packets").stdout)
    assert sent > 0
    assert after > before
    clean.delete(pod, config)
    clean.delete(peer, other)


def test_a_mac_of_a_dpdk_vf_is_refused(node: LabNode, clean: Plugin, sandbox: Any) -> None:
    """No netdev is there to take it."""
    with pytest.raises(CniFailureError, match=r"VF 3 .*setting mac failed: the driver of"):
        clean.add(sandbox("pod-dpdk"), {**build(node.vf(3), 4, mac=GIVEN), "ipam": {}})


def test_a_network_binds_a_vf_to_another_driver_and_back(node: LabNode, clean: Plugin, sandbox: Any) -> None:
    """From the driver that is built in to vfio-pci; the release finds the built-in one again, and the stable MAC."""
    pod = sandbox("pod-dpdk")
    config = {**build(node.vf(2), 3, driver="vfio-pci"), "ipam": {}}
    clean.add(pod, config)
    assert (_PCI / node.vf(2) / "driver").resolve().name == "vfio-pci"
    clean.delete(pod, config)
    assert link_of(node.netdev(2))["address"] == STABLE[2]


def test_a_vf_without_a_pf_goes_into_a_pod_and_comes_back(clean: Plugin, sandbox: Any) -> None:
    """As in a virtual machine: move, name, MAC, MTU, address; what needs the PF is refused with the reason."""
    [address] = [path.name for path in _PCI.iterdir() if _mac_below(path) == ALONE_MAC]
    with pytest.raises(CniFailureError, match="the kubelet does not say which pod has it"):
        clean.add(sandbox("pod-a"), build(address, 9))
    folders = ((clean.root,), (clean.root / "devinfo",), (clean.root,))
    plugin = Plugin(clean.root, policy=Policy(*folders, allocation="ignored"))
    pod = sandbox("pod-b")
    config = build(address, 9, mac=GIVEN, mtu=1400)
    result = plugin.add(pod, config)
    link = pod_link(pod)
    assert (link["address"], link["mtu"], link["addr_info"][0]["local"]) == (GIVEN, 1400, "192.0.2.9")
    check(plugin, pod, config, result)
    plugin.delete(pod, config)
    with pytest.raises(CniFailureError, match=r"setting vlan.* failed: its PF is not on this machine, as in a virtual"):
        plugin.add(pod, build(address, 9, vlan=7))


def _mac_below(function: Path) -> str:
    found = [*function.glob("net/*/address"), *function.glob("virtio*/net/*/address")]
    return found[0].read_text().strip() if found else ""


def test_of_a_vf_with_two_netdevs_the_first_goes_into_the_pod(
    vnic: Callable[..., list[Card]], sandbox: Any, tmp_path: Path
) -> None:
    """While it is away the VF is not free, though its other netdev is on the host; the release brings it back."""
    (card,) = vnic("mlx5:2/netdevs=2")
    run("ip", "link", "set", "dev", card.netdev, "up")
    card.write_numvfs(1)
    own, other = card.vf_netdev(0), card.vf_netdev(0, "1")
    plugin, pod = Plugin(tmp_path), sandbox("pod-a")
    config = build(card.vf(0).name, 1, mac=GIVEN, vlan=7)
    before = link_of(own)["address"]
    result = plugin.add(pod, config)
    assert pod_link(pod)["address"] == GIVEN
    assert link_of(other)["ifname"] == other
    check(plugin, pod, config, result)
    with pytest.raises(CniFailureError, match="it is attached to"):
        plugin.add(sandbox("pod-b"), build(card.vf(0).name, 2))
    plugin.delete(pod, config)
    assert (link_of(own)["address"], card.vf_netdev(0), card.vf_netdev(0, "1")) == (before, own, other)
    run("ip", "address", "add", "198.51.100.1/24", "dev", other)
    with pytest.raises(CniFailureError, match=f"this host: {other} has address 198.51.100.1/24"):
        plugin.add(pod, config)
    card.write_numvfs(0)


def test_the_kernel_chooses_a_driver_that_no_list_has(node: LabNode) -> None:
    """As for a driver that is built in where no like function shows it; the PF's autoprobe is off before and after."""
    switch = node.pf / "sriov_drivers_autoprobe"
    switch.write_text("0")
    try:
        drivers.bind(Sysfs(), node.vf(3), KERNEL_DRIVER)
        assert (_PCI / node.vf(3) / "driver").resolve().name == "virtio-pci"
        assert switch.read_text() == "0\n"
    finally:
        switch.write_text("1")
        drivers.bind(Sysfs(), node.vf(3), "vfio-pci")


def test_soft_roce_on_a_vf_is_found(node: LabNode, sandbox: Callable[[str], Sandbox], tmp_path: Path) -> None:
    """It is below no PCI function. No pool gives it as RDMA: the kernel removes it when the VF goes into a pod."""
    run("modprobe", "-a", "ib_uverbs", "rdma_rxe")
    run("rdma", "link", "add", "rxe7", "type", "rxe", "netdev", node.netdev(1))
    plugin, pod = Plugin(tmp_path), sandbox("pod-a")
    network = {"cniVersion": "1.0.0", "name": "n", "type": "sriov", "deviceID": node.vf(1)}
    try:
        found = take_snapshot(Sysfs()).find_vf(node.vf(1))[1].traits
        assert (found.is_rdma, found.rdma, found.soft_rdma) == (False, (), ("rxe7",))
        config = tmp_path / "rdma.yaml"
        config.write_text("resourceList: [{resourceName: roce, selectors: {isRdma: true}}]\n")
        shown = node.run_sriovdp("explain", str(config), node.vf(1)).stdout
        assert "it has soft RoCE only (rxe7), which the kernel removes" in shown
        with pytest.raises(CniFailureError, match=r"soft RoCE only \(rxe7\), which cannot go into a pod"):
            plugin.add(pod, {**network, "rdmaIsolation": True})
        assert "rxe7" in run("rdma", "link")
        plugin.add(pod, network)
        assert wait_for(lambda: "rxe7" not in run("rdma", "link"))
        plugin.delete(pod, network)
    finally:
        subprocess.run(["rdma", "link", "delete", "rxe7"], check=False)  # it is gone by now


def test_given_settings_are_errors_and_change_nothing(node: LabNode, tmp_path: Path) -> None:
    """A MAC or a VLAN of the config is wanted: the kernel's reason is shown, and the PF is as it was."""
    before = node.look()
    for keys in ("mac: ['02:00:00:00:bb:01']", "vlan: 7"):
        config = tmp_path / "given.yaml"
        config.write_text(node.config.read_text().replace('range: "0-2", driver: kernel', f'range: "0", {keys}'))
        done = node.run_sriovdp("apply", "--config", str(config))
        assert done.returncode == 1, done.stdout
        assert "Operation not supported" in done.stderr
        assert node.look() == before


def test_reset_gives_all_back(node: LabNode) -> None:
    """VFs that were there before have the MACs of their NIC again; those that were made are gone."""
    node.sriovdp("reset")
    assert (node.pf / "sriov_numvfs").read_text().strip() == "0"
    (node.pf / "sriov_numvfs").write_text("4")
    before = node.look()
    node.apply()
    assert [link_of(node.netdev(index))["address"] for index in range(3)] == STABLE[:3]
    node.sriovdp("reset")
    assert node.look() == before
    node.remove_vfs()
    node.apply()
