"""What networks say of InfiniBand: where a GUID comes from, and keys that mean nothing there."""

import json
from typing import Any

import pytest

from cni.policy import Policy
from cni.protocol.infiniband import require_ib_kubernetes
from cni.protocol.nad import check_nad
from cni.protocol.netconf import NetConf, parse_netconf
from sriovdp.errors import CniError

GUID = "02:00:00:00:00:00:00:a1"
CONFIGURED = {"mellanox.infiniband.app": "configured"}


def parse(**keys: Any) -> NetConf:
    """A network of ib-sriov-cni with these keys."""
    network = {"cniVersion": "1.0.0", "name": "ib", "type": "ib-sriov", "deviceID": "0000:3b:00.2", **keys}
    return parse_netconf(json.dumps(network).encode(), "", "ADD")


@pytest.mark.parametrize(
    ("keys", "guid"),
    [
        ({}, None),
        ({"guid": GUID}, GUID),
        ({"guid": "02-00-00-00-00-00-00-A1"}, GUID),
        ({"guid": "0200.0000.0000.00A1"}, GUID),
        ({"guid": "11:22:33:44:55:66:77:88"}, "11:22:33:44:55:66:77:88"),
        ({"guid": "00:00:00:00:00:00:00:01"}, "00:00:00:00:00:00:00:01"),
        ({"guid": ""}, None),
        ({"args": {"cni": {"guid": GUID}}}, GUID),
        ({"runtimeConfig": {"infinibandGUID": GUID}}, GUID),
        ({"runtimeConfig": {"InfinibandGUID": GUID}}, GUID),
        ({"runtimeConfig": {"infinibandGUID": GUID}, "args": {"cni": {"guid": "02:00:00:00:00:00:00:02"}}}, GUID),
        ({"args": {"cni": {"guid": GUID}}, "guid": "02:00:00:00:00:00:00:02"}, GUID),
        ({"args": [], "guid": GUID}, GUID),
        ({"type": "sriov", "guid": GUID}, GUID),
    ],
)
def test_where_the_guid_comes_from(keys: dict[str, Any], guid: str | None) -> None:
    """The runtime's, then the pod's cni-args, then the network's own."""
    assert parse(**keys).guid == guid


@pytest.mark.parametrize(
    "guid",
    [
        "00:00:00:00:00:00:00:00",
        "ff:ff:ff:ff:ff:ff:ff:ff",
        "FF-FF-FF-FF-FF-FF-FF-FF",
        "0000.0000.0000.0000",
        "02:00:00:00:00:01",
        "02:00:00:00:00:00:01",
        "02:00:00:00:00:00:00:00:01",
        "0200.0000.0001",
        "0200.0000.0000.0000.0001",
        "0x0200000000000001",
        "144115188075855873",
        144115188075855873,
        "02:00:00:00:00:00:00:g1",
        f"{GUID}\n",
        f" {GUID}",
        "٠٢:00:00:00:00:00:00:01",
        7,
        [GUID],
        {"guid": GUID},
        True,
    ],
)
@pytest.mark.parametrize("place", ["runtimeConfig", "args", "key"])
def test_what_is_no_guid(guid: Any, place: str) -> None:
    """Refused wherever it stands, with its key, before anything is read of the node."""
    keys = {
        "runtimeConfig": {"runtimeConfig": {"infinibandGUID": guid}},
        "args": {"args": {"cni": {"guid": guid}}},
        "key": {"guid": guid},
    }[place]
    with pytest.raises(CniError, match=r"(?i)guid is ") as refused:
        parse(**keys)
    assert refused.value.code == 7


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({}, "mellanox.infiniband.app of args.cni is None, not 'configured'"),
        ({"args": {"cni": {"guid": GUID}}}, "mellanox.infiniband.app of args.cni is None"),
        ({"args": {"cni": {"guid": GUID, "mellanox.infiniband.app": "pending"}}}, "is 'pending'"),
        ({"args": {"cni": CONFIGURED}}, "no GUID is given"),
        ({"args": {"cni": CONFIGURED}, "runtimeConfig": {"infinibandGUID": ""}}, "no GUID is given"),
    ],
)
def test_pod_waits_for_ib_kubernetes(keys: dict[str, Any], reason: str) -> None:
    """A pod without its GUID would be in no partition, or in another's."""
    conf = parse(ibKubernetesEnabled=True, **keys)
    with pytest.raises(CniError, match=reason):
        require_ib_kubernetes(conf.raw, conf.guid)
    require_ib_kubernetes(parse(**keys).raw, None)


