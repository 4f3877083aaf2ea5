"""The network configuration: what is taken, and what is refused with key, value and remedy."""

import json
from typing import Any

import pytest

from cni.protocol.keys_2017 import Keys2017
from cni.protocol.netconf import NetConf, parse_netconf, parse_network
from cni.protocol.spec import VERSIONS
from sriovdp.errors import CniError

VF = "0000:01:10.2"


def parse(args: str = "", **keys: Any) -> NetConf:
    """Parse a configuration that is right but for the given keys."""
    document = {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": VF} | keys
    return parse_netconf(json.dumps(document).encode(), args)


def test_minimal_configuration_changes_nothing_on_the_vf() -> None:
    """Keys that are not named leave the VF's settings alone."""
    conf = parse()

    assert (conf.device, conf.mac, dict(conf.settings), conf.ipam) == (VF, None, {}, None)


def test_settings_take_the_names_and_values_of_the_kernel_side() -> None:
    """All keys for the PF arrive as VfSettings has them."""
    conf = parse(vlan=210, vlanQoS=3, spoofchk="on", trust="off", link_state="auto", min_tx_rate=1, max_tx_rate=9)

    assert dict(conf.settings) == {
        "vlan": 210,
        "qos": 3,
        "vlan_proto": "802.1Q",
        "spoofchk": True,
        "trust": False,
        "link_state": "auto",
        "min_tx_rate": 1,
        "max_tx_rate": 9,
    }


def test_vlan_zero_clears_the_port_vlan() -> None:
    """VLAN 0 is a wish of its own, unlike no VLAN at all."""
    assert dict(parse(vlan=0).settings) == {"vlan": 0, "qos": 0, "vlan_proto": "802.1Q"}


@pytest.mark.parametrize(
    ("runtime", "args", "expected"),
    [
        ("02:00:00:00:00:01", "MAC=02:00:00:00:00:02", "02:00:00:00:00:01"),
        (None, "IgnoreUnknown=1;MAC=02:00:00:00:00:02", "02:00:00:00:00:02"),
        (None, "", "02:00:00:00:00:03"),
    ],
)
def test_mac_of_runtime_config_wins_over_args_and_config(runtime: str | None, args: str, expected: str) -> None:
    """The order of precedence is the one of today's plugin."""
    conf = parse(args, mac="02:00:00:00:00:03".upper(), runtimeConfig={"mac": runtime})

    assert conf.mac == expected


@pytest.mark.parametrize(
    ("keys", "code", "told"),
    [
        ({"vlan": "210"}, 7, "vlan"),
        ({"vlan": 4095}, 7, "4095"),
        ({"vlan": True}, 7, "vlan"),
        ({"vlanQoS": 3}, 7, "vlanQoS"),
        ({"vlan": 0, "vlanQoS": 3}, 7, "vlanQoS"),
        ({"vlan": 5, "vlanQoS": 8}, 7, "vlanQoS"),
        ({"vlan": 5, "vlanProto": "802.1x"}, 7, "802.1x"),
        ({"vlan": 0, "vlanProto": "802.1ad"}, 7, "vlanProto"),
        ({"spoofchk": "On"}, 7, "On"),
        ({"trust": True}, 7, "trust"),
        ({"min_tx_rate": "5"}, 7, "min_tx_rate"),
        ({"mtu": 67}, 7, "mtu"),
        ({"mtu": "9000"}, 7, "mtu"),
        ({"promisc": "on"}, 7, "promisc"),
        ({"driver": "igb"}, 7, "driver"),
        ({"driver": "vfio-pci", "ipam": {"type": "dhcp"}}, 7, "dhcp"),
        ({"ipam": {"type": "../sh"}}, 7, "ipam.type"),
        ({"onUnsupported": "ignore"}, 7, "onUnsupported"),
        ({"dad": "on"}, 7, "dad"),
        ({"sysctl": {"net.core.somaxconn": "1"}}, 7, "somaxconn"),
        ({"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": 1}}, 7, "arp_filter"),
        ({"runtimeConfig": []}, 7, "runtimeConfig"),
        ({"runtimeConfig": {"mac": "zz"}}, 7, "runtimeConfig.mac"),
        ({"runtimeConfig": {"CNIDeviceInfoFile": "/a/../b"}}, 7, "CNIDeviceInfoFile"),
        ({"if0": "eth0/1"}, 7, "if0"),
        ({"if0": "eth0", "if0name": "lo"}, 7, "if0name"),
        ({"if0": "eth0", "l2enable": "maybe"}, 7, "l2enable"),
        ({"if0": "eth0", "vf": -1}, 7, "vf"),
        ({"if0": "eth0", "dpdk": {"kernel_driver": "ixgbevf"}}, 7, "dpdk_driver"),
        ({"dns": 1}, 7, "dns"),
        ({"spoofchk": "true"}, 7, "spoofchk"),
        ({"trust": "yes"}, 7, "trust"),
        ({"link_state": "up"}, 7, "link_state"),
        ({"min_tx_rate": 10, "max_tx_rate": 5}, 7, "min_tx_rate"),
        ({"max_tx_rate": -1}, 7, "max_tx_rate"),
        ({"mac": "zz"}, 7, "zz"),
        ({"mac": "01:00:5e:00:00:01"}, 7, "01:00:5e:00:00:01"),
        ({"deviceID": "eth0"}, 7, "eth0"),
        ({"name": None}, 7, "name"),
        ({"ipam": "host-local"}, 7, "ipam"),
        ({"cniVersion": "9.9.9"}, 1, "9.9.9"),
    ],
)
def test_faults_name_key_and_value(keys: dict[str, Any], code: int, told: str) -> None:
    """A wrong value is an error with the specification's code, never a silent default."""
    with pytest.raises(CniError, match=told) as caught:
        parse(**keys)

    assert (caught.value.code, bool(caught.value.hint)) == (code, True)


