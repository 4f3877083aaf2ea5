"""Pools that can never get a device, because earlier ones take all that they select. Pure."""

from collections.abc import Collection, Iterator, Sequence

from sriovdp.config.values import PfName, Pool, RootDevice, Selector

_LISTS = ("vendors", "devices", "drivers", "pci_addresses", "acpi_indexes", "link_types", "ddp_profiles", "p_keys")


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
    """Whether everything that `narrow` takes is taken by `wide` too, as far as the words alone tell."""
    return (
        all(_holds(getattr(wide, field), getattr(narrow, field)) for field in (*_LISTS, "aux_types"))
        and _names(wide.pf_names, narrow.pf_names)
        and _names(wide.root_devices, narrow.root_devices)
        and (narrow.is_rdma or not wide.is_rdma)
        and wide.vdpa_type in (None, narrow.vdpa_type)
    )


def _holds(wide: Collection[str], narrow: Collection[str]) -> bool:
    return not wide or (bool(narrow) and set(narrow) <= set(wide))


def _names(wide: Sequence[PfName | RootDevice], narrow: Sequence[PfName | RootDevice]) -> bool:
    return not wide or (bool(narrow) and all(any(_includes(w, n) for w in wide) for n in narrow))


def _includes(wide: PfName | RootDevice, narrow: PfName | RootDevice) -> bool:
    if str(wide).partition("#")[0] != str(narrow).partition("#")[0]:
        return False
    if wide.indices is None:
        return True
    spans = narrow.indices.spans if narrow.indices else None
    return spans is not None and all(
        any(outer.start <= span.start and span.stop <= outer.stop for outer in wide.indices.spans) for span in spans
    )
