"""Policies of sriov-network-operator become the config of a node: its order, its rules, and not its defects."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sriovdp.cluster.conversion import read_config_objects
from sriovdp.cluster.findings import Findings
from sriovdp.cluster.interface import Interface
from sriovdp.cluster.node_config import NodeView, compute_config, compute_tree
from sriovdp.config.values import Config
from sriovdp.model import NetDevice, PciAddress, PhysicalFunction
from tests.objects.making import make_interface, make_object, make_policy, read

LABELS = {"worker": ""}


def compute(
    *objects: dict[str, Any], interfaces: tuple[Interface, ...] = (), labels: dict[str, str] | None = None
) -> tuple[dict[str, Any], Findings]:
    """The tree of node1 and what was found; a tree without a fault is a valid config."""
    manifests, findings = read(*objects)
    read_objects = read_config_objects(manifests, "example.com", findings)
    node = NodeView("node1", LABELS if labels is None else labels, interfaces or (make_interface(),))
    tree = compute_tree(read_objects, node, findings)
    if not findings.faults:
        assert not tree or isinstance(compute_config(read_objects, node, Findings()), Config)
    return tree, findings


def list_groups(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """Range and driver of the VFs of the first PF."""
    return [(vf["range"], vf["driver"]) for vf in tree["physicalFunctions"][0]["vfs"]]


def list_pools(tree: dict[str, Any]) -> dict[str, Any]:
    """Selectors by resource."""
    return {pool["resourceName"]: pool["selectors"] for pool in tree["resourceList"]}


def test_one_policy_with_every_field() -> None:
    """Each field that has a meaning here is in the config."""
    policy = make_policy(
        "net",
        {"vendor": "8086", "deviceID": "1572", "rootDevices": ["0000:3b:00.0"], "pfNames": ["ens1f0#2-5"]},
        mtu=9000,
        isRdma=True,
        needVhostNet=True,
        excludeTopology=True,
        linkType="ETH",
        eSwitchMode="switchdev",
        externallyManaged=True,
        nodeSelector={"worker": ""},
    )
    tree, findings = compute(policy)
    assert not findings.faults
    assert tree == {
        "physicalFunctions": [
            {
                "select": {"pciAddresses": ["0000:3b:00.0"]},
                "numVfs": 8,
                "vfs": [{"range": "2-5", "driver": "kernel"}],
                "mtu": 9000,
                "eSwitchMode": "switchdev",
                "externallyManaged": True,
            }
        ],
        "resourceList": [
            {
                "resourceName": "net",
                "resourcePrefix": "example.com",
                "selectors": [
                    {
                        "rootDevices": ["0000:3b:00.0#2-5"],
                        "linkTypes": ["ether"],
                        "isRdma": True,
                        "needVhostNet": True,
                    }
                ],
                "excludeTopology": True,
            }
        ],
    }
    assert any("has 0 VFs" in warning for warning in findings.warnings)


def test_ranges_of_one_pf_are_merged() -> None:
    """The higher priority comes from the lower number; mtu and numVfs are the larger ones."""
    low = make_policy("low", {"pfNames": ["ens1f0#0-3"]}, priority=99, mtu=9000, numVfs=6)
    high = make_policy("high", {"pfNames": ["ens1f0#4-7"]}, priority=1, deviceType="vfio-pci")
    tree, findings = compute(high, low)
    assert not findings.faults
    assert list_groups(tree) == [("0-3", "kernel"), ("4-7", "vfio-pci")]
    assert tree["physicalFunctions"][0]["mtu"] == 9000
    assert tree["physicalFunctions"][0]["numVfs"] == 8
    assert list_pools(tree) == {
        "high": [{"rootDevices": ["0000:3b:00.0#4-7"], "drivers": ["vfio-pci"]}],
        "low": [{"rootDevices": ["0000:3b:00.0#0-3"]}],
    }
    assert any("high" in warning and "VF 4-7 get MTU 9000" in warning for warning in findings.warnings)


def test_higher_priority_takes_the_pf() -> None:
    """An overlapping policy of lower priority gets nothing, not even its number of VFs, and that is said."""
    tree, findings = compute(make_policy("a", priority=0, numVfs=4), make_policy("z", priority=5, numVfs=16, mtu=9000))
    assert not findings.faults
    assert list_groups(tree) == [("0-3", "kernel")]
    assert tree["physicalFunctions"][0]["numVfs"] == 4
    assert "mtu" not in tree["physicalFunctions"][0]
    assert [*list_pools(tree)] == ["a"]
    assert any("z gets no VF here: a has the higher priority" in warning for warning in findings.warnings)


@pytest.mark.parametrize("other", ["ens1f0#7-8", "ens1f0"])
def test_same_priority_and_common_vfs_conflict(other: str) -> None:
    """The operator finds neither a whole PF beside a range nor policies that select by other keys."""
    first = make_policy("one", {"pfNames": ["ens1f0#4-7"]})
    _, findings = compute(first, make_policy("two", {"pfNames": [other]}, numVfs=10))
    assert [fault for fault in findings.faults if "one and two" in fault and "overlap" in fault]


def test_conflict_of_different_selectors() -> None:
    """Vendor in one, name in the other: one PF all the same."""
    _, findings = compute(make_policy("one", {"vendor": "8086"}), make_policy("two", {"rootDevices": ["0000:3b:00.0"]}))
    assert len(findings.faults) == 1
    assert "ens1f0 (0000:3b:00.0)" in findings.faults[0]


def test_eswitch_mode_of_the_earlier_policy_stays() -> None:
    """The operator loses it when the later policy does not name one."""
    low = make_policy("low", {"pfNames": ["ens1f0#0-3"]}, eSwitchMode="switchdev")
    tree, findings = compute(low, make_policy("high", {"pfNames": ["ens1f0#4-7"]}, priority=3))
    assert tree["physicalFunctions"][0]["eSwitchMode"] == "switchdev"
    assert any("sriov-network-operator loses it" in warning for warning in findings.warnings)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("eSwitchMode", ("legacy", "switchdev")),
        ("externallyManaged", (True, False)),
        ("linkType", ("eth", "ib")),
        ("excludeTopology", (True, False)),
    ],
)
def test_policies_that_share_a_pf_or_resource_must_agree(key: str, values: tuple[Any, Any]) -> None:
    """Different values are faults that name both policies."""
    pairs = zip(("one", "two"), ("0-3", "4-7"), values, strict=True)
    policies = [
        make_policy(name, {"pfNames": [f"ens1f0#{span}"]}, resourceName="r", **{key: value})
        for name, span, value in pairs
    ]
    _, findings = compute(*policies)
    assert len(findings.faults) == 1
    assert "one and two" in findings.faults[0]
    assert key in findings.faults[0]


def test_two_pfs_of_one_resource_are_no_cross_product() -> None:
    """The operator unites the lists of two policies, which also selects what neither asked for."""
    one = make_policy("one", {"pfNames": ["ens1f0#0-3"]}, resourceName="r", isRdma=True)
    two = make_policy("two", {"pfNames": ["ens1f1#4-7"]}, resourceName="r")
    tree, findings = compute(one, two, interfaces=(make_interface(0), make_interface(1)))
    assert list_pools(tree)["r"] == [
        {"rootDevices": ["0000:3b:00.0#0-3"], "isRdma": True},
        {"rootDevices": ["0000:3b:00.1#4-7"]},
    ]
    assert any("unites the selectors" in warning for warning in findings.warnings)
    assert any("isRdma, needVhostNet or vdpaType differ" in warning for warning in findings.warnings)


def test_two_ranges_of_one_resource_on_one_pf_both_stay() -> None:
    """The operator offers both and sets up one."""
    policies = [
        make_policy(f"p{span[0]}", {"pfNames": [f"ens1f0#{span}"]}, resourceName="r") for span in ("0-3", "4-7")
    ]
    tree, findings = compute(*policies)
    assert list_groups(tree) == [("0-3", "kernel"), ("4-7", "kernel")]
    assert list_pools(tree)["r"] == [{"rootDevices": ["0000:3b:00.0#4-7", "0000:3b:00.0#0-3"]}]
    assert any("sets up the latter only" in warning for warning in findings.warnings)


def test_altname_with_a_range() -> None:
    """The operator takes all VFs then; here the range counts."""
    tree, findings = compute(
        make_policy("net", {"pfNames": ["enp59s0f0np0#1-2"]}), interfaces=(make_interface(altnames=("enp59s0f0np0",)),)
    )
    assert list_groups(tree) == [("1-2", "kernel")]
    assert any("altname" in warning for warning in findings.warnings)


def test_pf_that_is_named_twice() -> None:
    """Both ranges count."""
    tree, findings = compute(make_policy("net", {"pfNames": ["ens1f0#0-1", "ens1f0#4-5"]}))
    assert list_groups(tree) == [("0-1,4-5", "kernel")]
    assert any("all count" in warning for warning in findings.warnings)


def test_labels_choose_policies() -> None:
    """All labels must be there; a policy for other nodes is not even a warning."""
    tree, findings = compute(make_policy("net", nodeSelector={"worker": "", "gpu": "true"}))
    assert (tree, findings.warnings) == ({}, [])
    tree, _ = compute(
        make_policy("net", nodeSelector={"worker": "", "gpu": "true"}), labels={"worker": "", "gpu": "true"}
    )
    assert [*list_pools(tree)] == ["net"]


def test_default_policy_and_no_vfs_are_ignored_aloud() -> None:
    """As the operator does, but with a warning."""
    tree, findings = compute(make_policy("default"), make_policy("none", numVfs=0))
    assert tree == {}
    assert len([warning for warning in findings.warnings if "is ignored" in warning]) == 2


def test_network_filter_selects_vfs_of_the_host() -> None:
    """In a virtual machine nothing is split: the pool has the function itself."""
    filtered = "openstack/NetworkID:1234"
    tree, findings = compute(
        make_policy("net", {"netFilter": filtered}, numVfs=1),
        interfaces=(make_interface(net_filter=filtered), make_interface(1)),
    )
    assert not findings.faults
    assert tree == {
        "resourceList": [
            {
                "resourceName": "net",
                "resourcePrefix": "example.com",
                "selectors": [{"pciAddresses": ["0000:3b:00.0"]}],
            }
        ]
    }


def test_what_is_not_done_here_is_said() -> None:
    """Devices of vDPA, bridges, link types, firmware and the RDMA mode are the admin's."""
    policy = make_policy(
        "net", numVfs=128, mtu=1400, vdpaType="vhost", eSwitchMode="switchdev", bridge={"ovs": {}}, linkType="eth"
    )
    pool = make_object("SriovNetworkPoolConfig", "p", {"rdmaMode": "exclusive", "maxUnavailable": "10%"})
    operator = make_object(
        "SriovOperatorConfig",
        "default",
        {"useCDI": True, "featureGates": {"metricsExporter": True}, "configurationMode": "systemd"},
    )
    tree, findings = compute(policy, pool, operator, interfaces=(make_interface(link_type="ib"),))
    assert not findings.faults
    assert tree["cdi"] is True
    said = "\n".join(findings.warnings)
    for word in (
        "vdpa dev add",
        "bridge is not set up",
        "can have 64",
        "has 1500 now",
        "mlxconfig",
        "netns_mode=0",
        "maxUnavailable",
        "featureGates",
        "sriovdp-provision.service",
    ):
        assert word in said