@pytest.mark.parametrize("stdin", [b"", b"{", b"[]", b"\xff"])
def test_no_json_object_is_a_decoding_failure(stdin: bytes) -> None:
    """What cannot be decoded has code 6."""
    with pytest.raises(CniError) as caught:
        parse_netconf(stdin)

    assert caught.value.code == 6


@pytest.mark.parametrize("closing", ["]" * 5000, '\\"' + "]" * 5000, "}" * 5000, "\u2222" * 100 + "]" * 5000])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_brackets_in_a_text_hide_no_depth(closing: str, encoding: str) -> None:
    """Read here, such a network would fail when it is written for the IPAM plugin."""
    text = f'{{"name": "{closing}", "x": {"[" * 900}{"]" * 900}}}'
    with pytest.raises(CniError) as caught:
        parse_network(text.encode(encoding), "DEL")
    assert caught.value.code == 6


def test_brackets_in_a_text_are_no_depth() -> None:
    """An opening one nests as little as a closing one."""
    text = json.dumps({"cniVersion": "1.0.0", "name": "n", "type": "sriov", "x": "[" * 5000})
    assert parse_network(text.encode(), "DEL").raw["x"] == "[" * 5000


def test_missing_device_reports_where_it_should_have_come_from() -> None:
    """The most frequent support question is answered by the error itself."""
    conf = parse(deviceID=None)

    with pytest.raises(CniError, match="deviceID is missing") as caught:
        conf.require_device()

    assert "resourceName" in caught.value.hint


def test_device_of_runtime_config_serves_when_the_configuration_has_none() -> None:
    """The deviceID capability reaches us in runtimeConfig."""
    assert parse(deviceID=None, runtimeConfig={"deviceID": VF.upper()}).device == VF


def test_keys_are_read_in_any_case_with_a_warning() -> None:
    """Go's decoder does not look at case, so configurations in the field do not either; the documented one wins."""
    conf = parse(deviceID=None, DeviceId=VF, VLAN=210, vlan=211, RuntimeConfig={"MAC": "02:00:00:00:00:09"}, trsut="on")

    assert (conf.device, conf.settings["vlan"], conf.mac) == (VF, 211, "02:00:00:00:00:09")
    assert conf.warnings == (
        "key 'DeviceId' is read as 'deviceID'",
        "key 'VLAN' is read as 'vlan'",
        "key 'RuntimeConfig' is read as 'runtimeConfig'",
        "key 'trsut' is not known and has no effect: did you mean 'trust'?",
        "key 'MAC' is read as 'mac'",
    )


@pytest.mark.parametrize("key", ["Type", "TYPE", "tYpe"])
def test_type_of_ipam_is_read_in_any_case(key: str) -> None:
    """A pod would start without an address otherwise, and a DEL would free none; what is refused stays so."""
    conf = parse(ipam={key: "host-local", "subnet": "10.1.0.0/24"})
    assert (conf.ipam, conf.warnings) == ("host-local", (f"key 'ipam.{key}' is read as 'ipam.type'",))
    assert conf.raw["ipam"] == {"type": "host-local", "subnet": "10.1.0.0/24"}
    assert parse(ipam={key: "dhcp", "type": "static"}).ipam == "static"
    deleted = parse_network(json.dumps({"name": "net-a", "ipam": {key: "host-local"}}).encode(), "DEL")
    assert deleted.raw["ipam"]["type"] == "host-local"
    for escape in ("../evil", "sriov"):
        with pytest.raises(CniError, match=r"ipam\.type"):
            parse(ipam={key: escape})


