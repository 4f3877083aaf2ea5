"""The CustomResourceDefinitions take what the operator's users write, and refuse what we refuse."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from sriovdp.cluster.specs import GROUP, SPECS, NicSelector, Trunk
from sriovdp.config.keys import list_keys

FOLDER = Path(__file__).parents[2] / "config/crd"
CRDS: dict[str, dict[str, Any]] = {
    crd["spec"]["names"]["kind"]: crd
    for crd in (yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml")))
    if crd["kind"] == "CustomResourceDefinition"
}


def find_schema(kind: str) -> dict[str, Any]:
    """The schema of a kind."""
    [version] = CRDS[kind]["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def list_schemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema and all inside."""
    yield schema
    for inner in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from list_schemas(inner)


def check(kind: str, spec: dict[str, Any]) -> None:
    """Raise ValidationError for an object that the API server would refuse."""
    jsonschema.Draft7Validator(find_schema(kind)).validate({"metadata": {"name": "a"}, "spec": spec})


def test_kinds_are_the_operators() -> None:
    """Group, version, scope and names as clients know them."""
    assert set(CRDS) == {*SPECS, "SriovNetworkNodeState"}
    for kind, crd in CRDS.items():
        spec = crd["spec"]
        assert (spec["group"], spec["scope"], spec["versions"][0]["name"]) == (GROUP, "Namespaced", "v1")
        assert crd["metadata"]["name"] == f"{spec['names']['plural']}.{GROUP}"
        assert spec["names"]["listKind"] == f"{kind}List"
    assert CRDS["SriovNetworkNodePolicy"]["spec"]["names"]["plural"] == "sriovnetworknodepolicies"
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert listed == sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")


@pytest.mark.parametrize("version", ["1.28", "1.37"])
@pytest.mark.parametrize("kind", sorted(CRDS))
def test_definition_is_valid(kind: str, version: str) -> None:
    """By Kubernetes' schema, and structural: each schema has a type, and no two ways to say one thing."""
    kubernetes_validate.validate(CRDS[kind], version, strict=True)
    for schema in list_schemas(find_schema(kind)):
        assert "type" in schema or schema.get("x-kubernetes-int-or-string")
        assert not ("properties" in schema and "additionalProperties" in schema)


@pytest.mark.parametrize("kind", sorted(SPECS))
def test_fields_are_those_that_are_read(kind: str) -> None:
    """A key of one is a key of the other, or a user's field would be lost on the way."""
    spec = find_schema(kind)["properties"]["spec"]
    assert set(spec["properties"]) == {entry.name for entry in list_keys(SPECS[kind])}
    for key, section in (("nicSelector", NicSelector), ("trunk", Trunk)):
        if key in spec["properties"]:
            inner = spec["properties"][key].get("items", spec["properties"][key])
            assert set(inner["properties"]) == {entry.name for entry in list_keys(section)}


GOOD = {"resourceName": "r", "numVfs": 4, "nicSelector": {"pfNames": ["a#0-3"]}, "nodeSelector": {"a": "b"}}


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (
            "SriovNetworkNodePolicy",
            GOOD | {"mtu": 9000, "linkType": "ETH", "bridge": {"ovs": {"bridge": {"failMode": "secure"}}}},
        ),
        ("SriovNetwork", {"resourceName": "r", "vlan": 0, "minTxRate": 0, "logLevel": ""}),
        ("OVSNetwork", {"resourceName": "r", "trunk": [{"minID": 1, "maxID": 4095}]}),
        ("SriovNetworkPoolConfig", {"maxUnavailable": "10%", "nodeSelector": {"matchLabels": {"a": "b"}}}),
        ("SriovOperatorConfig", {"featureGates": {"x": True}, "disablePlugins": ["mellanox"]}),
        ("SriovNetworkNodeState", {"interfaces": [{"pciAddress": "x", "vfGroups": [{"vfRange": "0-3"}]}]}),
    ],
)
def test_objects_are_taken(kind: str, spec: dict[str, Any]) -> None:
    """What users have."""
    check(kind, spec)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("SriovNetworkNodePolicy", {key: GOOD[key] for key in GOOD if key != "nodeSelector"}),
        ("SriovNetworkNodePolicy", GOOD | {"priority": 100}),
        ("SriovNetworkNodePolicy", GOOD | {"mtu": 0}),
        ("SriovNetworkNodePolicy", GOOD | {"deviceType": "igb_uio"}),
        ("SriovNetworkNodePolicy", GOOD | {"nodeSelector": {"a": True}}),
        ("SriovNetwork", {"resourceName": "r", "vlan": 4095}),
        ("SriovNetwork", {"resourceName": "r", "vlanProto": "802.1x"}),
        ("SriovIBNetwork", {"linkState": "auto"}),
        ("OVSNetwork", {"resourceName": "r", "trunk": [{"id": 4096}]}),
        ("SriovNetworkPoolConfig", {"rdmaMode": "both"}),
        ("SriovNetworkNodeState", {"interfaces": [{"name": "a"}]}),
    ],
)
def test_objects_are_refused(kind: str, spec: dict[str, Any]) -> None:
    """What the operator's own definitions refuse."""
    with pytest.raises(jsonschema.ValidationError):
        check(kind, spec)
