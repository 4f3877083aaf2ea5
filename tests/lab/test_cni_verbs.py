"""CHECK, STATUS, GC, versions, in-pod configuration and migration on the real NIC."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cni.protocol.spec import VERSIONS
from tests.fakes.recovering import recover
from tests.fakes.runtime import CniFailureError, Plugin, Sandbox
from tests.lab.node import LabNode
from tests.lab.patience import own_time

pytestmark = pytest.mark.lab(hugepages=448)

CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 4
    vfs: [{range: "0-2", driver: kernel}, {range: "3", driver: vfio-pci}]
"""


@pytest.fixture
def network(node: LabNode, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Network configurations with host-local."""

    def build(index: int, *, ipam: bool = True, **keys: Any) -> dict[str, Any]:
        config = {"cniVersion": "1.1.0", "name": "net-a", "type": "sriov", "deviceID": node.vf(index), **keys}
        if ipam:
            ranges = [[{"subnet": "10.56.217.0/24"}], [{"subnet": "fd00:56::/64"}]]
            routes = [{"dst": "10.99.0.0/16"}]
            config["ipam"] = {
                "type": "host-local", "ranges": ranges, "routes": routes, "dataDir": str(tmp_path / "leases"),
            }  # fmt: skip
        return config

    return build


def ip(*words: str) -> None:
    """Run a command of iproute2."""
    subprocess.run(["ip", *words], check=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("index", "ipam"), [(0, True), (0, False), (3, True)], ids=["kernel", "no-ipam", "dpdk"])
def test_conformance_of_every_version(
    plugin: Plugin, sandbox: Any, network: Any, version: str, index: int, ipam: bool
) -> None:
    """ADD answers in the shape of its version; CHECK, STATUS and GC where it has them; DEL twice."""
    pod = sandbox("pod-a")
    config = network(index, ipam=ipam, vlan=210) | {"cniVersion": version}

    result = plugin.add(pod, config)

    assert result["cniVersion"] == version
    new = VERSIONS.index(version)
    assert ("interfaces" in result) == (new >= 2)
    assert (bool(result.get("ips") or result.get("ip4"))) == ipam
    for command, first in (("CHECK", 4), ("STATUS", 6), ("GC", 6)):
        valid = [{"containerID": pod.container_id, "ifname": "net1"}]
        asked = config | ({"prevResult": result} if command == "CHECK" else {"cni.dev/valid-attachments": valid})
        if new >= first:
            assert plugin.call(command, pod if command == "CHECK" else None, asked) == b""
        else:
            with pytest.raises(CniFailureError, match=f"does not allow {command}") as refused:
                plugin.call(command, pod, asked)
            assert refused.value.code == 1
    plugin.delete(pod, config)
    plugin.delete(pod, config)
    if new >= 4:
        with pytest.raises(CniFailureError, match="has no attachment of it") as unknown:
            plugin.call("CHECK", pod, config | {"prevResult": result})
        assert unknown.value.code == 3


def test_check_finds_every_drift(plugin: Plugin, sandbox: Any, network: Any, node: LabNode) -> None:
    """Each thing that somebody changes behind our back is named, and all is well when it is changed back."""
    pod = sandbox("pod-a")
    keys = {"vlan": 210, "vlanQoS": 3, "trust": "on", "mac": "02:00:00:00:aa:01", "max_tx_rate": 100, "mtu": 1400}
    config = network(0, spoofchk="on", promisc=True, **keys)
    result = plugin.add(pod, config)
    checked = config | {"prevResult": result}
    pf, inside = node.pf_netdev, ("-n", pod.name)
    assert plugin.call("CHECK", pod, checked) == b""
    assert plugin.call("CHECK", pod, config) == b"", "without prevResult our own is taken"
    drifts = [
        (
            ("link", "set", pf, "vf", "0", "vlan", "5"),
            ("link", "set", pf, "vf", "0", "vlan", "210", "qos", "3"),
            "vlan",
        ),
        (
            ("link", "set", pf, "vf", "0", "spoofchk", "off"),
            ("link", "set", pf, "vf", "0", "spoofchk", "on"),
            "spoofchk",
        ),
        (
            ("link", "set", pf, "vf", "0", "max_tx_rate", "50"),
            ("link", "set", pf, "vf", "0", "max_tx_rate", "100"),
            "rate",
        ),
        ((*inside, "link", "set", "net1", "mtu", "1300"), (*inside, "link", "set", "net1", "mtu", "1400"), "MTU"),
        (
            (*inside, "link", "set", "net1", "promisc", "off"),
            (*inside, "link", "set", "net1", "promisc", "on"),
            "promisc",
        ),
        ((*inside, "address", "del", "10.56.217.2/24", "dev", "net1"), (), "lost its address 10.56.217.2/24"),
    ]
    for change, back, told in drifts:
        ip(*change)
        with pytest.raises(CniFailureError, match=told) as found:
            plugin.call("CHECK", pod, checked)
        assert found.value.code == 101
        if back:
            ip(*back)
            assert plugin.call("CHECK", pod, checked) == b""
    ip(*inside, "link", "set", "net1", "down")
    with pytest.raises(CniFailureError, match="net1 is down"):
        plugin.call("CHECK", pod, checked)
    ip(*inside, "link", "set", "net1", "name", "net7")
    with pytest.raises(CniFailureError, match="is called net7"):
        plugin.call("CHECK", pod, checked)
    plugin.delete(pod, config)


def test_status_reports_why_not(plugin: Plugin, sandbox: Any, network: Any, node: LabNode, tmp_path: Path) -> None:
    """Ready; no such VF, no IPAM plugin, no free VF (50); a PF that is down under pods (51)."""
    assert plugin.call("STATUS", None, network(0)) == b""
    legacy = {"cniVersion": "1.1.0", "name": "old", "if0": node.pf_netdev}
    assert plugin.call("STATUS", None, legacy) == b""
    for wrong, told in (
        (network(0) | {"deviceID": "0000:ff:00.0"}, "no PCI function"),
        (network(0) | {"ipam": {"type": "absent"}}, "no IPAM plugin"),
        (legacy | {"if0": "absent"}, "no PF absent"),
    ):
        with pytest.raises(CniFailureError, match=told) as unable:
            plugin.call("STATUS", None, wrong)
        assert unable.value.code == 50
    pod = sandbox("pod-a")
    plugin.add(pod, network(0))
    ip("link", "set", node.pf_netdev, "down")
    with pytest.raises(CniFailureError, match="is down") as impaired:
        plugin.call("STATUS", None, network(0))
    assert impaired.value.code == 51
    ip("link", "set", node.pf_netdev, "up")
    deadline = own_time() + 30
    while Path("/sys/class/net", node.pf_netdev, "carrier").read_text().strip() != "1":
        assert own_time() < deadline
        time.sleep(0.1)
    plugin.delete(pod, network(0))


def test_gc_releases_what_is_ours_and_not_listed(plugin: Plugin, sandbox: Any, network: Any, node: LabNode) -> None:
    """Of this network only, and never under a running program; without a list nothing is touched."""
    kept, gone, foreign = (sandbox(name) for name in ("pod-kept", "pod-gone", "pod-foreign"))
    plugin.add(kept, network(0, vlan=100))
    plugin.add(gone, network(1, vlan=101))
    plugin.add(foreign, network(2, vlan=102) | {"name": "net-b"})
    valid = {"cni.dev/valid-attachments": [{"containerID": kept.container_id, "ifname": "net1"}]}

    with pytest.raises(CniFailureError, match="valid-attachments") as missing:
        plugin.call("GC", None, network(0))
    assert missing.value.code == 7
    with subprocess.Popen(["ip", "netns", "exec", gone.name, "sleep", "600"]) as process:
        while "sleep" not in Path(f"/proc/{process.pid}/comm").read_text():
            time.sleep(0.01)
        with pytest.raises(CniFailureError, match="runs in its sandbox"):
            plugin.call("GC", None, network(0) | valid)
        process.kill()
    assert [node.vlan(index) for index in range(3)] == [100, 101, 102]

    assert plugin.call("GC", None, network(0) | valid) == b""
    assert [node.vlan(index) for index in range(3)] == [100, 0, 102]
    assert len(plugin.attachments()) == 2
    plugin.delete(kept, network(0))
    plugin.delete(foreign, network(2) | {"name": "net-b"})


def test_interface_is_made_as_asked(
    plugin: Plugin, sandbox: Any, network: Any, node: LabNode, caplog: pytest.LogCaptureFixture
) -> None:
    """MTU, flags, sysctl, altname in the way, device-info file; all of it is gone after DEL."""
    caplog.set_level("INFO")  # as the agent has it
    pod = sandbox("pod-a")
    info = plugin.root / "devinfo/net-a.json"
    ip("link", "property", "add", "dev", node.netdev(0), "altname", "net1")
    config = network(
        0, mtu=9000, promisc=True, allmulti=True, trust="on", dad="off",
        sysctl={"net.ipv4.conf.IFNAME.arp_filter": "1"}, runtimeConfig={"CNIDeviceInfoFile": str(info)},
        logFile=str(plugin.root / "log"), logLevel="debug",
    )  # fmt: skip

    result = plugin.add(pod, config)

    link = json.loads(pod.run("ip", "-d", "-j", "address", "show", "net1").stdout)[0]
    assert (link["mtu"], result["interfaces"][0]["mtu"]) == (9000, 9000)
    assert {"PROMISC", "ALLMULTI", "UP"} <= set(link["flags"])
    assert pod.run("cat", "/proc/sys/net/ipv4/conf/net1/arp_filter").stdout == "1\n"
    assert not [address for address in link["addr_info"] if address.get("tentative")]
    pf = Path(node.pf).name
    told = {"pci-address": node.vf(0), "pf-pci-address": pf}
    assert json.loads(info.read_text()) == {"type": "pci", "version": "1.1.0", "pci": told}
    assert ": attached to " in (plugin.root / "log").read_text()
    plugin.delete(pod, config)
    assert not info.exists()
    assert json.loads(subprocess.check_output(["ip", "-j", "link", "show", node.netdev(0)]))[0]["altnames"] == ["net1"]
    ip("link", "property", "del", "dev", node.netdev(0), "altname", "net1")


def test_unsupported_setting_may_be_let_go(plugin: Plugin, sandbox: Any, network: Any, node: LabNode) -> None:
    """Igb has no link_state and no 802.1ad: fail names the key, warn does without, and CHECK knows of it."""
    pod = sandbox("pod-a")
    for keys, told in (({"link_state": "enable"}, "link_state"), ({"vlan": 5, "vlanProto": "802.1AD"}, "802.1ad")):
        with pytest.raises(CniFailureError, match=told) as refused:
            plugin.add(pod, network(0, trust="on", **keys))
        assert "EPROTONOSUPPORT" in refused.value.message or "ENOTSUP" in refused.value.message
        plugin.delete(pod, network(0))
    with pytest.raises(CniFailureError, match=r"802\.1ad"):
        plugin.add(pod, network(0, vlan=5, vlanProto="802.1ad", onUnsupported="warn"))
    config = network(0, vlan=210, link_state="enable", onUnsupported="warn")
    plugin.add(pod, config)
    assert node.vlan(0) == 210
    assert plugin.call("CHECK", pod, config) == b""
    plugin.delete(pod, config)


@pytest.mark.parametrize("driver", ["vfio-pci", "igb_uio"])
def test_driver_is_bound_on_demand(plugin: Plugin, sandbox: Any, network: Any, node: LabNode, driver: str) -> None:
    """A kernel VF becomes a DPDK VF for one pod; who holds it open keeps it, until the agent gets it back."""
    pod = sandbox("pod-a")
    config = network(0, driver=driver, vlan=210)
    name = node.netdev(0)
    plugin.add(pod, config)
    path = Path("/sys/bus/pci/devices", node.vf(0))
    assert (path / "driver").readlink().name == driver
    assert plugin.call("CHECK", pod, config) == b""
    device = Path("/dev/vfio") / (path / "iommu_group").readlink().name
    if driver == "igb_uio":
        device = Path("/dev") / next((path / "uio").iterdir()).name
    descriptor = os.open(device, os.O_RDWR)
    plugin.delete(pod, config)
    assert (path / "driver").readlink().name == driver
    told = recover(plugin.recovery)[node.vf(0)]
    assert f"process {os.getpid()} (" in told
    os.close(descriptor)
    assert recover(plugin.recovery) == {}
    assert node.netdev(0) == name


def test_vfio_vf_serves_a_kernel_pod(plugin: Plugin, sandbox: Any, network: Any, node: LabNode) -> None:
    """The other way round: a VF of a DPDK pool is attached as a netdev, also when its sandbox dies first."""
    pod = sandbox("pod-a")
    config = network(3, driver="kernel", mac="02:00:00:00:bb:01")
    result = plugin.add(pod, config)
    assert result["interfaces"][0]["mac"] == "02:00:00:00:bb:01"
    assert json.loads(pod.run("ip", "-j", "link", "show", "net1").stdout)[0]["address"] == "02:00:00:00:bb:01"
    pod.remove()
    plugin.delete(pod, config)


def test_stale_netns_path_is_no_obstacle(plugin: Plugin, sandbox: Any, network: Any) -> None:
    """A bind mount that is lost leaves a plain file: ADD refuses it, DEL releases all the same."""
    pod = sandbox("pod-a")
    plugin.add(pod, network(0, vlan=210))
    pod.remove()
    Path(pod.path).touch()
    plugin.delete(pod, network(0))
    with pytest.raises(CniFailureError, match="is no network namespace") as refused:
        plugin.add(pod, network(0))
    assert refused.value.code == 8
    Path(pod.path).unlink()


def test_damaged_journal_file_stops_no_other(plugin: Plugin, sandbox: Any, network: Any, node: LabNode) -> None:
    """Its VF is kept from pods and reported to the agent; other VFs go on."""
    pod = sandbox("pod-a")
    damaged = plugin.root / "journal/attachment-x-net1.json"
    damaged.parent.mkdir()
    damaged.write_text(f'{{"version": 1, "container_id": "x", "device": "{node.vf(1)}", "mo')

    plugin.add(pod, network(0))
    with pytest.raises(CniFailureError, match="attachment-x-net1"):
        plugin.add(pod, network(1), "net2")
    assert list(recover(plugin.recovery)) == [node.vf(1)]
    damaged.unlink()
    plugin.delete(pod, network(0))


def test_pod_of_sriov_cni_is_torn_down_by_us(plugin: Plugin, sandbox: Any, network: Any, node: LabNode) -> None:
    """A node is switched over with its pods running: cache and allocation file of sriov-cni are understood, and go."""
    pod, other = sandbox("pod-old"), sandbox("pod-b")
    look, name, pf = node.look_vf(0), node.netdev(0), node.pf_netdev
    config = network(0, ipam=False, vlan=210, trust="on") | {"cniVersion": "1.0.0"}
    ip("link", "set", pf, "vf", "0", "vlan", "210")
    ip("link", "set", pf, "vf", "0", "trust", "on")
    ip("link", "set", name, "netns", pod.name, "name", "net1", "mtu", "1400")
    state = {
        "HostIFName": name, "SpoofChk": look["spoofchk"], "Trust": look["trust"], "AdminMAC": look["address"],
        "EffectiveMAC": look["address"], "Vlan": 0, "VlanQoS": 0, "VlanProto": 33024, "MinTxRate": 0, "MaxTxRate": 0,
        "LinkState": 0, "MTU": 1500,
    }  # fmt: skip
    old = plugin.root / "old"
    (old / "pci").mkdir(parents=True)
    cache = {**config, "OrigVfState": state, "Master": pf, "VFID": 0}
    (old / f"{pod.container_id}-net1").write_text(json.dumps(cache))
    (old / "pci" / node.vf(0)).write_text(pod.path)

    with pytest.raises(CniFailureError, match="attached by sriov-cni") as busy:
        plugin.add(other, network(0))
    assert busy.value.code == 100
    plugin.delete(pod, config)
    assert list(old.rglob("*")) == [old / "pci"]
    plugin.delete(pod, config)
    plugin.add(other, network(0))

    # a late DEL of an older pod, whose VF sriov-cni gave away: nothing is touched
    (old / "pod-older-sandbox-net1").write_text(json.dumps(cache))
    older = sandbox("pod-older")
    plugin.delete(older, config)
    assert json.loads(other.run("ip", "-j", "link", "show", "net1").stdout)
    plugin.delete(other, network(0))


def test_same_vf_twice_at_once_has_one_winner(plugin: Plugin, sandbox: Any, network: Any) -> None:
    """The other reads who owns it."""
    pods = [sandbox("pod-a"), sandbox("pod-b")]

    def add(pod: Sandbox) -> str:
        try:
            plugin.add(pod, network(0))
        except CniFailureError as error:
            return error.message
        return ""

    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(add, pods))
    assert sorted(map(bool, answers)) == [False, True]
    winner = pods[answers.index("")]
    assert f"pod default/{winner.name}" in "".join(answers)
    for pod in pods:
        plugin.delete(pod, network(0))


def test_plugin_as_a_program_of_its_own(plugin: Plugin, sandbox: Any, network: Any, node: LabNode) -> None:
    """`python -m cni` does the same with the same journal, and waits for no dead process."""
    pod = sandbox("pod-a")
    config = network(0, vlan=210)

    def run(command: str) -> subprocess.CompletedProcess[bytes]:
        environment = {
            **os.environ, "CNI_COMMAND": command, "CNI_CONTAINERID": pod.container_id, "CNI_NETNS": pod.path,
            "CNI_IFNAME": "net1", "CNI_PATH": "/usr/lib/cni", "SRIOVDP_STATE_DIR": str(plugin.root),
        }  # fmt: skip
        stdin = json.dumps(config).encode()
        return subprocess.run(
            [sys.executable, "-m", "cni"], input=stdin, env=environment, capture_output=True, check=False
        )

    assert json.loads(run("VERSION").stdout)["supportedVersions"][-1] == "1.1.0"
    added = run("ADD")
    assert added.returncode == 0, added
    assert json.loads(added.stdout)["interfaces"][0]["name"] == "net1"
    assert node.vlan(0) == 210
    again = run("ADD")
    assert (again.returncode, json.loads(again.stdout)["code"]) == (1, 100)
    assert plugin.call("CHECK", pod, config) == b""
    done = run("DEL")
    assert (done.returncode, done.stdout) == (0, b"")
