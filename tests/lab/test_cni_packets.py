"""What attachments do to packets: between VFs, and on the wire between two PFs."""

import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.runtime import Plugin, Sandbox
from tests.lab.node import LabNode
from tests.lab.patience import own_time

pytestmark = pytest.mark.lab(pfs=2, wire=True)

CONFIG = """
physicalFunctions:
  - select: {pfNames: [eth0]} # the other PF is the far end: with VFs its filters would drop VLANs that it has none in
    numVfs: 3
    vfs: [{range: "0-2", driver: kernel}]
"""
SPOOFED = bytes.fromhex("02dead000001")
PACKET_AUXDATA, SOL_PACKET = 8, 263  # linux/if_packet.h


@pytest.fixture
def network(node: LabNode) -> Callable[..., dict[str, Any]]:
    """Network configurations with static addresses of both families."""

    def build(index: int, **keys: Any) -> dict[str, Any]:
        addresses = [{"address": f"192.0.2.{index + 1}/24"}, {"address": f"fd00:2::{index + 1}/64"}]
        config = {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": node.vf(index)}
        return config | {"ipam": {"type": "static", "addresses": addresses}} | keys

    return build


@pytest.fixture(scope="module", autouse=True)
def far_pf(node: LabNode) -> str:
    """The second PF's netdev, up: what it receives came over the wire."""
    name = LabNode(node.config, 1).pf_netdev
    subprocess.run(["ip", "link", "set", name, "up", "promisc", "on"], check=True)
    return name


def receive(interface: str, source: bytes, send: Callable[[], None]) -> list[tuple[bytes, int | None]]:
    """Frames of a source MAC that an interface takes while `send` runs, with their VLAN tag (TCI) or None."""
    taken = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as packets:
        packets.bind((interface, 3))
        packets.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        packets.settimeout(0.5)
        send()
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            try:
                frame, messages, _, _ = packets.recvmsg(2048, 256)
            except TimeoutError:
                continue
            # struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
            data = next(data for level, kind, data in messages if (level, kind) == (SOL_PACKET, PACKET_AUXDATA))
            has_tag = int.from_bytes(data[:4], "little") & (1 << 4)  # TP_STATUS_VLAN_VALID
            tag = int.from_bytes(data[16:18], "little") if has_tag else None
            if frame[12:14] == b"\x81\x00":
                tag = int.from_bytes(frame[14:16])
            if frame[6:12] == source:
                taken.append((frame, tag))
    return taken


def send_from(pod: Sandbox, source: bytes) -> Callable[[], None]:
    """A sender of broadcast frames by the pod's interface, with any source MAC."""
    script = (
        "import socket\n"
        "with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packets:\n"
        "    packets.bind(('net1', 0))\n"
        f"    frame = b'\\xff' * 6 + bytes.fromhex('{source.hex()}') + b'\\x88\\xb5' + b'x' * 50\n"
        "    [packets.send(frame) for _ in range(5)]\n"
    )

    def send() -> None:
        assert pod.run("/usr/bin/python3", "-c", script).returncode == 0

    return send


def wait_for_carrier(pod: Sandbox) -> None:
    """Until the pod's interface can send."""
    deadline = own_time() + 20
    while pod.run("cat", "/sys/class/net/net1/carrier").stdout.strip() != "1":
        if "state UP" in pod.run("ip", "link", "show", "net1").stdout:
            return
        assert own_time() < deadline
        time.sleep(0.1)


def test_vlan_and_priority_are_on_the_wire_and_not_in_the_pod(
    plugin: Plugin, sandbox: Any, network: Any, far_pf: str
) -> None:
    """The pod sends untagged; a peer beyond the wire sees the tag with its priority."""
    pod = sandbox("pod-a")
    config = network(0, vlan=210, vlanQoS=5)
    mac = plugin.add(pod, config)["interfaces"][0]["mac"]
    wait_for_carrier(pod)

    source = bytes.fromhex(mac.replace(":", ""))
    tags = {tag for _, tag in receive(far_pf, source, send_from(pod, source))}

    assert tags == {5 << 13 | 210}
    plugin.delete(pod, config)


@pytest.mark.parametrize("allowed", [True, False])
def test_trust_and_spoofchk_have_effect(
    plugin: Plugin, sandbox: Any, network: Any, node: LabNode, far_pf: str, allowed: bool
) -> None:
    """A pod may change its MAC only with trust; with spoofchk off, a source MAC that is not the VF's own passes.

    That spoofchk on drops such frames is not seen here: QEMU's NIC takes the setting, and does not filter.
    """
    pod = sandbox("pod-a")
    words = {True: "on", False: "off"}
    config = network(0, trust=words[allowed], spoofchk=words[not allowed], mac="02:00:00:00:cc:00")
    plugin.add(pod, config)
    wait_for_carrier(pod)

    assert node.look_vf(0)["spoofchk"] is not allowed
    if allowed:
        assert receive(far_pf, SPOOFED, send_from(pod, SPOOFED))
    changed = pod.run("ip", "link", "set", "net1", "address", "02:00:00:00:cc:01")
    assert (changed.returncode == 0) is allowed, changed.stderr
    plugin.delete(pod, config)


def test_both_families_and_jumbo_frames_pass(plugin: Plugin, sandbox: Any, network: Any, node: LabNode) -> None:
    """Two pods reach each other by IPv4 and IPv6, with 8000 bytes in one packet, and rates are read back."""
    pods = [sandbox("pod-a"), sandbox("pod-b")]
    configs = [network(index, mtu=9000, max_tx_rate=100, mac=f"02:00:00:00:cc:0{index}") for index in (0, 1)]
    for pod, config in zip(pods, configs, strict=True):
        plugin.add(pod, config)

    assert pods[0].ping("192.0.2.2", count=20)
    assert pods[0].ping("fd00:2::2", count=20)
    big = pods[0].run("ping", "-c", "10", "-i", "0.3", "-W", "1", "-M", "do", "-s", "8000", "192.0.2.2")
    assert big.returncode == 0, big.stdout
    assert node.look_vf(0)["rate"] == {"max_tx": 100, "min_tx": 0}
    for pod, config in zip(pods, configs, strict=True):
        plugin.delete(pod, config)


def test_dhcp_gives_the_address(plugin: Plugin, sandbox: Any, network: Any) -> None:
    """The plugin's daemon asks by the interface in the pod, and QEMU's DHCP server beyond the wire answers."""
    pod = sandbox("pod-a")
    Path("/run/cni/dhcp.sock").unlink(missing_ok=True)
    config = network(0, ipam={"type": "dhcp"})
    with subprocess.Popen(["/usr/lib/cni/dhcp", "daemon"]) as daemon:
        try:
            deadline = own_time() + 30
            while not Path("/run/cni/dhcp.sock").exists():
                assert own_time() < deadline
                time.sleep(0.05)
            result = plugin.add(pod, config)
            shown = json.loads(pod.run("ip", "-j", "-4", "address", "show", "net1").stdout)[0]
            plugin.delete(pod, config)
        finally:
            daemon.terminate()
    assert result["ips"][0]["address"] == "10.0.2.15/24"
    assert [address["local"] for address in shown["addr_info"]] == ["10.0.2.15"]
