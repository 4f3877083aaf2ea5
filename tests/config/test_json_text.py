"""JSON in JSON's words: values, lines, and what is said of the slips that people make."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sriovdp.config.file import parse
from sriovdp.config.json_text import JsonError, is_meant_as_json, read_json
from sriovdp.config.text import read
from sriovdp.errors import ConfigError

COMMA = """{
  "resourceList": [
    {
      "resourceName": "a",
      "resourcePrefix": "x.y"
      "selectors": {"vendors": ["8086"]}
    }
  ]
}
"""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (COMMA, 'line 5, column 30: a comma is missing after "resourcePrefix": "x.y"'),
        ('{"a": ["x" "y"]}', 'line 1, column 11: a comma is missing after {"a": ["x"'),
        ('{"a": [1, 2}', "line 1, column 12: '}' stands here, and '[' of line 1 is open; ']' is missing before it"),
        ('{"a": {"b": 1]}', "column 14: ']' stands here, and '{' of line 1 is open; '}' is missing before it"),
        ('{"a": [{"b": 1}\n', "line 1, column 16: the text ends here, and '[' of line 1 and '{' of line 1 are not"),
        ('{"a": [{"b": 1}\n', "not closed; ]} is missing"),
        ('{"a":\n {', "line 2, column 3: the text ends here, and '{' of line 2 and '{' of line 1 are not closed"),
        ('{"a": 1}}', "line 1, column 9: there is one '}' too many; remove it"),
        ('{"a": 1}\n]', "line 2, column 1: there is one ']' too many; remove it"),
        ('{"a": 1} {"b": 2}', "column 10: '{' stands after the end of the JSON"),
        ('{"a": [ // pools\n 1]}', "line 1, column 9: // begins no comment here; write # in its place"),
        ('// mine\n{"a": 1}', "line 1, column 1: // begins no comment here"),
        ('{"a": 1, /* mine */ "b": 2}', "column 10: /* begins no comment here"),
        ('{"a": [\n  "b": "c"}]}', "line 2, column 3: a '{' is missing before the key \"b\""),
        ('{"a" 1}', "column 5: a ':' is missing after the key 'a'"),
        ('{"a": , "b": 2}', "column 7: a value is missing between ':' and ','"),
        ('{"a": "b\n}', 'line 1, column 7: the closing quote of "b is missing'),
        ('{"a": "C:\\d"}', "column 10: a backslash in a text is written as \\\\"),
        ('{"a": [[[' + "[" * 20, "nested deeper than 16"),
        ('{"a": "x", , "b": 1}', "column 12: a key in double quotes is missing before ','"),
        ('{"a": [1, }', "'}'"),
    ],
)
def test_a_slip_is_named_where_it_was_made(text: str, fault: str) -> None:
    """Line and column are those of the slip, not those at which a parser gives up."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "x")
    assert fault in caught.value.faults[0]


@pytest.mark.parametrize(
    "text",
    ['{"a": [1, 2,], }', '{"a": 1} # end', '# mine\n{"a": [1, # one\n 2]}', "{'a': 'b'}", '{"a": x}', '{"a": True}'],
)
def test_what_yaml_takes_is_taken(text: str) -> None:
    """JSON with comments, a last comma or words without quotes is YAML."""
    assert isinstance(read(text, "x").tree, dict)


def test_every_entry_has_its_line() -> None:
    """Also a key that is there twice."""
    document = read_json('{\n "a": [\n  1,\n  {"b":\n 2}\n ],\n "a": 3}')
    assert document.lines == {("a",): 2, ("a", 0): 3, ("a", 1): 4, ("a", 1, "b"): 4}
    assert document.duplicates == [(7, ("a",))]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('{"a": 1}', True),
        (' \n[ {"a": 1}]', True),
        ("{}", True),
        ("{ // pools\n", True),
        ('# mine\n// and\n/* more\n */ {"a": 1}', True),
        ("{a: 1}", False),
        ("a: 1", False),
        ("[a]", False),
        ("", False),
        ("/*" * 10_000, False),
        ("/**/" * 10_000, False),
    ],
)
def test_what_is_meant_as_json(text: str, meant: bool) -> None:
    """YAML in braces is none."""
    assert is_meant_as_json(text) == meant


TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(TREES, st.sampled_from([None, 2, "\t"]), st.booleans())
def test_json_is_read_as_python_reads_it(tree: Any, indent: int | str | None, ascii_only: bool) -> None:
    """Escapes of astral characters too, which YAML cannot read."""
    assert read_json(json.dumps({"all": tree}, indent=indent, ensure_ascii=ascii_only)).tree == {"all": tree}


@given(st.text('{}[]:,"\\/*# \n\tabtrue01-.e', max_size=80))
def test_any_text_is_json_or_a_json_error(text: str) -> None:
    """And never JSON where Python's decoder finds none."""
    with contextlib.suppress(JsonError):
        read_json(text)
        json.loads(text)


@given(TREES, st.data())
def test_damaged_json_is_a_config_or_a_config_error(tree: Any, data: st.DataObject) -> None:
    """One sign lost, put in or changed, anywhere: nothing but the program's own error."""
    text = json.dumps({"resourceList": [{"resourceName": "a", "selectors": {}, "env": tree}]}, indent=1)
    at = data.draw(st.integers(0, len(text)))
    sign = data.draw(st.sampled_from(["", *'{}[]:,"\\/#\n\0x']))
    damaged = text[:at] + sign + text[at + data.draw(st.integers(0, 1)) :]
    with contextlib.suppress(ConfigError):
        parse(damaged, "x")
