"""Placement: which devices are preferred, for every policy, and that there always is an answer."""

from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sriovdp.config.terms import Order, Placement
from sriovdp.pools.placement import Place, prefer

ORDERS: tuple[Order, ...] = ("packed", "spread", "samePF", "distinctPF")


def place(**pfs: tuple[int, int | None]) -> dict[str, Place]:
    """PFs by name, each with its number of devices and its NUMA node; devices are `a0`, `a1`, ..."""
    return {f"{pf}{n}": Place(pf, numa) for pf, (count, numa) in pfs.items() for n in range(count)}


NODE = place(a=(3, 0), b=(2, 0), c=(4, 1))


def ask(
    order: Order, size: int, *, numa: bool = False, must: Sequence[str] = (), free: Sequence[str] = tuple(NODE)
) -> list[str]:
    """Ask for devices of NODE."""
    return prefer(Placement(numa=numa, order=order), free, must, size, NODE)


@pytest.mark.parametrize(
    ("order", "numa", "size", "must", "wanted"),
    [
        ("packed", False, 1, [], ["b0"]),
        ("packed", False, 3, [], ["b0", "b1", "a0"]),
        ("packed", False, 2, ["c1"], ["c1", "c0"]),
        ("packed", True, 3, [], ["c0", "c1", "c2"]),  # node 1 has fewer left than node 0
        ("packed", True, 5, [], ["b0", "b1", "a0", "a1", "a2"]),
        ("packed", True, 6, [], ["b0", "b1", "a0", "a1", "a2", "c0"]),
        ("packed", True, 2, ["a0"], ["a0", "a1"]),
        ("spread", False, 4, [], ["c0", "a0", "c1", "a1"]),
        ("spread", True, 3, [], ["a0", "a1", "b0"]),  # node 0 has more left than node 1
        ("samePF", False, 2, [], ["b0", "b1"]),
        ("samePF", False, 3, [], ["a0", "a1", "a2"]),
        ("samePF", False, 2, ["a1"], ["a1", "a0"]),
        ("samePF", False, 5, [], ["c0", "c1", "c2", "c3", "b0"]),
        ("samePF", False, 8, [], ["c0", "c1", "c2", "c3", "a0", "a1", "a2", "b0"]),
        ("samePF", True, 4, [], ["c0", "c1", "c2", "c3"]),
        ("samePF", True, 4, ["a0"], ["a0", "a1", "a2", "b0"]),
        ("distinctPF", False, 3, [], ["c0", "a0", "b0"]),
        ("distinctPF", False, 2, ["c3"], ["c3", "a0"]),
        ("distinctPF", False, 4, [], ["c0", "a0", "b0", "c1"]),
        ("distinctPF", True, 2, [], ["a0", "b0"]),  # only node 0 has two PFs
    ],
)
def test_policies(order: Order, numa: bool, size: int, must: list[str], wanted: list[str]) -> None:
    """What each policy picks on a node with 3 and 2 free devices on NUMA node 0, and 4 on node 1."""
    assert ask(order, size, numa=numa, must=must) == wanted


@pytest.mark.parametrize("order", ORDERS)
def test_what_can_not_be_had_is_answered_all_the_same(order: Order) -> None:
    """Too many, none at all, more that must be than asked for, devices of nowhere: never an error, never one twice."""
    assert sorted(ask(order, 99)) == sorted(NODE)
    assert ask(order, 2, free=()) == []
    assert ask(order, 0) == []
    assert ask(order, 1, must=["a0", "b1"]) == ["a0", "b1"]
    assert sorted(ask(order, 2, free=["x", "y"], numa=True)) == ["x", "y"]
    assert ask(order, 2, free=["a0", "a0", "a0", "b0"], must=["a0", "a0"]) == ["a0", "b0"]


PLACES = st.dictionaries(
    st.text("0123456789", min_size=1, max_size=3),
    st.builds(Place, st.sampled_from("abcd"), st.sampled_from([None, 0, 1, 2])),
    max_size=12,
)
OrderName = Literal["packed", "spread", "samePF", "distinctPF"]


@given(st.data(), PLACES, st.sampled_from(ORDERS), st.booleans(), st.integers(0, 8))
def test_the_answer_is_of_the_right_size_and_has_what_must_be(
    data: st.DataObject, places: dict[str, Place], order: OrderName, numa: bool, size: int
) -> None:
    """For any node and wish: a part of what is free, no device twice, all that must be, and as many as there can be."""
    available = data.draw(st.lists(st.sampled_from(sorted(places)), unique=True)) if places else []
    must = available[: data.draw(st.integers(0, min(size, len(available))))]
    picked = prefer(Placement(numa=numa, order=order), available, must, size, places)
    assert len(picked) == len(set(picked)) == min(size, len(available))
    assert set(must) <= set(picked) <= set(available)


@given(PLACES, st.sampled_from(ORDERS), st.integers(1, 8))
def test_numa_uses_the_fewest_nodes(places: dict[str, Place], order: OrderName, size: int) -> None:
    """With `numa` no smaller set of NUMA nodes has enough devices."""
    picked = prefer(Placement(numa=True, order=order), list(places), (), size, places)
    sizes = sorted(sum(p.numa_node == n for p in places.values()) for n in {p.numa_node for p in places.values()})[::-1]
    fewest = next((n for n in range(len(sizes) + 1) if sum(sizes[:n]) >= min(size, len(places))), 0)
    assert len({places[id_].numa_node for id_ in picked}) == fewest


@given(PLACES, st.integers(1, 8))
def test_orders_keep_their_promise_when_it_can_be_kept(places: dict[str, Place], size: int) -> None:
    """SamePF has the fewest PFs that have enough devices, distinctPF the most there are; spread takes turns."""
    counts = {pf: sum(place.pf == pf for place in places.values()) for pf in {place.pf for place in places.values()}}
    sizes = sorted(counts.values(), reverse=True)
    size = min(size, len(places))
    fewest = next((n for n in range(len(sizes) + 1) if sum(sizes[:n]) >= size), 0)

    def count_pfs(order: OrderName) -> int:
        picked = prefer(Placement(numa=False, order=order), list(places), (), size, places)
        return len({places[id_].pf for id_ in picked})

    assert count_pfs("samePF") == fewest
    assert count_pfs("distinctPF") == min(size, len(counts))
    spread = prefer(Placement(numa=False, order="spread"), list(places), (), size, places)
    left = {pf: count - sum(places[id_].pf == pf for id_ in spread) for pf, count in counts.items()}
    touched = {places[id_].pf for id_ in spread}
    assert all(left[pf] + 1 >= count for pf in touched for count in left.values()), "a fuller PF was passed over"
