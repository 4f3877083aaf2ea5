"""The table of keys: one place for reading, for the documentation, for the policy, and for what people misspell."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from cni.policy import Policy
from cni.protocol.effect import list_idle_keys
from cni.protocol.netconf import NetConf, parse_netconf
from cni.protocol.network_keys import KEYS, NAMES, SPELLINGS
from cni.protocol.permission import check_permission
from sriovdp.errors import CniError
from sriovdp.model import VfSettings
from tests.cni.protocol.key_table import PAGE, render

VF = "0000:01:10.2"


def parse(**keys: Any) -> NetConf:
    """Parse a network that is valid but for the given keys."""
    return parse_netconf(
        json.dumps({"cniVersion": "1.0.0", "name": "red", "type": "sriov", "deviceID": VF} | keys).encode()
    )


def test_documentation_has_every_key() -> None:
    """docs/cni.md is written by `python -m tests.cni.protocol.key_table`."""
    page = PAGE.read_text()
    assert render(page) == page
    assert page.count("<!-- keys") == 2


def test_each_key_has_a_field_and_a_name_of_its_own() -> None:
    """A value that goes nowhere would be a key without effect."""
    assert len(set(NAMES)) == len(NAMES)
    on_pf = {field.name for field in fields(VfSettings)}
    of_network = {field.name for field in fields(NetConf)} | {"if0", "master", "vf", "ifname", "l2", "state_folder"}
    for key in KEYS:
        assert not key.field or key.field in (on_pf if key.on_pf else of_network), key.name
        assert not key.forbids or key.policy, key.name


@pytest.mark.parametrize(
    "key", ["spoofchk", "trust", "link_state", "logLevel", "vlanProto", "driver", "dad", "onUnsupported"]
)
def test_empty_text_is_no_value(key: str) -> None:
    """So templates render what is not filled in; sriov-cni takes it."""
    conf = parse(**{key: ""})
    assert (dict(conf.settings), conf.driver, conf.log_level, conf.dad, conf.warnings) == (
        {},
        None,
        20,
        "optimistic",
        (),
    )


@pytest.mark.parametrize("key", ["vlan", "mtu", "max_tx_rate"])
def test_empty_text_is_no_number(key: str) -> None:
    """A VLAN that a template lost is a fault: without it the pod is in another network."""
    with pytest.raises(CniError, match=f'{key} is ""'):
        parse(**{key: ""})


@pytest.mark.parametrize("level", ["verbose", "warn", "INFO", "Debug", "trace", 5])
def test_log_keys_refuse_no_pod(level: object) -> None:
    """What concerns a log alone is a warning, and the default counts."""
    conf = parse(logLevel=level, logFile="sriov.log")
    assert (conf.log_level, conf.log_file) == (20, "")
    assert [warning.split(" is ")[0] for warning in conf.warnings] == ["logFile", "logLevel"]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("vlanId", "vlan"), ("vlan_id", "vlan"), ("vlanid", "vlan"), ("max-tx-rate", "max_tx_rate"),
        ("minTxRate", "min_tx_rate"),
        ("spoofcheck", "spoofchk"), ("spoof-chk", "spoofchk"), ("linkState", "link_state"), ("vlan-qos", "vlanQoS"),
        ("vfio-pci", "driver"), ("trsut", "trust"), ("max_rate", "max_tx_rate"), ("onunsuported", "onUnsupported"),
        ("sysctls", "sysctl"), ("device_id", "deviceID"), ("l2_enable", "l2enable"), ("logfile_", "logFile"),
    ],
)  # fmt: skip
def test_near_misses_are_named(key: str, meant: str) -> None:
    """The value is not used: a guess must not decide."""
    conf = parse(**{key: 5})
    assert conf.warnings == (f"key {key!r} is not known and has no effect: did you mean {meant!r}?",)
    assert dict(conf.settings) == {}


def test_other_unknown_keys_are_named_once_and_not_without_end() -> None:
    """Those of libcni and Multus are theirs, and a thousand keys are not a thousand lines."""
    ours = {"cni.dev/attachments": [], "masterplugin": True, "disableCheck": True}
    assert parse(**ours).warnings == ()
    assert parse(mode="bridge").warnings == ("key 'mode' is not known and has no effect",)
    many = parse(**{f"{number:05}{'x' * 10_000}": 1 for number in range(200)}).warnings
    assert (len(many), many[-1], max(map(len, many)) < 100) == (21, "180 more keys are not known", True)


def test_all_faults_are_reported_at_once() -> None:
    """With the specification's code, and what is valid for each."""
    with pytest.raises(CniError) as caught:
        parse(vlan=5000, trust="yes", mtu="x" * 100_000, sysctl=[], deviceID="eth0", mac="zz")
    error = caught.value
    assert error.code == 7
    for key in ("vlan is 5000", 'trust is "yes"', "mtu is", "sysctl is", 'deviceID is "eth0"', 'mac is "zz"'):
        assert key in error.message
    assert len(error.message) < 500


KERNEL_ONLY = {"promisc": True, "allmulti": True, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "dad": "wait"}


@pytest.mark.parametrize("key", sorted(KERNEL_ONLY))
def test_keys_without_effect_in_dpdk_mode_are_named(key: str) -> None:
    """There is no netdev in the pod; a value that changes nothing is not worth a line."""
    conf = parse(**{key: KERNEL_ONLY[key]})
    assert list_idle_keys(conf, "kernel") == list_idle_keys(conf, None) == []
    assert list_idle_keys(conf, "dpdk") == [f"{key} has no effect in DPDK mode: the VF has no netdev in the pod"]
    assert list_idle_keys(parse(promisc=False, sysctl={}, dad="optimistic"), "dpdk") == []


