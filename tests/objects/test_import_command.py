"""`sriovdp import`: files of the three Go programs, all faults at once, and nothing written where there is one."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from sriovdp.cli.main import cli
from sriovdp.cluster.findings import Findings
from sriovdp.cluster.manifest import read_manifests
from sriovdp.config.file import load
from sriovdp.config.nodes import NodeIdentity
from tests.objects.making import make_object, make_policy

PLUGIN = {"resourceList": [{"resourceName": "dpdk", "IsRdma": None, "selectors": {"pfNames": ["ens2f0"]}}]}


def run(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["import", *map(str, arguments)], input=stdin)


def write(folder: Path, name: str, *objects: Any) -> Path:
    """A file with objects."""
    path = folder / name
    path.write_text(yaml.safe_dump_all(objects))
    return path


def make_config_map(name: str = "sriovdp-config", **data: str) -> dict[str, Any]:
    """A ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "kube-system"},
        "data": data,
    }


def make_state(name: str, *names: str) -> dict[str, Any]:
    """The state of a node with these PFs."""
    interfaces = [
        {"name": pf, "pciAddress": f"0000:3b:00.{n}", "vendor": "8086", "deviceID": "1572", "totalvfs": 64, "Vfs": []}
        for n, pf in enumerate(names)
    ]
    return make_object("SriovNetworkNodeState", name, {}) | {"status": {"interfaces": interfaces}}


