"""ADD and DEL on a real SR-IOV NIC: launcher, agent, VFs and packets are real, and `ip` is the oracle."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.runtime import CniFailureError, Runtime, Sandbox
from tests.lab.node import AgentProcess, LabNode

pytestmark = pytest.mark.lab(hugepages=448)

CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 7
    vfs:
      - {range: "0-3", driver: kernel}
      - {range: "4-5", driver: vfio-pci}
      - {range: "6", driver: igb_uio}
resourceList:
  - {resourceName: sriov, selectors: {drivers: [igbvf]}}
"""


@pytest.fixture
def runtime(agent: AgentProcess) -> Runtime:
    """A runtime that execs the built launcher."""
    return Runtime(Path("build/sriov").resolve(), agent.socket)


@pytest.fixture
def clean(node: LabNode, agent: AgentProcess) -> Iterator[None]:
    """After the test all VFs are as they were before it, and the journal is empty."""
    before = node.look()
    yield
    assert node.look() == before
    assert agent.attachments() == [], agent.log()


@pytest.fixture
def network(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Network configurations with a host-local range of their own."""

    def build(device: str, *, ipam: bool = True, **keys: Any) -> dict[str, Any]:
        config = {"cniVersion": "1.1.0", "name": "net-a", "type": "sriov", "deviceID": device, **keys}
        if ipam:
            ranges = [[{"subnet": "10.56.217.0/24", "rangeStart": "10.56.217.171"}]]
            config["ipam"] = {"type": "host-local", "ranges": ranges, "dataDir": str(tmp_path / "leases")}
        return config

    return build


def pod_link(sandbox: Sandbox, name: str = "net1") -> dict[str, Any]:
    """What `ip` says of a pod's interface."""
    link: dict[str, Any] = json.loads(sandbox.run("ip", "-j", "address", "show", "dev", name).stdout)[0]
    return link


@pytest.mark.usefixtures("clean")
def test_kernel_vf_goes_into_the_pod_and_comes_back(
    node: LabNode, runtime: Runtime, sandbox: Any, network: Any
) -> None:
    """Name, VLAN, address and route are set, the result is complete, and DEL leaves no trace."""
    pod = sandbox("pod-a")
    config = network(node.vf(0), vlan=210, vlanQoS=2)

    result = runtime.add(pod, config)

    link = pod_link(pod)
    assert (link["ifname"], link["mtu"], "UP" in link["flags"]) == ("net1", 1500, True)
    assert node.look_vf(0)["vlan_list"] == [{"vlan": 210, "qos": 2}]
    assert result["interfaces"] == [
        {"name": "net1", "mac": link["address"], "mtu": 1500, "sandbox": pod.path, "pciID": node.vf(0)}
    ]
    assert result["ips"] == [{"address": "10.56.217.171/24", "gateway": "10.56.217.1", "interface": 0}]
    assert link["addr_info"][0]["local"] == "10.56.217.171"

    runtime.delete(pod, config)
    assert json.loads(pod.run("ip", "-j", "link").stdout)[0]["ifname"] == "lo"


@pytest.mark.usefixtures("clean")
def test_vlans_are_isolated_with_real_packets(node: LabNode, runtime: Runtime, sandbox: Any, network: Any) -> None:
    """Two pods in VLAN 210 reach each other, one in VLAN 211 reaches neither."""
    pods = [sandbox(name) for name in ("pod-a", "pod-b", "pod-c")]
    configs = [network(node.vf(index), vlan=vlan) for index, vlan in enumerate((210, 210, 211))]
    addresses = [
        runtime.add(pod, config)["ips"][0]["address"].split("/")[0] for pod, config in zip(pods, configs, strict=True)
    ]

    assert pods[0].ping(addresses[1], count=20)
    assert not pods[2].ping(addresses[0])
    assert not pods[0].ping(addresses[2])

    for pod, config in zip(pods, configs, strict=True):
        runtime.delete(pod, config)


@pytest.mark.usefixtures("clean")
def test_requested_mac_holds_without_trust(node: LabNode, runtime: Runtime, sandbox: Any, network: Any) -> None:
    """The NIC refuses a MAC change while its driver is bound; the VF has the MAC all the same, and passes packets."""
    pod, peer = sandbox("pod-a"), sandbox("pod-b")
    config = network(node.vf(0), runtimeConfig={"mac": "02:00:00:00:aa:01"}, spoofchk="on")
    peer_config = network(node.vf(1))

    result = runtime.add(pod, config)
    address = runtime.add(peer, peer_config)["ips"][0]["address"].split("/")[0]

    assert pod_link(pod)["address"] == "02:00:00:00:aa:01" == result["interfaces"][0]["mac"]
    assert node.look_vf(0)["address"] == "02:00:00:00:aa:01"
    assert pod.ping(address, count=20)

    runtime.delete(pod, config)
    runtime.delete(peer, peer_config)


@pytest.mark.parametrize("index", [4, 6], ids=["vfio-pci", "igb_uio"])
@pytest.mark.usefixtures("clean")
def test_dpdk_vf_is_set_through_the_pf_only(
    node: LabNode, runtime: Runtime, sandbox: Any, network: Any, index: int
) -> None:
    """In DPDK mode VLAN and MAC are set on the PF, addresses are reported, and nothing is done in the sandbox."""
    pod = sandbox("pod-a")
    config = network(node.vf(index), vlan=210, mac="02:00:00:00:bb:01")

    result = runtime.add(pod, config)

    assert (node.look_vf(index)["vlan_list"], node.look_vf(index)["address"]) == (
        [{"vlan": 210}],
        "02:00:00:00:bb:01",
    )
    assert result["interfaces"] == [
        {"name": "net1", "mac": "02:00:00:00:bb:01", "mtu": 1500, "sandbox": pod.path, "pciID": node.vf(index)}
    ]
    assert result["ips"][0]["address"] == "10.56.217.171/24"
    assert [link["ifname"] for link in json.loads(pod.run("ip", "-j", "link").stdout)] == ["lo"]

    runtime.delete(pod, config)


@pytest.mark.usefixtures("clean")
def test_del_can_be_repeated_and_come_for_nothing(node: LabNode, runtime: Runtime, sandbox: Any, network: Any) -> None:
    """DEL twice, DEL of what was never added, and a late DEL of an old pod harm nobody."""
    old, new = sandbox("pod-old"), sandbox("pod-new")
    config = network(node.vf(0), vlan=210)
    runtime.add(old, config)
    runtime.delete(old, config)
    runtime.delete(old, config)

    runtime.add(new, config)
    runtime.delete(old, config)

    assert node.vlan(0) == 210
    assert pod_link(new)["ifname"] == "net1"
    runtime.delete(new, config)


@pytest.mark.usefixtures("clean")
def test_del_after_the_netns_is_gone(node: LabNode, runtime: Runtime, sandbox: Any, network: Any) -> None:
    """The kernel gave the VF back under the pod's name; DEL finds it by its PCI address and restores it."""
    pod = sandbox("pod-a")
    config = network(node.vf(0), vlan=210)
    runtime.add(pod, config)
    pod.remove()

    runtime.delete(pod, config)


@pytest.mark.usefixtures("clean")
def test_killed_agent_leaves_nothing_behind(
    node: LabNode, agent: AgentProcess, runtime: Runtime, sandbox: Any, network: Any, tmp_path: Path
) -> None:
    """SIGKILL in the middle of an ADD: the next agent undoes it, and the runtime's DEL succeeds."""
    pod = sandbox("pod-a")
    started = tmp_path / "started"
    plugin = tmp_path / "slow"
    plugin.write_text(f'#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] || exit 0\ntouch {started}\nexec sleep 600\n')
    plugin.chmod(0o755)
    config = network(node.vf(0), ipam=False, vlan=210, mac="02:00:00:00:aa:02") | {"ipam": {"type": "slow"}}
    slow = Runtime(runtime.launcher, runtime.socket, str(tmp_path))

    with slow.start("ADD", pod, config) as process:
        agent.wait_until(lambda: started.exists() and "net1" in pod.run("ip", "-o", "link").stdout)
        agent.kill()
        stdout, _ = process.communicate(timeout=60)
    assert (process.returncode, bool(json.loads(stdout)["code"])) == (1, True)
    assert node.vlan(0) == 210, "the crash came before anything was changed"
    agent.start()
    slow.delete(pod, config)


@pytest.mark.usefixtures("clean")
def test_refused_setting_rolls_all_back(node: LabNode, runtime: Runtime, sandbox: Any, network: Any) -> None:
    """This NIC refuses link_state; what was set before it is undone, and the error names it."""
    pod = sandbox("pod-a")

    with pytest.raises(CniFailureError, match="link_state enable"):
        runtime.add(pod, network(node.vf(0), vlan=210, trust="on", spoofchk="off", link_state="enable"))


@pytest.mark.usefixtures("clean")
def test_failing_ipam_rolls_all_back(node: LabNode, runtime: Runtime, sandbox: Any, network: Any) -> None:
    """A VF that is in the sandbox already comes back when there is no address for it."""
    pods = [sandbox("pod-a"), sandbox("pod-b")]
    configs = [network(node.vf(index), vlan=210) for index in (0, 1)]
    for config in configs:
        config["ipam"]["ranges"][0][0]["rangeEnd"] = "10.56.217.171"
    runtime.add(pods[0], configs[0])

    with pytest.raises(CniFailureError, match="no IP addresses available"):
        runtime.add(pods[1], configs[1])

    assert node.vlan(1) == 0
    runtime.delete(pods[0], configs[0])


@pytest.mark.usefixtures("clean")
def test_attached_vf_is_refused_to_a_second_pod(node: LabNode, runtime: Runtime, sandbox: Any, network: Any) -> None:
    """One VF has one owner, and the refusal names the pod."""
    first, second = sandbox("pod-a"), sandbox("pod-b")
    config = network(node.vf(0), vlan=210)
    runtime.add(first, config)

    with pytest.raises(CniFailureError, match="pod default/pod-a") as refused:
        runtime.add(second, network(node.vf(0), vlan=211))

    assert (refused.value.code, node.vlan(0)) == (100, 210)
    runtime.delete(first, config)


@pytest.mark.usefixtures("clean")
def test_vf_of_a_vanished_sandbox_serves_the_next_pod(
    node: LabNode, runtime: Runtime, sandbox: Any, network: Any
) -> None:
    """A runtime that never sent DEL does not cost the node a VF, nor the next pod the old one's settings."""
    gone, pod = sandbox("pod-gone"), sandbox("pod-a")
    runtime.add(gone, network(node.vf(0), vlan=210, trust="on"))
    gone.remove()

    config = network(node.vf(0))
    runtime.add(pod, config)

    assert (node.vlan(0), node.look_vf(0)["trust"]) == (0, False)
    runtime.delete(pod, config)


@pytest.mark.usefixtures("clean")
def test_host_name_taken_meanwhile_costs_only_the_name(
    node: LabNode, runtime: Runtime, sandbox: Any, network: Any
) -> None:
    """When the host gave the VF's name away, the VF comes back under another one, clean otherwise."""
    pod = sandbox("pod-a")
    name = node.netdev(0)
    config = network(node.vf(0), vlan=210)
    runtime.add(pod, config)
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        runtime.delete(pod, config)
        other = node.netdev(0)
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)

    assert re.fullmatch(r"dev\d+", other)
    assert node.vlan(0) == 0
    subprocess.run(["ip", "link", "set", other, "name", name], check=True)