def test_node_of_two_pools_and_nodes_of_the_daemon() -> None:
    """A node in two pools is a fault; a node that the operator's daemon is not for has no config."""
    pools = [
        make_object("SriovNetworkPoolConfig", "a", {"nodeSelector": {"matchLabels": {"worker": ""}}}),
        make_object(
            "SriovNetworkPoolConfig",
            "b",
            {"nodeSelector": {"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}},
        ),
    ]
    _, findings = compute(make_policy("net"), *pools)
    assert len(findings.faults) == 1
    assert "a and b" in findings.faults[0]
    config = make_object("SriovOperatorConfig", "default", {"configDaemonNodeSelector": {"gpu": "true"}})
    assert compute(make_policy("net"), config)[0] == {}


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"resourceName": "a.b"}, "resourceName"),
        ({"resourceName": None}, "must be given"),
        ({"numVfs": "8"}, "numVfs"),
        ({"numVfs": 10**30}, "numVfs"),
        ({"numVfs": -1}, "numVfs"),
        ({"numVfs": True}, "numVfs"),
        ({"priority": 100}, "priority"),
        ({"mtu": 0}, "mtu"),
        ({"deviceType": "igb_uio"}, "deviceType"),
        ({"linkType": "fc"}, "linkType"),
        ({"isRdma": "true"}, "isRdma"),
        ({"nodeSelector": {"gpu": True}}, "put it in quotes"),
        ({"nodeSelector": {"gpu": 1}}, "put it in quotes"),
        ({"nodeSelector": ["gpu"]}, "object of labels"),
        ({"nicSelector": {}}, "selects no PF"),
        ({"nicSelector": []}, "must be an object"),
        ({"nicSelector": {"netFilter": "aws/NetworkID:1", "vendor": "8086"}}, "stands alone"),
        ({"nicSelector": {"pfNames": ["a#1"]}}, "one range"),
        ({"nicSelector": {"pfNames": ["a#1-2#3-4"]}}, "one range"),
        ({"nicSelector": {"pfNames": ["a#3-1"]}}, "reversed"),
        ({"nicSelector": {"pfNames": ["a#0-8"]}}, "will not exist"),
        ({"nicSelector": {"pfNames": ["a#1-99999999999"]}}, "one range"),
        ({"nicSelector": {"pfName": ["a"]}}, "did you mean 'pfNames'"),
        ({"deviceType": "vfio-pci", "isRdma": True}, "isRdma is not for"),
        ({"eSwitchMode": "switchdev", "linkType": "ib"}, "linkType eth only"),
        ({"vdpaType": "virtio"}, "vdpaType needs"),
        ({"bridge": {"ovs": {}}}, "bridge needs"),
        ({"numVFs": 3}, "did you mean 'numVfs'"),
    ],
)
def test_invalid_policy_is_a_fault_with_its_place(spec: dict[str, Any], word: str) -> None:
    """File, line, object, path and what is allowed."""
    _, findings = compute(make_policy("bad", **spec))
    assert findings.faults
    assert all(fault.startswith("objects.yaml line ") for fault in findings.faults)
    assert any(
        word in fault and "SriovNetworkNodePolicy sriov-network-operator/bad" in fault for fault in findings.faults
    )


