"""`sriovdp validate` with networks: the forms of a file, every fault, and keys without effect on this node's NIC."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sriovdp.cli.main import cli
from tests.recordings.nodes import build


def run(*arguments: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recorded nodes."""
    folder = tmp_path_factory.mktemp("nodes")
    return {name: build(name, folder / name) for name in ("x710", "connectx")}


def make_nad(name: str, resource: str = "intel.com/net", **config: Any) -> dict[str, object]:
    """A NetworkAttachmentDefinition."""
    annotations = {"k8s.v1.cni.cncf.io/resourceName": resource} if resource else {}
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": "red", "annotations": annotations},
        "spec": {"config": json.dumps({"cniVersion": "1.0.0", "type": "sriov", **config})},
    }


GOOD = make_nad("good", vlan=7)
BAD = make_nad("bad", vlan=5000, mtu=1, spoofchk="maybe")
BARE = {"cniVersion": "1.0.0", "name": "net1", "type": "sriov", "deviceID": "0000:3b:02.0", "vlan": 5000}
CONFIG_MAP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "c"},
    "data": {"config.json": json.dumps({"resourceList": [{"resourceName": "net", "selectors": {}}]})},
}
CONFIG = """
resourceList:
- {resourceName: dpdk, selectors: {drivers: [vfio-pci]}}
- {resourceName: net, selectors: {drivers: [iavf, mlx5_core], pfNames: [ens1f0, ens1f0np0]}}
- {resourceName: ib, selectors: {linkTypes: [infiniband]}}
- {resourceName: none, selectors: {vendors: ["ffff"]}}
"""


def write(folder: Path, *documents: object) -> Path:
    """A file of these documents; JSON is YAML."""
    path = folder / "nad.yaml"
    path.write_text("\n---\n".join(json.dumps(document, indent=1) for document in documents))
    return path


@pytest.mark.parametrize(
    ("documents", "count"),
    [
        ([GOOD], "1 network"),
        ([GOOD, make_nad("other")], "2 networks"),
        ([{"kind": "List", "apiVersion": "v1", "items": [GOOD, {"kind": "Pod"}, GOOD]}], "2 networks"),
        ([{"kind": "NetworkAttachmentDefinitionList", "items": [GOOD]}, {"kind": "Namespace"}], "1 network"),
        ([BARE | {"vlan": 7}], "1 network"),
        ([{"cniVersion": "1.0.0", "name": "list", "plugins": [BARE | {"vlan": 7}, {"type": "tuning"}]}], "1 network"),
    ],
)
def test_forms_of_a_file(tmp_path: Path, documents: list[object], count: str) -> None:
    """A manifest, several, a List, a bare configuration, a list of plugins."""
    path = write(tmp_path, *documents)
    shown = run("validate", path, "--offline")
    assert (shown.exit_code, shown.stdout) == (0, f"{path} is valid: {count}\n"), shown.stderr


def test_yaml_as_people_write_it_and_standard_input() -> None:
    """A block of JSON in YAML, through a pipe."""
    head = "kind: NetworkAttachmentDefinition\nmetadata: {name: a}\nspec:\n  config: |\n"
    text = head + '    {"type": "sriov", "if0": "eth0"}\n'
    called = [sys.executable, "-m", "sriovdp.cli.main", "validate", "-", "--offline"]
    shown = subprocess.run(called, input=text, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout) == (0, "/dev/stdin is valid: 1 network\n"), shown.stderr


def test_all_faults_of_all_networks(tmp_path: Path) -> None:
    """Each with the network's name; a network of another plugin is only a warning beside ours."""
    foreign = make_nad("other") | {"spec": {"config": '{"type": "macvlan"}'}}
    shown = run("validate", write(tmp_path, BAD, GOOD, foreign, make_nad("typo", resource="", vlann=3)), "--offline")
    assert shown.exit_code == 1
    lines = [line.strip() for line in shown.stderr.splitlines()]
    for key in ("vlan is 5000", "mtu is 1", 'spoofchk is "maybe"'):
        assert any(line.startswith(f"network red/bad: {key}") for line in lines), lines
    assert any(
        line.startswith("network red/typo: ") and "there is no annotation k8s.v1.cni.cncf.io/resourceName" in line
        for line in lines
    ), lines
    assert any(line.startswith("warning: network red/other: no plugin has type sriov") for line in lines), lines
    assert any("red/typo: key 'vlann' is not known" in line and "did you mean 'vlan'?" in line for line in lines)
    assert not any("red/good" in line for line in lines)


@pytest.mark.parametrize(
    "document", [BARE, {"name": "n", "plugins": [BARE]}, {"name": "n", "type": "srivo"}, make_nad("n") | {"spec": {}}]
)
def test_a_network_with_a_fault_fails(tmp_path: Path, document: object) -> None:
    """Alone in its file, whatever its form; a type that is not ours too."""
    shown = run("validate", write(tmp_path, document), "--offline")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "1 fault" in shown.stderr


def check(tmp_path: Path, root: Path, *documents: object) -> list[str]:
    """Exit code and what is printed on stderr, for networks beside a config and a node."""
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG)
    shown = run("validate", write(tmp_path, *documents), "-c", config, "--sysfs", root)
    return [
        str(shown.exit_code),
        *(line.strip().removeprefix("warning: network red/n: ") for line in shown.stderr.splitlines()),
    ]