def make_node(name: str, **labels: str) -> dict[str, Any]:
    """A node."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def test_operator_with_node_states(tmp_path: Path) -> None:
    """One file for all nodes, in which each node has its own PFs; `kubectl get -o yaml` prints one List."""
    items = [
        make_policy("net", {"pfNames": ["ens1f0#0-3"]}, nodeSelector={"fast": "true"}),
        make_policy("dpdk", {"pfNames": ["ens1f0#4-7"]}, deviceType="vfio-pci", nodeSelector={"fast": "true"}),
        make_object("SriovNetwork", "blue", {"resourceName": "net", "networkNamespace": "default", "ipam": "{}"}),
        make_state("a", "ens1f0", "ens1f1"),
        make_state("b", "ens9", "ens1f0"),
        make_state("c", "ens1f0"),
        *(make_node(name, fast="true") for name in "ab"),
        make_node("c"),
    ]
    source = write(tmp_path, "all.yaml", {"apiVersion": "v1", "kind": "List", "items": items})
    result = run(source, "-o", tmp_path / "new")
    assert result.exit_code == 0, result.output
    addresses = {}
    for name in "abc":
        config = load(tmp_path / "new/config.yaml", NodeIdentity(name, {}))
        addresses[name] = [str(address) for pf in config.physical_functions for address in pf.select.pci_addresses]
        assert len(config.pools) == (0 if name == "c" else 2)
    assert addresses == {"a": ["0000:3b:00.0"], "b": ["0000:3b:00.1"], "c": []}
    nad = yaml.safe_load((tmp_path / "new/networks.yaml").read_text())
    assert json.loads(nad["spec"]["config"])["type"] == "sriov"


def test_operator_without_nodes(tmp_path: Path) -> None:
    """The selectors of the policies are those of the config, put together where they name one PF."""
    labels = {"fast": "true"}
    source = write(
        tmp_path,
        "p.yaml",
        make_policy("net", {"pfNames": ["ens1f0#0-3"]}, nodeSelector=labels),
        make_policy("dpdk", {"pfNames": ["ens1f0#4-7"], "vendor": "8086"}, deviceType="vfio-pci", nodeSelector=labels),
        make_policy("mlx", {"vendor": "15b3", "deviceID": "101d"}, nodeSelector=labels),
    )
    result = run(source, "-o", tmp_path / "new")
    assert result.exit_code == 0, result.output
    config = load(tmp_path / "new/config.yaml", NodeIdentity("a", labels))
    assert [len(pf.vfs) for pf in config.physical_functions] == [2, 1]
    assert {pool.name: pool.selectors[0].devices for pool in config.pools} == {"net": (), "dpdk": (), "mlx": ("101e",)}
    assert not load(tmp_path / "new/config.yaml", NodeIdentity("a", {})).pools
    assert "may be one PF" not in result.output


def test_node_without_labels_is_a_fault(tmp_path: Path) -> None:
    """Which policies a node has depends on them."""
    result = run(
        write(tmp_path, "p.yaml", make_policy("net", nodeSelector={"fast": "true"}), make_state("a", "ens1f0"))
    )
    assert result.exit_code == 1
    assert "kubectl get nodes" in result.output


def test_device_plugin(tmp_path: Path) -> None:
    """A ConfigMap with what Go reads, and the flags of the DaemonSet."""
    container = {
        "name": "sriovdp",
        "image": "ghcr.io/x/sriov-network-device-plugin:v3",
        "args": ["--resource-prefix=acme.com", "--use-cdi", "--log-level=10"],
    }
    daemon_set = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "dp"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    write(tmp_path, "cm.yaml", make_config_map(**{"config.json": json.dumps(PLUGIN)}), daemon_set)
    result = run(tmp_path, "-o", tmp_path / "new")
    assert result.exit_code == 0, result.output
    assert yaml.safe_load((tmp_path / "new/config.yaml").read_text()) == {
        "cdi": True,
        "resourceList": [
            {"resourceName": "dpdk", "resourcePrefix": "acme.com", "selectors": [{"pfNames": ["ens2f0"]}]}
        ],
    }
    assert "--log-level is ignored" in result.output


def test_config_of_each_node(tmp_path: Path) -> None:
    """Keys of a ConfigMap that are names of nodes; a file alone is read too."""
    one, two = (json.dumps({"resourceList": [{"resourceName": n, "selectors": {"vendors": ["8086"]}}]}) for n in "xy")
    result = run(
        write(tmp_path, "cm.yaml", make_config_map("device-plugin-config", n1=one, n2=two)), "-o", tmp_path / "o"
    )
    assert result.exit_code == 0, result.output
    assert [pool.name for pool in load(tmp_path / "o/config.yaml", NodeIdentity("n2", {})).pools] == ["y"]
    plain = tmp_path / "config.json"
    plain.write_text(one)
    assert run(plain, "-o", tmp_path / "p").exit_code == 0
    files = make_config_map(**{"a.json": one, "b.json": two})
    result = run(write(tmp_path, "two.yaml", files))
    assert result.exit_code == 1
    assert "choose one with --key" in result.output
    assert run(tmp_path / "two.yaml", "--key", "b.json").exit_code == 0


def test_networks_of_sriov_cni_are_checked(tmp_path: Path) -> None:
    """What each ADD would refuse is a fault; networks of other plugins are taken over."""
    config = {"cniVersion": "1.0.0", "type": "sriov", "vlan": 5000}
    nads = [
        make_object("NetworkAttachmentDefinition", name, {"config": json.dumps(conf)}, "red", "k8s.cni.cncf.io/v1")
        for name, conf in (("bad", config), ("other", {"cniVersion": "1.0.0", "type": "macvlan"}))
    ]
    result = run(write(tmp_path, "n.yaml", *nads), "-o", tmp_path / "new")
    assert result.exit_code == 1
    assert "network red/bad" in result.output
    assert "red/other" not in result.output
    assert not (tmp_path / "new").exists()


def test_all_faults_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    """Each with its file; files that are there are not replaced unasked."""
    write(tmp_path, "a.yaml", make_policy("one", numVfs="x"))
    write(tmp_path, "b.yaml", make_policy("two", mtu=1), make_policy("three") | {"apiVersion": "x/v1"})
    (tmp_path / "c.yaml").write_text("a: [")
    (tmp_path / "d.yaml").write_bytes(b"\xff")
    write(tmp_path, "e.yaml", {"kind": "Pod"}, "text", make_policy("two", mtu=9000))
    result = run(tmp_path, "-o", tmp_path / "new")
    assert result.exit_code == 1
    for word in ("a.yaml line", "b.yaml line", "c.yaml", "d.yaml", "metadata.name", "e.yaml line", "differs there"):
        assert word in result.output
    assert not (tmp_path / "new").exists()
    good = write(tmp_path, "good.yaml", make_policy("net"))
    assert run(good, "-o", tmp_path / "new").exit_code == 0
    assert "add --force" in run(good, "-o", tmp_path / "new").output
    assert run(good, "-o", tmp_path / "new", "--force").exit_code == 0


def test_standard_input_and_nothing_to_import() -> None:
    """`-` reads a pipe; without --output only the report is printed."""
    result = run("-", stdin=yaml.safe_dump(make_policy("net")))
    assert (result.exit_code, "nothing is written" in result.output) == (0, True)
    assert run("-", stdin="").exit_code == 1
    assert run("-", stdin=b"\xff\xfe").exit_code == 1


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",
        "[" * 10_000,
        "kind: List\nitems: 5",
        "kind: [a]\nmetadata: {name: a}",
        "kind: A\nmetadata: 7",
        "kind: A\nmetadata: {name: '../etc'}",
        "kind: A\nmetadata: {name: a, namespace: {}}",
        "kind: SriovNetworkNodePolicy\napiVersion: sriovnetwork.openshift.io/v1\nmetadata: {name: a}\nspec: [1]",
        "kind: SriovNetworkNodeState\napiVersion: sriovnetwork.openshift.io/v1\nmetadata: {name: a}\nstatus: [1]",
        "kind: ConfigMap\nmetadata: {name: a}\ndata: {k: '{\"resourceList\": 5}'}",
        "kind: NetworkAttachmentDefinition\nmetadata: {name: a, annotations: 5}\nspec: 5",
        "a: 1\na: 2",
    ],
)
def test_hostile_text_is_a_fault(text: str) -> None:
    """No text ends in anything but a sentence."""
    policy = yaml.safe_dump(make_policy("net"))
    result = run("-", stdin=f"{policy}\n---\n{text}\n")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "error: import" in result.output


PARTS = st.sampled_from(
    ["kind", "apiVersion", "metadata", "name", "spec", "items", "List", "v1", "x", "-", 7, None, True, "status"]
)
TREES = st.recursive(
    PARTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PARTS.map(str), inner, max_size=4), max_leaves=12
)


@settings(max_examples=50)
@given(TREES)
def test_any_tree_is_read_or_refused(tree: Any) -> None:
    """JSON of any shape."""
    read_manifests(json.dumps(tree), "x", Findings())
