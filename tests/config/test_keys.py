"""A key of the config file is one field: everything else follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self

import jsonschema
import pytest

from setup.reference import fill_tables
from sriovdp.config import words
from sriovdp.config.forms import INVALID, Faults
from sriovdp.config.keys import Key
from sriovdp.config.objects import find_form, find_object


@dataclass(frozen=True, slots=True)
class Inner:
    """An object of the file."""

    LENIENT: ClassVar = True
    SHORT: ClassVar = "hostPath"

    host_path: Annotated[words.FilePath, Key("A path.")]
    vlan: Annotated[words.Vlan | None, Key("A VLAN.")] = None


@dataclass(frozen=True, slots=True)
class Outer:
    """A file."""

    mode: Annotated[Literal["fast", "slow"], Key("How.", name="speed")] = "fast"
    paths: Annotated[tuple[Inner, ...], Key("Paths.", least=1, single=True)] = ()
    labels: Annotated[Mapping[words.LabelKey, words.LabelValue], Key("Labels.", least=1)] = field(default_factory=dict)
    is_new: Annotated[bool, Key("A switch.")] = False
    internal: int = 7

    def checked(self) -> Self:
        """A rule between keys."""
        if self.is_new and not self.paths:
            raise ValueError("isNew needs paths")
        return self


def read(tree: Any) -> tuple[Any, list[tuple[tuple[str | int, ...], str]]]:
    """What a tree gives, and its faults."""
    faults = Faults()
    return find_object(Outer).read(tree, (), faults), faults.found


TREE = {
    "speed": "slow",
    "paths": [{"hostPath": "/a", "vlan": 7}, {"hostPath": "/b"}],
    "labels": {"a": "1"},
    "isNew": True,
}


def test_a_field_is_read_and_written() -> None:
    """The key is the field's name in camel case or the one it names; what has no Key is no key."""
    value = Outer("slow", (Inner("/a", 7), Inner("/b")), {"a": "1"}, is_new=True)
    assert read(TREE) == (value, [])
    assert find_object(Outer).write(value) == TREE
    assert find_object(Outer).write(Outer()) == {"speed": "fast", "isNew": False}
    assert read({"internal": 8})[1] == [
        (("internal",), "unknown key; allowed here: speed, paths, labels, isNew"),
    ]


def test_short_forms_are_read() -> None:
    """A text stands for an object, an object for a list of one; null and empty text for nothing where it is lenient."""
    assert read({"paths": ["/a"]})[0] == Outer(paths=(Inner("/a"),))
    assert read({"paths": {"hostPath": "/a", "vlan": ""}})[0] == Outer(paths=(Inner("/a"),))


@pytest.mark.parametrize(
    ("tree", "path", "sentence"),
    [
        ({"speeed": "slow"}, ("speeed",), "unknown key; did you mean 'speed'?"),
        ({"speed": "slwo"}, ("speed",), "'slwo': did you mean 'slow'?"),
        ({"speed": 7}, ("speed",), "7: allowed here: fast, slow"),
        ({"paths": []}, ("paths",), "must have at least one entry, not an empty list"),
        ({"paths": 7}, ("paths",), "must be an object or a list of objects, not 7"),
        ({"paths": ["x"]}, ("paths", 0), "'x': must be an absolute path without .."),
        ({"paths": [{}]}, ("paths", 0, "hostPath"), "must be given"),
        ({"paths": ["/a", {"hostPath": "/b", "vlan": 4095}]}, ("paths", 1, "vlan"), "4095: a VLAN is a whole number"),
        ({"labels": {}}, ("labels",), "must have at least one entry"),
        ({"labels": {"a b": "x"}}, ("labels", "a b"), "'a b': must be the key of a label"),
        ({"labels": {"a": True}}, ("labels", "a"), "must be a text, not true"),
        ({"isNew": 1}, ("isNew",), "must be true or false, not 1"),
        ({"isNew": True}, (), "isNew needs paths"),
        ([], (), "must be an object, not an empty list"),
    ],
)
def test_a_fault_names_place_and_what_is_allowed(tree: Any, path: tuple[str | int, ...], sentence: str) -> None:
    """The words come from the type."""
    value, faults = read(tree)
    assert value is INVALID
    ((place, said),) = faults
    assert place == path
    assert said.startswith(sentence)


def test_the_schema_has_description_default_and_limits() -> None:
    """And takes what the program takes."""
    defs: dict[str, dict[str, Any]] = {}
    schema = find_object(Outer).describe(defs) | {"$defs": defs}
    jsonschema.validate(TREE, schema)
    assert defs["Outer"]["properties"]["speed"] == {"enum": ["fast", "slow"], "description": "How.", "default": "fast"}
    wrong: dict[str, Any]
    for wrong in ({"speed": "slwo"}, {"paths": []}, {"paths": [{}]}, {"labels": {}}, {"isNew": 1}, {"internal": 8}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_a_type_without_a_form_is_refused() -> None:
    """A field of a new kind of type says so at once."""
    with pytest.raises(TypeError, match="complex"):
        find_form(complex)


def test_a_mark_that_names_no_object_is_refused() -> None:
    """The page of docs cannot ask for a table that there is not."""
    with pytest.raises(ValueError, match=r"resourceList\.selector`: selector is no object"):
        fill_tables("<!-- keys of resourceList.selector -->\n<!-- end of keys -->")