def test_infiniband_is_for_rdma() -> None:
    """The operator's webhook sets isRdma; such a pool is of InfiniBand VFs."""
    tree, _ = compute(make_policy("ib", linkType="IB"))
    assert list_pools(tree)["ib"] == [{"rootDevices": ["0000:3b:00.0"], "linkTypes": ["infiniband"], "isRdma": True}]


def test_interface_of_a_node_that_was_looked_at() -> None:
    """A PF of our own inventory is what a node state says of it."""
    netdev = NetDevice("ens1f0", 2, "02:00:00:00:00:01", 1500, up=True, carrier=True, altnames=("enp59s0f0",))
    pf = PhysicalFunction(PciAddress("0000:3b:00.0"), "8086", "1572", netdev=netdev, total_vfs=64)
    assert Interface.of(pf) == make_interface(altnames=("enp59s0f0",))


SPANS = st.tuples(st.integers(0, 15), st.integers(0, 15)).map(sorted)


@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(SPANS, st.integers(0, 3), st.sampled_from(["r", "s", "t"]), st.sampled_from([None, 1500, 9000]))
    ),
    st.randoms(use_true_random=False),
)
def test_any_policies_make_a_valid_config_or_a_fault(policies: list[Any], random: Any) -> None:
    """The order of the objects does not matter, no VF is in two groups, and the highest priority has all its VFs."""
    objects = [
        make_policy(
            f"p{number}", {"pfNames": [f"ens1f0#{a}-{b}"]}, priority=priority, resourceName=name, mtu=mtu, numVfs=16
        )
        for number, ((a, b), priority, name, mtu) in enumerate(policies)
    ]
    tree, findings = compute(*objects)
    shuffled = [*objects]
    random.shuffle(shuffled)
    again, others = compute(*shuffled)
    assert tree == again
    assert len(others.faults) == len(findings.faults)
    if policies and not findings.faults:
        best = min(priority for _, priority, _, _ in policies)
        ranges = {vf["range"] for vf in tree["physicalFunctions"][0]["vfs"]}
        for (a, b), priority, _, _ in policies:
            assert priority != best or (f"{a}-{b}" if a != b else str(a)) in ranges
