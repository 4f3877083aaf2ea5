"""Networks of the forms that people publish, with names and addresses of our own, as a NetworkAttachmentDefinition."""

import json
from typing import Any

import pytest

from cni.policy import Policy
from cni.protocol.nad import NadReport, check_nad

LOCAL = {"type": "host-local", "subnet": "10.88.0.0/24"}
WHERE = {"type": "whereabouts", "range": "10.88.2.0/24", "exclude": ["10.88.2.3/32"]}
NADS: dict[str, tuple[dict[str, Any], bool, dict[str, Any], list[str]]] = {
    # name: config, has a resource, settings on the PF, warnings
    "plain": ({"cniVersion": "0.3.1", "name": "blue", "type": "sriov", "ipam": LOCAL}, True, {}, []),
    "list with rdma": (
        {"cniVersion": "0.3.1", "name": "blue", "plugins": [{"type": "sriov", "ipam": WHERE}, {"type": "rdma"}]},
        True, {}, [],
    ),
    "of the operator": (
        {"cniVersion": "1.0.0", "name": "n3", "type": "sriov", "vlan": 0, "vlanQoS": 0, "logLevel": "debug",
         "capabilities": {"mac": True, "ips": True}, "ipam": {"type": "static"}},
        True, {"vlan": 0, "qos": 0, "vlan_proto": "802.1Q"}, ["logLevel has no effect without logFile"],
    ),
    "without a name": ({"type": "sriov", "ipam": {"type": "host-local", "ranges": [[LOCAL]]}}, True, {}, []),
    "VLAN outside the plugins": (
        {"cniVersion": "0.3.1", "vlan": 100, "plugins": [{"type": "sriov", "master": "eth1", "mode": "bridge"}]},
        True, {},
        ["key 'vlan' has no effect outside `plugins`", "key 'mode' is not known and has no effect",
         "master has no effect with a deviceID"],
    ),
    "log file": (
        {"type": "sriov", "cniVersion": "1.0.0", "name": "kv", "logLevel": "info", "logFile": "/var/log/kv.log"},
        True, {}, [],
    ),
    "list with coordinator": (
        {"cniVersion": "0.3.1", "name": "sp", "plugins": [{"vlan": 100, "type": "sriov"}, {"type": "coordinator"}]},
        True, {"vlan": 100, "qos": 0, "vlan_proto": "802.1Q"}, [],
    ),
    "list with tuning": (
        {"cniVersion": "1.0.0", "name": "t", "plugins": [{"type": "sriov", "spoofchk": "off", "ipam": WHERE},
                                                         {"type": "tuning", "mtu": 4220}]},
        True, {"spoofchk": False}, [],
    ),
    "vfio-pci as a switch": (
        {"cniVersion": "0.4.0", "name": "d", "type": "sriov", "vfio-pci": True, "trust": "on"},
        True, {"trust": True}, ["key 'vfio-pci' is not known and has no effect: did you mean 'driver'?"],
    ),
    "radio": (
        {"cniVersion": "1.0.0", "type": "sriov", "name": "f1", "vlan": 100, "spoofchk": "off", "trust": "on",
         "vlanQoS": 5},
        True, {"vlan": 100, "qos": 5, "vlan_proto": "802.1Q", "spoofchk": False, "trust": True}, [],
    ),
    "rate with hyphens": (
        {"type": "sriov", "cniVersion": "0.3.1", "name": "r", "vlan": 2000, "mac": "BA:FE:00:FF:EE:01",
         "link_state": "enable", "max-tx-rate": 200},
        True, {"vlan": 2000, "qos": 0, "vlan_proto": "802.1Q", "link_state": "enable"},
        ["key 'max-tx-rate' is not known and has no effect: did you mean 'max_tx_rate'?"],
    ),
    "keys of another plugin": (
        {"cniVersion": "0.3.0", "type": "sriov", "datastore_type": "kubernetes", "ipam": {"type": "calico-ipam"}},
        True, {}, ["key 'datastore_type' is not known and has no effect"],
    ),
    "PF by master": (
        {"name": "m", "type": "sriov", "master": "eth1", "vf": 1, "mac": "66:d8:02:77:00:01", "ipam": LOCAL},
        False, {}, [],
    ),
    "delegates": (
        {"type": "sriov", "cniVersion": "0.3.1", "name": "s", "delegates": [{"type": "sbr"}]},
        True, {}, ["key 'delegates' is not known and has no effect"],
    ),
    "VLAN in VLAN": (
        {"cniVersion": "1.0.0", "name": "q", "type": "sriov", "vlan": 171, "vlanProto": "802.1aD", "ipam": {}},
        True, {"vlan": 171, "qos": 0, "vlan_proto": "802.1ad"}, [],
    ),
    "product id as device": (
        {"cniVersion": "0.3.1", "name": "p", "type": "sriov", "deviceID": "1017", "vf": 0},
        True, {},
        ["deviceID has no effect: Multus fills in the VF of the resource", "vf has no effect with a deviceID"],
    ),
}  # fmt: skip