@pytest.mark.parametrize("mac", ["02-00-00-00-AA-01", "0200.0000.aa01"])
def test_macs_are_taken_in_the_forms_of_go(mac: str) -> None:
    """What net.ParseMAC of today's plugin takes."""
    assert parse(mac=mac).mac == "02:00:00:00:aa:01"


@pytest.mark.parametrize(
    ("args", "told"), [("MAC", "KEY=VALUE"), ("VF=1;X=2", "unknown VF, X"), ("IgnoreUnknown=0;VF=1", "unknown VF")]
)
def test_wrong_args_are_a_wrong_environment(args: str, told: str) -> None:
    """CNI_ARGS has to be pairs of known names, or say that others do not matter."""
    with pytest.raises(CniError) as caught:
        parse(args)
    assert (caught.value.code, told in str(caught.value)) == (4, True)


@pytest.mark.parametrize("args", ["", "IgnoreUnknown=true;VF=1", "K8S_POD_NAME=a;K8S_POD_UID=b", "IP=10.0.0.2/24"])
def test_args_of_kubernetes_and_ipam_are_known(args: str) -> None:
    """What Multus sends needs no IgnoreUnknown."""
    assert parse(args).device == VF


def test_del_reads_no_more_than_it_needs() -> None:
    """A configuration that ADD refused must not make DEL fail."""
    network = parse_network(json.dumps({"name": "a", "vlan": "x", "deviceID": "y", "runtimeConfig": 1}).encode(), "DEL")
    assert (network.name, network.version) == ("a", "0.1.0")


@pytest.mark.parametrize(("command", "first"), [("CHECK", "0.4.0"), ("STATUS", "1.1.0"), ("GC", "1.1.0")])
@pytest.mark.parametrize("version", VERSIONS)
def test_verbs_exist_from_their_version_on(command: str, first: str, version: str) -> None:
    """An older configuration has no such verb (code 1)."""
    text = json.dumps({"cniVersion": version, "name": "a"}).encode()
    if VERSIONS.index(version) >= VERSIONS.index(first):
        assert parse_network(text, command).version == version
        return
    with pytest.raises(CniError, match=f"does not allow {command}") as caught:
        parse_network(text, command)
    assert caught.value.code == 1


def parse_old(**keys: Any) -> NetConf:
    """Parse a configuration as Multus of 2017 pastes it together: neither name nor version."""
    return parse_netconf(json.dumps({"type": "sriov"} | keys).encode())


def test_application_note_4_1_kernel_mode() -> None:
    """First free VF, addresses by IPAM; the IPAM plugin gets a name, as today's insist on one."""
    conf = parse_old(if0="enp12s0f1", ipam={"type": "host-local", "subnet": "10.56.217.0/24"}, masterplugin=True)

    assert conf.keys_2017 == Keys2017("enp12s0f1")
    assert (conf.version, conf.ipam, conf.device) == ("0.1.0", "host-local", None)
    assert (conf.raw["name"], "cniVersion" in conf.raw) == ("sriov-enp12s0f1", False)


def test_empty_name_is_a_missing_one() -> None:
    """So Multus hands on a delegate without a name; only DEL goes without, for a sandbox that must be able to go."""
    assert parse_old(if0="enp2s0", name="").name == "sriov-enp2s0"
    nameless = json.dumps({"cniVersion": "1.0.0", "type": "sriov", "name": ""}).encode()
    with pytest.raises(CniError, match="name is null"):
        parse_network(nameless, "ADD")
    assert parse_network(nameless, "DEL").name == ""


def test_application_note_4_1_l2_with_vlan() -> None:
    """No addresses even where IPAM is configured, and the interface has its own name."""
    conf = parse_old(if0="enp2s0", vlan=210, if0name="north", l2enable="true", ipam={"type": "host-local"})

    assert conf.keys_2017 == Keys2017("enp2s0", ifname="north", l2=True)
    assert (conf.settings["vlan"], conf.ipam) == (210, None)


def test_application_note_5_1_dpdk() -> None:
    """The driver to bind. The tool may have the blanks of the printed page: it is never run."""
    tool = "/root/dpdk/                                tools/dpdk-devbind.py"
    dpdk = {"kernel_driver": "ixgbevf", "dpdk_driver": "igb_uio", "dpdk_tool": tool}
    conf = parse_old(if0="enp4s0f3", if0name="north0", dpdk=dpdk, vf=3)

    assert conf.keys_2017 == Keys2017("enp4s0f3", 3, "north0", False, True, "igb_uio", "ixgbevf")
    assert conf.driver == "igb_uio"


def test_vlan_0_of_2017_is_none() -> None:
    """The plugin of 2017 left the VLAN alone then; with a deviceID it is a wish."""
    assert dict(parse_old(if0="enp2s0", vlan=0).settings) == {}
    assert parse_old(if0="enp2s0", vlan=0, deviceID=VF).settings["vlan"] == 0
