"""Networks of sriov-network-operator become the NetworkAttachmentDefinitions that it makes, byte for byte."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sriovdp.cluster.conversion import convert_networks
from sriovdp.cluster.findings import Findings
from sriovdp.cluster.json_text import decode, indent
from sriovdp.cluster.nad import render_network
from sriovdp.cluster.reading import read_objects
from sriovdp.cluster.specs import SPECS
from tests.objects.making import make_object, read

GOLDEN = Path(__file__).parent / "golden"
VRF = '{"type":"vrf","vrfname":"blue"}'
FULL = {
    "vlan": 100,
    "vlanQoS": 3,
    "vlanProto": "802.1ad",
    "spoofChk": "off",
    "trust": "on",
    "minTxRate": 10,
    "maxTxRate": 0,
    "linkState": "enable",
    "logLevel": "debug",
    "logFile": "/var/log/sriov.log",
    "capabilities": '{"mac": true,"ips":[ ]}',
    "ipam": """{ "type": "host-local",
      "ranges": [ [ {"subnet": "10.1.0.0/16", "weight": 1.50e3} ] ], "routes": [{"dst": "0.0.0.0/0"}] }""",
}
OVS = {
    "capabilities": '{"foo": "bar"}',
    "bridge": "test",
    "vlan": 100,
    "mtu": 1500,
    "trunk": [{"id": 120}, {"minID": 500, "maxID": 550}],
    "interfaceType": "netdev",
    "ipam": '{"type":"foo"}',
}


def render(kind: str, spec: dict[str, Any]) -> tuple[Any, Findings]:
    """The NetworkAttachmentDefinition of a network named ns/test, as the operator's own tests have it."""
    whole = {"resourceName": "testresource", "networkNamespace": "testnamespace"} | spec
    manifests, findings = read(make_object(kind, "test", whole, "ns"))
    networks: list[Any] = read_objects(manifests, SPECS[kind], findings)
    return (render_network(networks[0], "example.com", findings) if networks else None), findings


@pytest.mark.parametrize(
    ("golden", "kind", "spec"),
    [
        ("simple", "SriovNetwork", {}),
        ("chained", "SriovNetwork", {"metaPlugins": f"\n{VRF}\n"}),
        ("full", "SriovNetwork", FULL),
        ("simpleib", "SriovIBNetwork", {"capabilities": '{"infinibandGUID":true}'}),
        ("simpleovs", "OVSNetwork", {}),
        ("chainedovs", "OVSNetwork", {"mtu": 1500, "metaPlugins": VRF}),
        ("complexovs", "OVSNetwork", OVS),
    ],
)
def test_network_is_the_operators(golden: str, kind: str, spec: dict[str, Any]) -> None:
    """The golden files are what Go's json.Indent makes of the operator's own templates."""
    nad, findings = render(kind, spec)
    assert not findings.faults
    assert nad["spec"]["config"] == (GOLDEN / f"{golden}.json").read_text()
    assert nad["metadata"] == {
        "name": "test",
        "namespace": "testnamespace",
        "annotations": {
            "k8s.v1.cni.cncf.io/resourceName": "example.com/testresource",
            "sriovnetwork.openshift.io/owner-ref": f"{kind}.sriovnetwork.openshift.io/ns/test",
        },
    }