def manifest(config: object, *, has_resource: bool, name: str = "green") -> dict[str, Any]:
    """The manifest around a config."""
    annotations = {"k8s.v1.cni.cncf.io/resourceName": "example.com/vf"} if has_resource else {}
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"config": config if isinstance(config, str) else json.dumps(config)},
    }


def tell(report: NadReport) -> list[str]:
    """Its faults."""
    return [fault.message for fault in report.faults]


@pytest.mark.parametrize("form", sorted(NADS))
def test_networks_in_the_field_are_valid(form: str) -> None:
    """What works with sriov-cni works here, and what has no effect is named."""
    config, has_resource, settings, warnings = NADS[form]
    report = check_nad(manifest(config, has_resource=has_resource))
    assert (tell(report), list(report.warnings)) == ([], warnings)
    [network] = report.networks
    assert dict(network.settings) == settings
    text = check_nad(json.dumps(config), name="green", has_resource=has_resource)
    assert (text.faults, text.warnings) == (report.faults, report.warnings)


def test_network_without_a_name_takes_that_of_the_manifest() -> None:
    """As Multus does."""
    [network] = check_nad(manifest({"type": "sriov"}, has_resource=True)).networks
    assert network.name == "green"


def test_product_id_without_a_resource_is_a_fault() -> None:
    """Nobody fills in the VF then."""
    assert tell(check_nad(manifest({"type": "sriov", "deviceID": "1017"}, has_resource=False))) == [
        'deviceID is "1017"'
    ]


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"type": "ovs", "name": "i"}, 'no plugin has type sriov: there is "ovs"'),
        ({"plugins": [{"type": "macvlan"}, {"type": "tuning"}]}, 'there is "macvlan", "tuning"'),
        ({"plugins": []}, "there is nothing"),
        ({"plugins": {}}, "plugins is no list"),
        ('{"type": "sriov",\n "vlan": 5,}', "at line 2, column 1"),
        ("", "line 1, column 1"),
        ("[]", "no JSON object"),
        ("[" * 100_000, "no JSON"),
        ({"type": "sriov", "cniVersion": "7.0.0"}, "7.0.0"),
        ({"type": "sriov", "name": "a b"}, "name is"),
    ],
)
def test_config_that_is_none_is_a_fault(config: object, fault: str) -> None:
    """Told, never raised."""
    assert any(fault in told for told in tell(check_nad(manifest(config, has_resource=True))))


@pytest.mark.parametrize(
    "spoiled", [{}, {"spec": None}, {"spec": {"config": {}}}, {"metadata": 5, "spec": {"config": 1}}]
)
def test_manifest_without_a_config_is_a_fault(spoiled: dict[str, Any]) -> None:
    """A config is a text."""
    assert tell(check_nad({"kind": "NetworkAttachmentDefinition", **spoiled})) == ["spec.config is no text"]


def test_everything_is_reported_at_once() -> None:
    """Faults of all plugins in a list, what the policy forbids, and what has no effect."""
    config = {
        "name": "n",
        "plugins": [
            {"type": "sriov", "vlan": 5000, "trust": "yes", "mtuu": 9000},
            {"type": "sriov", "promisc": True, "driver": "vfio-pci", "mac": "02:00:00:00:00:01"},
        ],
    }
    report = check_nad(manifest(config, has_resource=True), policy=Policy(mac=False))
    assert tell(report) == [
        "vlan is 5000",
        'trust is "yes"',
        "mac is 02:00:00:00:00:01, which this node does not allow (cni.allow.mac)",
    ]
    assert report.warnings == (
        "key 'mtuu' is not known and has no effect: did you mean 'mtu'?",
        "promisc has no effect in DPDK mode: the VF has no netdev in the pod",
    )


def test_mode_of_the_resource_decides_what_has_no_effect() -> None:
    """Without `driver` only the node knows it."""
    config = {"type": "sriov", "name": "n", "allmulti": True}
    assert check_nad(config, has_resource=True).warnings == ()
    assert "allmulti has no effect" in check_nad(config, has_resource=True, mode="dpdk").warnings[0]
