"""Results and errors in the shapes of the CNI specification."""

import json

import pytest

from cni.protocol.spec import (
    VERSIONS,
    Interface,
    IpConfig,
    Result,
    check_version,
    parse_result,
    render_error,
    render_result,
    render_versions,
)
from sriovdp.errors import CniError, DeviceError, InUseError, JournalError

RESULT = Result(
    (Interface("net1", "02:00:00:00:00:01", 1500, "/run/netns/a", "0000:01:10.2"),),
    (IpConfig("10.0.0.2/24", "10.0.0.1", 0), IpConfig("fd00::2/64", None, 0)),
    ({"dst": "0.0.0.0/0", "gw": "10.0.0.1"},),
    {"nameservers": ["10.0.0.53"]},
)


def test_result_1_1_0_has_mtu_and_pci_id() -> None:
    """The newest shape carries what DPDK applications and device-info readers look for."""
    document = json.loads(render_result(RESULT, "1.1.0"))

    assert document == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {
                "name": "net1",
                "mac": "02:00:00:00:00:01",
                "sandbox": "/run/netns/a",
                "mtu": 1500,
                "pciID": "0000:01:10.2",
            }
        ],
        "ips": [
            {"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 0},
            {"address": "fd00::2/64", "interface": 0},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}],
        "dns": {"nameservers": ["10.0.0.53"]},
    }


def test_result_0_3_1_has_ip_versions_and_neither_mtu_nor_pci_id() -> None:
    """Older callers get the shape of their own specification."""
    document = json.loads(render_result(RESULT, "0.3.1"))

    assert [ip["version"] for ip in document["ips"]] == ["4", "6"]
    assert set(document["interfaces"][0]) == {"name", "mac", "sandbox"}


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_rendered_addresses_are_read_back_the_same(version: str) -> None:
    """What we print for a version, we understand from an IPAM plugin of that version."""
    parsed = parse_result(json.loads(render_result(RESULT, version)))

    assert (parsed.ips, parsed.routes, dict(parsed.dns)) == (RESULT.ips, RESULT.routes, RESULT.dns)


def test_ip4_form_of_the_oldest_plugins_is_read() -> None:
    """An IPAM plugin of specification 0.2.0 still serves."""
    parsed = parse_result({"ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}]}})

    assert parsed == Result((), (IpConfig("10.0.0.2/24", "10.0.0.1"),), ({"dst": "0.0.0.0/0"},), {})


def test_null_result_is_an_empty_one() -> None:
    """Plugins without a result print `null`."""
    assert parse_result(None) == Result()


def test_error_has_code_message_and_remedy() -> None:
    """The specification's error object, with the remedy in its details."""
    document = json.loads(render_error(CniError(7, "vlan is 9999", hint="it must be below 4095")))

    assert document == {"cniVersion": "1.1.0", "code": 7, "msg": "vlan is 9999", "details": "it must be below 4095"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeviceError("gone"), 101),
        (InUseError("held"), 100),
        (JournalError("disk"), 5),
        (RuntimeError("bug"), 999),
    ],
)
def test_other_errors_have_codes_of_ours(error: Exception, code: int) -> None:
    """Errors of the kernel side and plain bugs differ for the caller."""
    assert json.loads(render_error(error))["code"] == code


def test_unknown_version_lists_the_known_ones() -> None:
    """Code 1 says which versions would do."""
    with pytest.raises(CniError, match=r"2\.0\.0") as caught:
        check_version("2.0.0")

    assert (caught.value.code, "1.1.0" in caught.value.hint) == (1, True)


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_oldest_results_have_one_address_of_each_family(version: str) -> None:
    """The ip4/ip6 form, with each family's routes and no interfaces."""
    document = json.loads(render_result(RESULT, version))

    assert document == {
        "cniVersion": version,
        "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}]},
        "ip6": {"ip": "fd00::2/64"},
        "dns": {"nameservers": ["10.0.0.53"]},
    }
    assert [ip.address for ip in parse_result(document).ips] == ["10.0.0.2/24", "fd00::2/64"]


@pytest.mark.parametrize("version", VERSIONS)
def test_result_without_addresses_is_valid_in_every_version(version: str) -> None:
    """Libcni cannot convert such a result to the oldest form; we print it all the same."""
    document = json.loads(render_result(Result((Interface("net1"),)), version))

    assert document["cniVersion"] == version
    assert parse_result(document).ips == ()


def test_chain_keeps_what_earlier_plugins_gave() -> None:
    """Indices of our addresses go on after the interfaces of the previous result."""
    previous = Result((Interface("eth0"),), (IpConfig("192.0.2.2/24", None, 0),), (), {"domain": "a"})

    merged = Result((Interface("net1"),), (IpConfig("10.0.0.2/24", None, 0),)).after(previous)

    assert [interface.name for interface in merged.interfaces] == ["eth0", "net1"]
    assert [(ip.address, ip.interface) for ip in merged.ips] == [("192.0.2.2/24", 0), ("10.0.0.2/24", 1)]
    assert merged.dns == {"domain": "a"}


def test_versions_are_answered_newest_first_told() -> None:
    """VERSION lists all that check_version takes."""
    document = json.loads(render_versions())
    assert (document["cniVersion"], document["supportedVersions"]) == ("1.1.0", list(VERSIONS))