@pytest.mark.parametrize(
    ("keys", "idle"),
    [
        ({"logLevel": "debug"}, "logLevel has no effect without logFile"),
        ({"vf": 3}, "vf has no effect with a deviceID"),
        ({"vf": 0, "deviceID": None}, "vf has no effect without if0"),
        ({"master": "eth1"}, "master has no effect with a deviceID"),
        ({"master": "eth1", "if0": "eth2", "deviceID": None}, "master has no effect with if0"),
        ({"if0": "eth2", "vf": 3}, "vf has no effect with a deviceID"),
    ],
)
def test_keys_without_effect_for_lack_of_another_are_named(keys: dict[str, Any], idle: str) -> None:
    """Or because another one decides."""
    assert list_idle_keys(parse(**keys), "kernel") == [idle]
    assert list_idle_keys(parse(logLevel="info"), "kernel") == []


def test_keys_of_2018_work_with_a_device() -> None:
    """Intel's plugin of 2018 got deviceID from Multus, and had dpdk, l2enable and if0name of before."""
    dpdk = {"kernel_driver": "iavf", "dpdk_driver": "vfio-pci", "dpdk_tool": "/opt/dpdk-devbind.py"}
    conf = parse(l2enable=True, if0name="north", dpdk=dpdk, ipam={"type": "host-local"})
    assert conf.keys_2017
    assert (conf.driver, conf.keys_2017.ifname, conf.ipam, conf.pf, conf.device) == (
        "vfio-pci",
        "north",
        None,
        None,
        VF,
    )
    assert conf.warnings == (
        "ipam has no effect with l2enable or dpdk",
        "dpdk.dpdk_tool has no effect: sriovdp binds drivers itself",
    )


def test_master_is_if0_of_later() -> None:
    """Without a VF it names the PF; with one it says nothing, whatever stands there."""
    conf = parse(deviceID=None, master="ens1f0", vf=3)
    assert conf.keys_2017
    assert (conf.pf, conf.keys_2017.vf) == ("ens1f0", 3)
    assert parse(master=["x"], vf="y").pf is None
    assert parse(dpdk=True).warnings == ("dpdk has no effect: it must be an object",)


def test_whole_pf_is_refused() -> None:
    """A VF in its place would be another device than the network asks for."""
    assert parse(deviceID=None, if0="ens1f0", pfOnly=False).pf == "ens1f0"
    with pytest.raises(CniError, match="pfOnly is true"):
        parse(deviceID=None, if0="ens1f0", pfOnly=True)


STRICT = Policy(
    trust=False, spoofchk_off=False, promisc=False, allmulti=False, mac=False, drivers=frozenset({"kernel"}),
    vlans=((100, 199), (300, 300)), sysctls=("net.ipv4.conf.IFNAME.arp_*",), device_info_folders=(),
)  # fmt: skip
FORBIDDEN: list[tuple[dict[str, Any], str, str]] = [
    ({"trust": "on"}, "trust is on", "cni.allow.trust"),
    ({"spoofchk": "off"}, "spoofchk is off", "cni.allow.spoofchkOff"),
    ({"promisc": True}, "promisc is on", "cni.allow.promisc"),
    ({"allmulti": True}, "allmulti is on", "cni.allow.allmulti"),
    ({"mac": "02:00:00:00:00:01"}, "mac is 02:00:00:00:00:01", "cni.allow.mac"),
    ({"runtimeConfig": {"mac": "02:00:00:00:00:01"}}, "mac is", "cni.allow.mac"),
    ({"driver": "vfio-pci"}, "driver is vfio-pci", "cni.allow.drivers"),
    ({"dpdk": {"dpdk_driver": "igb_uio"}}, "driver is igb_uio", "cni.allow.drivers"),
    ({"vlan": 200}, "vlan is 200", "cni.allow.vlans"),
    ({"vlan": 0}, "vlan is 0", "cni.allow.vlans"),
    ({"sysctl": {"net.ipv4.conf.IFNAME.rp_filter": "0"}}, "rp_filter", "cni.allow.sysctls"),
    ({"runtimeConfig": {"CNIDeviceInfoFile": "/run/x"}}, "CNIDeviceInfoFile is '/run/x'", "cni.deviceInfoFolders"),
]


@pytest.mark.parametrize(("keys", "value", "policy"), FORBIDDEN)
def test_what_the_node_forbids_is_refused(keys: dict[str, Any], value: str, policy: str) -> None:
    """With code 7, the key, and the policy's own key."""
    with pytest.raises(CniError, match=value) as caught:
        check_permission(parse(**keys), STRICT)
    assert (caught.value.code, f"({policy})" in caught.value.message, policy in caught.value.hint) == (7, True, True)


def test_what_the_node_allows_is_not() -> None:
    """Values on the safe side are never asked about, and by default all is as with sriov-cni."""
    check_permission(
        parse(
            trust="off", spoofchk="on", promisc=False, allmulti=False, driver="kernel", vlan=300,
            sysctl={"net.ipv4.conf.IFNAME.arp_filter": "1"},
        ),
        STRICT,
    )  # fmt: skip
    for keys, _, policy in FORBIDDEN:
        if policy != "cni.deviceInfoFolders":
            check_permission(parse(**keys), Policy())
    with pytest.raises(CniError, match=r"vlan is 7.*trust is on"):
        check_permission(parse(trust="on", vlan=7), replace(STRICT, mac=True))


def test_spellings_lead_to_keys() -> None:
    """None is reported twice."""
    assert set(SPELLINGS.values()) == set(NAMES)
    assert sum(1 + len(key.also) for key in KEYS) == len(SPELLINGS)