def test_the_devices_of_the_resource_say_what_has_no_effect(nodes: dict[str, Path], tmp_path: Path) -> None:
    """DPDK mode for VFs on vfio-pci; kernel mode for the others, where the same keys are fine."""
    keys: dict[str, Any] = {"promisc": True, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}
    code, *warnings = check(tmp_path, nodes["x710"], make_nad("n", "intel.com/dpdk", **keys))
    assert code == "0"
    assert [warning.split()[0] for warning in warnings] == ["promisc", "sysctl"]
    assert all("has no effect in DPDK mode" in warning for warning in warnings)
    assert check(tmp_path, nodes["x710"], make_nad("n", **keys)) == ["0"]


def test_limits_of_the_nic(nodes: dict[str, Path], tmp_path: Path) -> None:
    """An MTU above the PF's, DHCP without a netdev, a VLAN on InfiniBand, a driver that DPDK does not want."""
    code, *lines = check(tmp_path, nodes["x710"], make_nad("n", "intel.com/dpdk", mtu=9000, ipam={"type": "dhcp"}))
    assert code == "1"
    assert any("ipam.type is dhcp, but VF 2 of ens1f0 (0000:3b:02.2) is on vfio-pci" in line for line in lines)
    assert any("mtu is 9000, but the PF of VF 2 of ens1f0 (0000:3b:02.2) has 1500" in line for line in lines)
    code, *lines = check(tmp_path, nodes["x710"], make_nad("n", mtu=9000))
    assert code == "0"
    assert lines == [
        "mtu is 9000, but the PF of VF 0 of ens1f0 (0000:3b:02.0) has 1500; set `mtu` of ens1f0 in the config"
    ]
    port = "VF 0 of ibs2 (0000:5e:00.1) is InfiniBand"
    code, *lines = check(tmp_path, nodes["connectx"], make_nad("n", "intel.com/ib", vlan=7, mac="02:00:00:00:00:01"))
    assert code == "1"
    assert any(f"vlan is 7, but {port}, which has no port VLAN; partitions" in line for line in lines)
    assert any(f"mac is 02:00:00:00:00:01, but {port}; set `guid` in place of it" in line for line in lines)
    guid = "02:00:00:00:00:00:00:01"
    assert check(tmp_path, nodes["connectx"], make_nad("n", "intel.com/ib", type="ib-sriov", guid=guid)) == ["0"]
    port = "VF 0 of ens1f0 (0000:3b:02.0)"
    code, *lines = check(tmp_path, nodes["x710"], make_nad("n", type="ib-sriov", guid=guid, rdmaIsolation=True))
    assert code == "1"
    assert any(f"type is ib-sriov, but {port} is Ethernet; set it to sriov" in line for line in lines)
    assert any(f"guid is {guid}, but {port} is Ethernet; leave guid out" in line for line in lines)
    assert any(f"rdmaIsolation is true, but {port} has no RDMA device" in line for line in lines)
    assert check(tmp_path, nodes["connectx"], make_nad("n", driver="vfio-pci"))[1:] == [
        (
            "driver vfio-pci is no use with VF 0 of ens1f0np0 (0000:3b:00.2): "
            "DPDK uses it through mlx5_core; leave driver out"
        )
    ]
    assert "trust has no effect on VF 0 of ibs2 (0000:5e:00.1): mlx5_core does not support it" in check(
        tmp_path, nodes["connectx"], make_nad("n", "intel.com/ib", trust="on")
    )


def test_a_resource_that_is_not_there(nodes: dict[str, Path], tmp_path: Path) -> None:
    """Of no pool, with the nearest one; and of a pool without devices."""
    assert check(tmp_path, nodes["x710"], make_nad("n", "intel.com/dpkd")) == [
        "0",
        "the config has no pool intel.com/dpkd; did you mean intel.com/dpdk?",
    ]
    assert check(tmp_path, nodes["x710"], make_nad("n", "intel.com/none")) == [
        "0",
        "intel.com/none has no device on this node; `sriovdp explain` shows why",
    ]


def test_a_config_in_place_of_a_network_and_two_configs(tmp_path: Path) -> None:
    """FILE and --config are two files only for networks."""
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG)
    assert run("validate", config, "-c", config, "--offline").exit_code == 2
    assert run("validate", "-c", config, "--offline").exit_code == 0


@pytest.mark.parametrize("recorded", [False, True])
def test_policy_of_the_config_is_a_fault_here_too(tmp_path: Path, nodes: dict[str, Path], recorded: bool) -> None:
    """With and without a node: what ADD would refuse with code 7, and the key that forbids it."""
    config = tmp_path / "config.yaml"
    config.write_text(f"{CONFIG}\ncni: {{allow: {{trust: false, vlans: 100-199}}}}\n")
    path = write(tmp_path, make_nad("open", trust="on", vlan=7))
    where = ("--sysfs", nodes["x710"]) if recorded else ("--offline",)
    shown = run("validate", path, "-c", config, *where)
    assert shown.exit_code == 1
    for key in ("cni.allow.trust", "cni.allow.vlans"):
        assert key in shown.stderr
