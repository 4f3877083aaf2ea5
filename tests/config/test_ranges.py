"""VF ranges as text and as sets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sriovdp.config.ranges import VfIndices
from sriovdp.limits import MAX_VFS

BOUNDS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), min_size=1, max_size=12)


def write(bounds: list[tuple[int, int]]) -> str:
    """Range text for (first, how many more)."""
    return ",".join(f"{first}-{first + more}" if more else str(first) for first, more in bounds)


@given(BOUNDS)
def test_a_range_holds_what_its_items_say(bounds: list[tuple[int, int]]) -> None:
    """Whatever the order and overlap of items, the set is their union, in order and without doubles."""
    expected = {index for first, more in bounds for index in range(first, first + more + 1)}
    indices = VfIndices.parse(write(bounds))
    assert list(indices) == sorted(expected)
    assert len(indices) == len(expected)
    assert indices.last == max(expected)
    assert all((index in indices) == (index in expected) for index in range(400))


@given(BOUNDS)
def test_a_range_survives_being_written(bounds: list[tuple[int, int]]) -> None:
    """Text made from a set gives an equal set, and equal sets have the same text."""
    indices = VfIndices.parse(write(bounds))
    assert VfIndices.parse(str(indices)) == indices
    assert str(VfIndices.parse(write(bounds[::-1]))) == str(indices)


def test_spans_that_touch_are_one() -> None:
    """`0-1,2,3-5` is the same value as `0-5`: comparing and printing do not depend on how it was written."""
    assert VfIndices.parse("3-5,2,0-1") == VfIndices.parse("0-5")
    assert str(VfIndices.parse("0,1,4")) == "0-1,4"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("x", "'x' is no VF index"),
        ("0-3,", "'' is no VF index"),
        ("0-3, 5", "' 5' is no VF index"),
        ("-1", "'-1' is no VF index"),
        ("1-2-3", "'1-2-3' is no VF index"),
        ("\u0663", "is no VF index"),
        ("7-3", "7-3 is reversed; write 3-7"),
        (str(MAX_VFS), "cannot exist"),
        ("0-9999999999", "is no VF index"),
    ],
)
def test_junk_is_refused_with_its_item(text: str, reason: str) -> None:
    """An item that is no range is an error that quotes it, where upstream drops it and all that follow."""
    with pytest.raises(ValueError, match=reason):
        VfIndices.parse(text)


@given(st.text(max_size=20))
def test_any_text_is_a_range_or_a_value_error(text: str) -> None:
    """Arbitrary text never gets past the parser as something else."""
    try:
        indices = VfIndices.parse(text)
    except ValueError:
        return
    assert set(text) <= set("0123456789,-")
    assert len(indices) > 0
