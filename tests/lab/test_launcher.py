"""Launcher, spool and lean rtnetlink on a real SR-IOV NIC: what a node does without its agent."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sriovdp.kernel.netlink import Netlink
from tests.fakes.runtime import CniFailureError, Runtime
from tests.lab.node import AgentProcess, LabNode

pytestmark = pytest.mark.lab(hugepages=448)

CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 2
resourceList:
  - {resourceName: sriov, selectors: {drivers: [igbvf]}}
"""


@pytest.fixture
def runtime(agent: AgentProcess) -> Runtime:
    """A runtime whose launcher spools where the agent looks."""
    spool = str(agent.root / "state/spool")
    return Runtime(Path("build/sriov").resolve(), agent.socket, environment={"SRIOVDP_SPOOL": spool})


@pytest.fixture
def clean(node: LabNode, agent: AgentProcess) -> Iterator[None]:
    """After the test all VFs are as they were before it; journal and spool are empty."""
    before = node.look()
    yield
    assert node.look() == before
    assert agent.attachments() == [], agent.log()
    assert list((agent.root / "state/spool").glob("*")) == [], agent.log()


def wait_for_replay(agent: AgentProcess) -> None:
    """An agent serves first: what is in the spool follows."""
    agent.wait_until(lambda: not list((agent.root / "state/spool").glob("*")))


def network(device: str, **keys: Any) -> dict[str, Any]:
    """A network configuration."""
    return {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": device, **keys}


@pytest.mark.usefixtures("clean")
def test_del_without_agent_is_done_by_the_next_one(
    node: LabNode, agent: AgentProcess, runtime: Runtime, sandbox: Any
) -> None:
    """The runtime's DEL succeeds while the agent is dead; the next one gets the VF back, and it is clean."""
    pod, other = sandbox("pod-a"), sandbox("pod-b")
    config = network(node.vf(0), vlan=210)
    runtime.add(pod, config)
    agent.kill()
    with pytest.raises(CniFailureError) as refused:
        runtime.add(other, network(node.vf(1)))
    assert refused.value.code == 11
    runtime.delete(pod, config)
    assert node.vlan(0) == 210
    assert len(list((agent.root / "state/spool").glob("*"))) == 1

    agent.start()

    wait_for_replay(agent)
    assert node.vlan(0) == 0
    runtime.add(other, network(node.vf(0), vlan=211))
    runtime.delete(other, network(node.vf(0), vlan=211))


@pytest.mark.usefixtures("clean")
def test_late_spooled_del_leaves_the_next_pod_alone(
    node: LabNode, agent: AgentProcess, runtime: Runtime, sandbox: Any
) -> None:
    """A DEL that comes out of the spool when the VF is another pod's already touches nothing of it."""
    old, new = sandbox("pod-old"), sandbox("pod-new")
    config = network(node.vf(0), vlan=210)
    runtime.add(old, config)
    runtime.delete(old, config)
    runtime.add(new, config)
    agent.kill()
    runtime.delete(old, config)

    agent.start()

    wait_for_replay(agent)
    assert node.vlan(0) == 210
    assert "net1" in new.run("ip", "-o", "link").stdout
    runtime.delete(new, config)


@pytest.mark.usefixtures("clean")
def test_killed_launcher_is_rolled_back(
    node: LabNode, agent: AgentProcess, runtime: Runtime, sandbox: Any, tmp_path: Path
) -> None:
    """A runtime that gives an ADD up in its middle leaves no VF attached, also if it never sends DEL."""
    pod = sandbox("pod-a")
    plugin, go = tmp_path / "slow", tmp_path / "go"
    plugin.write_text(
        f'#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] || exit 0\ntouch {tmp_path}/started\n'
        f"until [ -e {go} ]; do sleep 0.1; done\n"
        'echo \'{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}]}\'\n'
    )
    plugin.chmod(0o755)
    config = network(node.vf(0), vlan=210, ipam={"type": "slow"})

    with replace(runtime, plugins=str(tmp_path)).start("ADD", pod, config) as process:
        agent.wait_until((tmp_path / "started").exists)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == -signal.SIGTERM
    go.touch()

    agent.wait_until(lambda: "the client of its ADD went away" in agent.log() and agent.attachments() == [])


def test_lean_rtnetlink_sees_and_sets_vfs_as_ip_does(node: LabNode) -> None:
    """Settings of each VF, before and after a change of several in one request; a VF's parent is its PCI address."""

    def compare(netlink: Netlink, pf: int) -> None:
        for index, settings in (netlink.vf_settings(pf) or {}).items():
            found = netlink.find_with_vf(pf, index)
            assert found
            assert found[1] == settings
            seen = node.look_vf(index)
            told = (settings.mac, settings.spoofchk, settings.trust, settings.link_state)
            assert told == (seen["address"], seen["spoofchk"], seen["trust"], seen["link_state"])
            listed = (seen.get("vlan_list") or [{}])[0]
            assert (settings.vlan, settings.qos) == (listed.get("vlan", 0), listed.get("qos", 0))

    with Netlink() as netlink:
        pf, vf = netlink.find(node.pf_netdev), netlink.find(node.netdev(1))
        assert pf
        assert vf
        assert (vf.parent, pf.parent) == (node.vf(1), node.pf.name)
        before = (netlink.vf_settings(pf.ifindex) or {})[1]
        compare(netlink, pf.ifindex)
        changes = {"mac": "02:00:00:00:cc:01", "vlan": 100, "qos": 3, "spoofchk": False, "trust": True}
        netlink.set_vf(pf.ifindex, 1, changes)
        assert (netlink.vf_settings(pf.ifindex) or {})[1] == replace(before, **changes)  # type: ignore[arg-type]
        compare(netlink, pf.ifindex)
        netlink.set_vf(pf.ifindex, 1, {name: getattr(before, name) for name in changes})
        assert (netlink.vf_settings(pf.ifindex) or {})[1] == before
        assert 99 not in (netlink.vf_settings(pf.ifindex) or {})
