"""Pools that can never get a device, because earlier ones take all that they select. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from sriovdp.config.keys import list_keys
from sriovdp.config.terms import PfName, RootDevice
from sriovdp.config.values import Pool, Selector


def find_shadowed(pools: Sequence[Pool]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Number of each pool that earlier pools take everything from, with the numbers of these."""
    for number, pool in enumerate(pools):
        hiders = [_find_hider(selector, pool, pools[:number]) for selector in pool.selectors]
        if None not in hiders:
            yield number, tuple(sorted({hider for hider in hiders if hider is not None}))


def _find_hider(selector: Selector, pool: Pool, earlier: Sequence[Pool]) -> int | None:
    for number, other in enumerate(earlier):
        same_type = other.device_type == pool.device_type and other.nodes in (None, pool.nodes)
        if same_type and any(_covers(wide, selector) for wide in other.selectors):
            return number
    return None


def _covers(wide: Selector, narrow: Selector) -> bool:
    """Whether everything that `narrow` takes is taken by `wide` too, as far as the words alone say."""
    filters = (entry.attribute for entry in list_keys(Selector) if entry.key.filters)
    return all(_includes(getattr(wide, name), getattr(narrow, name)) for name in filters)


def _includes(wide: Any, narrow: Any) -> bool:
    """Whether one key of a selector takes all that the other's takes. A list is alternatives; empty takes all."""
    if isinstance(wide, tuple):
        return not wide or (bool(narrow) and all(any(_includes_value(w, n) for w in wide) for n in narrow))
    return not wide or wide == narrow


def _includes_value(wide: Any, narrow: Any) -> bool:
    if not isinstance(wide, PfName | RootDevice):
        return bool(wide == narrow)
    if str(wide).partition("#")[0] != str(narrow).partition("#")[0]:
        return False
    if wide.indices is None or narrow.indices is None:
        return wide.indices is None
    return all(
        any(outer.start <= span.start and span.stop <= outer.stop for outer in wide.indices.spans)
        for span in narrow.indices.spans
    )
