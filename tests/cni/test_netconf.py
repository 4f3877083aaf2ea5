"""The network configuration: what is taken, and what is refused with key, value and remedy."""

import json
from typing import Any

import pytest

from cni.netconf import NetConf, parse_netconf
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
        ({"vlan": 5, "vlanProto": "802.1ad"}, 2, "802.1ad"),
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
    """What can not be decoded has code 6."""
    with pytest.raises(CniError) as caught:
        parse_netconf(stdin)

    assert caught.value.code == 6


def test_missing_device_tells_where_it_should_have_come_from() -> None:
    """The most frequent support question is answered by the error itself."""
    conf = parse(deviceID=None)

    with pytest.raises(CniError, match="deviceID is missing") as caught:
        conf.require_device()

    assert "resourceName" in caught.value.hint


def test_device_of_runtime_config_serves_when_the_configuration_has_none() -> None:
    """The deviceID capability reaches us in runtimeConfig."""
    assert parse(deviceID=None, runtimeConfig={"deviceID": VF.upper()}).device == VF