@pytest.mark.usefixtures("clean")
def test_four_pods_at_once(node: LabNode, runtime: Runtime, sandbox: Any, network: Any) -> None:
    """Attachments of different VFs do not get into each other's way."""
    pods = [sandbox(f"pod-{index}") for index in range(4)]
    configs = [network(node.vf(index), vlan=100 + index) for index in range(4)]

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(runtime.add, pods, configs))
        assert len({result["ips"][0]["address"] for result in results}) == 4
        assert [node.vlan(index) for index in range(4)] == [100, 101, 102, 103]
        list(pool.map(runtime.delete, pods, configs))


@pytest.mark.parametrize("index", [4, 6], ids=["vfio-pci", "igb_uio"])
@pytest.mark.usefixtures("clean")
def test_testpmd_sends_packets(node: LabNode, runtime: Runtime, sandbox: Any, network: Any, index: int) -> None:
    """A DPDK program drives the VF that was attached in DPDK mode, and a kernel pod in its VLAN gets the packets."""
    pod, peer = sandbox("pod-dpdk"), sandbox("pod-b")
    config, peer_config = network(node.vf(index), vlan=210, ipam=False), network(node.vf(0), vlan=210, ipam=False)
    runtime.add(pod, config)
    target = runtime.add(peer, peer_config)["interfaces"][0]["mac"]
    before = int(peer.run("cat", "/sys/class/net/net1/statistics/rx_packets").stdout or 0)

    sent = node.send_by_testpmd(node.vf(index), target)

    after = int(peer.run("cat", "/sys/class/net/net1/statistics/rx_packets").stdout or 0)
    assert sent > 0
    assert after > before
    runtime.delete(pod, config)
    runtime.delete(peer, peer_config)