def test_pod_that_ib_kubernetes_has_served() -> None:
    """As Multus hands it on."""
    conf = parse(ibKubernetesEnabled=True, args={"cni": {"guid": GUID, **CONFIGURED}}, pkey="0x7FFF")
    require_ib_kubernetes(conf.raw, conf.guid)
    assert (conf.guid, conf.warnings) == (GUID, ())


def test_keys_of_ethernet_have_no_effect() -> None:
    """As with ib-sriov-cni; the log of an ADD names each of them."""
    conf = parse(vlan=0, mac="02:00:00:00:00:01", spoofchk="on", trust="on", max_tx_rate=100, link_state="enable")
    assert (conf.mac, conf.settings) == (None, {"link_state": "enable"})
    assert {warning.split()[0] for warning in conf.warnings} == {"mac", "spoofchk", "trust", "max_tx_rate"}


@pytest.mark.parametrize("keys", [{"vlan": 7}, {"vlan": 7, "vlanQoS": 1}])
def test_vlan_is_never_left_out(keys: dict[str, Any]) -> None:
    """It keeps pods apart where there is one."""
    with pytest.raises(CniError, match=r"vlan is 7.*partitions keep pods apart"):
        parse(**keys)


def test_dhcp_is_refused() -> None:
    """The plugin dhcp asks with an Ethernet address; ib-sriov-cni refuses it too."""
    with pytest.raises(CniError, match=r'ipam.type is "dhcp"'):
        parse(ipam={"type": "dhcp"})
    with pytest.raises(CniError, match=r"ipam.type is .* not of this plugin"):
        parse(ipam={"type": "sriov"})


@pytest.mark.parametrize(
    "p_key",
    ["8001", "32769", "0x0", "0x0000", "0x8000", "0x8001", "0xffff", "0x18001", "0x", "0x-1", "0x1_0", 7, 32769],
)
def test_partition_key_that_is_none(p_key: Any) -> None:
    """A warning: it is ib-kubernetes that reads it, and that refuses the bit for full membership."""
    assert any("pkey is" in warning for warning in parse(pkey=p_key).warnings)


@pytest.mark.parametrize("p_key", ["0x1", "0x5", "0x0005", "0X5", "0x7fff", "0x7FFF", ""])
def test_partition_key_of_ib_kubernetes(p_key: str) -> None:
    """In any case of letters."""
    assert parse(pkey=p_key).warnings == ()


def test_networks_of_ib_sriov_are_checked() -> None:
    """As those of type sriov are, with the node's policy; ib-kubernetes' part comes with the pod."""
    config = {"name": "ib", "type": "ib-sriov", "guid": GUID, "ibKubernetesEnabled": True, "rdmaIsolation": True}
    report = check_nad(json.dumps(config), has_resource=True)
    assert (report.faults, report.warnings) == ((), ())
    assert report.networks[0].rdma_isolation
    (fault,) = check_nad(json.dumps(config), has_resource=True, policy=Policy(guid=False)).faults
    assert "cni.allow.guid" in fault.message
    (warning,) = check_nad(json.dumps(config | {"driver": "vfio-pci"}), has_resource=True).warnings
    assert warning.startswith("rdmaIsolation has no effect in DPDK mode")