def test_texts_stay_as_they_are() -> None:
    """The operator removes blanks inside texts and cannot render an apostrophe."""
    nad, findings = render("SriovNetwork", {"ipam": '{"type":"x","note":"it\'s  two"}'})
    assert json.loads(nad["spec"]["config"])["ipam"] == {"type": "x", "note": "it's  two"}
    assert any("white space inside its texts stays" in warning for warning in findings.warnings)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"capabilities": "foo"}, "capabilities: is no JSON"),
        ({"ipam": "{}}"}, "ipam: is no JSON"),
        ({"ipam": "[]"}, "must be a JSON object"),
        ({"ipam": '{},"evil":{}'}, "ipam: is no JSON"),
        ({"ipam": '{"a":NaN}'}, "no JSON"),
        ({"ipam": "[" * 100_000}, "nested deeper"),
        ({"metaPlugins": '{}],"evil":[{}'}, "metaPlugins: is no JSON"),
        ({"metaPlugins": "1"}, "must be JSON objects"),
        ({"vlan": 4095}, "vlan"),
        ({"vlanQoS": 8}, "vlanQoS"),
        ({"vlanProto": "802.1x"}, "vlanProto"),
        ({"spoofChk": True}, "spoofChk"),
        ({"minTxRate": -1}, "minTxRate"),
        ({"networkNamespace": "../x"}, "networkNamespace"),
        ({"logLevel": "trace"}, "logLevel"),
    ],
)
def test_invalid_network_is_a_fault(spec: dict[str, Any], word: str) -> None:
    """No text of a network can end what is around it."""
    nad, findings = render("SriovNetwork", spec)
    assert nad is None
    assert any(word in fault for fault in findings.faults)


def test_log_file_cannot_leave_its_text() -> None:
    """The operator pastes it between quotes."""
    nad, _ = render("SriovNetwork", {"logFile": '/x","trust":"on'})
    assert json.loads(nad["spec"]["config"])["logFile"] == '/x","trust":"on'


def convert(*objects: dict[str, Any]) -> tuple[list[dict[str, Any]], Findings]:
    """Networks of a set of objects."""
    manifests, findings = read(*objects)
    return convert_networks(manifests, "example.com", findings), findings


def make_nad(owner: str | None) -> dict[str, Any]:
    """A network that is there already, as `kubectl get -o yaml` prints it."""
    nad = make_object("NetworkAttachmentDefinition", "blue", {"config": "{}"}, "red", "k8s.cni.cncf.io/v1")
    annotations = {"team": "a"} | ({"sriovnetwork.openshift.io/owner-ref": owner} if owner else {})
    nad["metadata"] |= {"uid": "1", "resourceVersion": "7", "annotations": annotations}
    return nad


def test_annotations_that_people_added_stay() -> None:
    """The operator replaces all of them. A hand edit of the config is reported."""
    network = make_object("SriovNetwork", "blue", {"resourceName": "r"}, "red")
    [nad], findings = convert(network, make_nad("SriovNetwork.sriovnetwork.openshift.io/red/blue"))
    assert not findings.faults
    assert nad["metadata"]["annotations"]["team"] == "a"
    assert any("differs from what SriovNetwork red/blue says" in warning for warning in findings.warnings)
    assert json.loads(nad["spec"]["config"])["logLevel"] == "info"


def test_another_owner_is_a_fault() -> None:
    """So are two networks that make one NetworkAttachmentDefinition."""
    network = make_object("SriovNetwork", "blue", {"resourceName": "r"}, "red")
    _, findings = convert(network, make_nad("OVSNetwork.sriovnetwork.openshift.io/red/blue"))
    assert any("belongs to OVSNetwork" in fault for fault in findings.faults)
    _, findings = convert(network, make_object("SriovIBNetwork", "blue", {"resourceName": "r"}, "red"))
    assert any("makes the same" in fault for fault in findings.faults)


def test_other_networks_are_kept_without_the_servers_fields() -> None:
    """A NetworkAttachmentDefinition of nobody's is written as it is."""
    [nad], _ = convert(make_nad(None))
    assert nad["metadata"] == {"name": "blue", "namespace": "red", "annotations": {"team": "a"}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(JSON, st.sampled_from([None, 0, 1, 3]))
def test_indented_json_means_the_same(value: Any, spaces: int | None) -> None:
    """As Python indents it, however it was written before."""
    assert indent(json.dumps(value, indent=spaces)) == json.dumps(value, indent=4)


@given(st.text(alphabet='{}[]",:\\ \n0a', max_size=40))
def test_json_is_decoded_or_refused(text: str) -> None:
    """A text that Python's reader takes is taken, any other is a ValueError."""
    try:
        expected = json.loads(text, parse_int=str, parse_float=str)
    except ValueError:
        with pytest.raises(ValueError, match="is no JSON"):
            decode(text)
    else:
        assert decode(text) == expected
