"""Text to tree: types, lines, and what is refused before it becomes large or surprising."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sriovdp.config.document import MAX_BYTES, MAX_DEPTH, write_path
from sriovdp.config.text import read
from sriovdp.errors import ConfigError


def test_words_of_yaml_1_1_stay_text() -> None:
    """Nothing in a config file turns into a number of base 60, an octal number, a float or a truth value unasked."""
    document = read("[0000:00:04.0, 0154, 1e3, 1.5, yes, off, 2026-11-21, 0x8086, '7']", "x")
    assert document.tree == ["0000:00:04.0", "0154", "1e3", "1.5", "yes", "off", "2026-11-21", "0x8086", "7"]


def test_words_of_json_have_their_type() -> None:
    """Whole numbers, true, false and null are what they are in JSON."""
    assert read('[7, -1, 0, true, false, null, ~, "true"]', "x").tree == [7, -1, 0, True, False, None, None, "true"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc/\\\"' é", max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.sampled_from([None, 2, "\t"]))
def test_json_is_read_as_json(tree: object, indent: int | str | None) -> None:
    """JSON means here what Python's json module says, indented with tabs too (less escapes of astral characters)."""
    text = json.dumps({"all": tree}, indent=indent)
    assert read(text, "x").tree == {"all": tree}


def test_lines_are_those_of_keys_and_items() -> None:
    """Faults point at the line of the entry; where there is none, at the nearest around it."""
    document = read("a:\n  b:\n    - x\n    - y:\n        1\n", "file")
    assert document.line(("a", "b", 1)) == 4
    assert document.line(("a", "b", 1, "missing", "deeper")) == 4
    assert document.line(()) == 1


def test_a_key_twice_is_noted_and_the_first_counts() -> None:
    """JSON and YAML let the last one win in silence; here its line is kept for a fault."""
    document = read("a: 1\nb:\n  c: 2\n  c: 3\n", "x")
    assert document.tree == {"a": 1, "b": {"c": 2}}
    assert document.duplicates == [(4, ("b", "c"))]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: &x [1]\nb: *x", "line 1: aliases and anchors are refused"),
        ("a: 1\nb: *x", "line 2: aliases and anchors are refused"),
        ("a: !!python/name:os.system x", "line 1: the tag 'tag:yaml.org,2002:python/name:os.system' is refused"),
        ("!!int foo", "the tag"),
        ("a: 1\n---\nb: 1", "line 3: a second document begins here"),
        ("? [a]\n: b", "line 1: a key must be one word"),
        ("a: [1", "line 1: "),
        ("a:\n\tb: 1", "line 2: "),
        ("a: 1\nb: \0", "line 2: the character U+0000 is not allowed"),
        ("- " * (MAX_DEPTH + 1), f"nested deeper than {MAX_DEPTH}"),
        ("[" * 100_000, "nested deeper"),
        ("? " * 100_000, "a key must be one word"),
        ("x" * (MAX_BYTES + 1), "larger than 256 KiB"),
    ],
)
def test_refused(text: str, fault: str) -> None:
    """What is no plain config file is one fault with its line, whatever PyYAML would make of it."""
    with pytest.raises(ConfigError) as caught:
        read(text, "node.yaml")
    assert fault in caught.value.faults[0]
    assert caught.value.source == "node.yaml"


@given(st.text(max_size=60) | st.text("{}[]:,-?&*!|>'\"#%@ \n\tab01~", max_size=60))
def test_any_text_is_a_tree_or_a_config_error(text: str) -> None:
    """Arbitrary text raises nothing but the program's own error."""
    with contextlib.suppress(ConfigError):
        read(text, "x")


def test_paths_read_as_people_write_them() -> None:
    """A path is dots and brackets; an odd key is quoted."""
    assert write_path(("resourceList", 0, "selectors", "pfNames", 1)) == "resourceList[0].selectors.pfNames[1]"
    assert write_path(("a b", 2)) == "'a b'[2]"
