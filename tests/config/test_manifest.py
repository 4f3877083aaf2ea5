"""A config file inside a Kubernetes manifest."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sriovdp.config.file import load, parse
from sriovdp.config.nodes import NodeIdentity
from sriovdp.errors import ConfigError

TEXT = '{"resourceList":[{"resourceName":"%s","selectors":{"vendors":["8086"]}}]}'

CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: nic-pools, namespace: kube-system}
data:
  config.json: |
    {
      "resourceList": [
        {"resourceName": "a", "selectors": {"vendors": ["8086"]}}
      ]
    }
"""


def make_map(name: str, **data: str) -> dict[str, Any]:
    """A ConfigMap with this data."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def list_names(text: str, key: str = "", node: str = "") -> list[str]:
    """Names of the pools."""
    return [pool.name for pool in parse(text, "x", key=key, node=node).pools]


def test_the_manifest_is_read() -> None:
    """As YAML, as JSON (`kubectl get -o json`), in a list, and beside other objects."""
    as_json = make_map("nic-pools", **{"config.json": TEXT % "a"})
    other = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "x"}}
    assert list_names(CONFIG_MAP) == ["a"]
    assert list_names(json.dumps(as_json)) == ["a"]
    assert list_names(json.dumps({"apiVersion": "v1", "kind": "List", "items": [other, as_json]})) == ["a"]
    assert list_names(f"{json.dumps(other)}\n---\n{CONFIG_MAP}---\n{json.dumps(make_map('logs', level='info'))}\n") == [
        "a"
    ]


def test_a_manifest_cut_to_its_data_is_read() -> None:
    """Without `apiVersion`, as people copy it; faults inside are those of the text."""
    cut = CONFIG_MAP.replace("apiVersion: v1\n", "")
    assert list_names(cut) == ["a"]
    with pytest.raises(ConfigError, match=r"line 8: '}' stands here, and '\[' of line 6 is open"):
        parse(cut.replace("      ]\n", ""), "x")


def test_every_line_in_a_fault_is_one_of_the_file() -> None:
    """Those of brackets too that are open, where the text begins further down."""
    with pytest.raises(ConfigError, match=r"and '\[' of line 7 and '{' of line 6 are not closed") as caught:
        parse(CONFIG_MAP.replace("      ]\n    }\n", ""), "x")
    assert "line 8" in str(caught.value)
    one_line = json.dumps(make_map("m", **{"config.json": '{\n"resourceList": [1\n}'}))
    with pytest.raises(ConfigError, match=r"line 1: line 3, column 1 of this text: .* '\[' of line 2 is open"):
        parse(one_line, "x")


def test_two_maps_with_one_key_are_told_apart() -> None:
    """By the names that --key takes."""
    both = "\n---\n".join(json.dumps(make_map(name, **{"config.json": TEXT % name})) for name in ("red", "blue"))
    with pytest.raises(ConfigError, match=r"choose one by its key: red/config\.json, blue/config\.json"):
        parse(both, "x")
    assert list_names(both, "blue/config.json") == ["blue"]


def test_a_policy_of_the_network_operator_is_read() -> None:
    """It has the text in `spec.sriovDevicePlugin.config`."""
    policy = {
        "apiVersion": "mellanox.com/v1alpha1",
        "kind": "NicClusterPolicy",
        "spec": {"sriovDevicePlugin": {"config": TEXT % "hostdev"}},
    }
    assert list_names(json.dumps(policy)) == ["hostdev"]


def test_yaml_inside_is_read() -> None:
    """The text may be YAML, with entries of ours."""
    text = "physicalFunctions: [{select: {pfNames: [a]}, numVfs: 1}]\n"
    assert len(parse(json.dumps(make_map("m", **{"config.yaml": text})), "x").physical_functions) == 1


def test_one_of_several_is_chosen(tmp_path: Path) -> None:
    """By its key, by the key with the ConfigMap's name, by the node's name, or by what is a config at all."""
    several = json.dumps(make_map("pools", red=TEXT % "a", blue=TEXT % "b", readme="hello"))
    assert list_names(several, "red") == ["a"]
    assert list_names(several, "pools/blue") == ["b"]
    assert list_names(several, node="blue") == ["b"]
    assert list_names(json.dumps(make_map("pools", readme="hello", only=TEXT % "c"))) == ["c"]
    (tmp_path / "m.json").write_text(several)
    assert [pool.name for pool in load(tmp_path / "m.json", NodeIdentity("blue")).pools] == ["b"]
    assert [pool.name for pool in load(tmp_path / "m.json", NodeIdentity("blue"), key="red").pools] == ["a"]


@pytest.mark.parametrize(
    ("text", "key", "fault"),
    [
        (json.dumps(make_map("m", red=TEXT % "a", blue=TEXT % "b")), "", "choose one by its key: red, blue"),
        (json.dumps(make_map("m", red=TEXT % "a")), "green", "the manifest has no key 'green'; it has: red"),
        (json.dumps(make_map("m")), "", "this is a Kubernetes manifest without a config file"),
        ("apiVersion: v1\nkind: Pod\nspec: {}\n", "", "this is a Kubernetes manifest without a config file"),
        (CONFIG_MAP.replace('"8086"', '"x"'), "", "line 8: resourceList[0].selectors.vendors[0]: 'x': an id is"),
        (CONFIG_MAP.replace('"a",', '"a"'), "", "line 8: a comma is missing after"),
        (
            json.dumps(make_map("m", red='{"a": 1}}'), indent=1),
            "",
            "line 1, column 9 of this text: there is one '}'",
        ),
        (
            CONFIG_MAP.replace("    {\n", "    ---\n    a: 1\n    ---\n    {\n"),
            "",
            "config.json: has a second document",
        ),
        ("a: 1\n---\nb: 2\n", "", "line 3: a second document begins here"),
        ("a: 1\n---\n" * 200, "", "more than 100 documents"),
    ],
)
def test_a_fault_is_where_it_stands_in_the_manifest(text: str, key: str, fault: str) -> None:
    """Lines are those of the manifest, and what can be chosen is listed."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "x", key=key)
    assert fault in caught.value.faults[0]


PARTS = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["ConfigMap", "List", TEXT % "a", "{", "a: [", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "data", "items", "metadata", "name", "config.json"]), inner, max_size=4
        )
    ),
    max_leaves=15,
)


@given(
    st.dictionaries(st.sampled_from(["kind", "data", "items", "metadata", "spec"]), PARTS), st.sampled_from(["", "a"])
)
def test_any_manifest_is_a_config_or_a_config_error(tree: dict[str, Any], key: str) -> None:
    """Whatever stands where."""
    for kind in ("ConfigMap", "List", "NicClusterPolicy"):
        with contextlib.suppress(ConfigError):
            parse(json.dumps({"apiVersion": "v1", "kind": kind} | tree), "x", key=key)
