"""Rules between entries of the file: VF ranges of one PF, resources and PFs that are there twice.

They look at the tree as it was written and pass over what has no meaning by itself: `objects` finds that, and a fault
there must not hide one here.
"""

from collections.abc import Iterator

from sriovdp.config.document import KeyPath, Plain, write_path
from sriovdp.config.keys import list_keys
from sriovdp.config.ranges import VfIndices
from sriovdp.config.values import Pool, Selector
from sriovdp.vlans import write_span

_DEFAULTS = {entry.name: entry.default for entry in list_keys(Pool)}
_SELECTOR_KEYS = frozenset(entry.name for entry in list_keys(Selector))
_NOTHING: tuple[Plain, ...] = (None, "", False, [])


def find_broken(tree: Plain) -> Iterator[tuple[KeyPath, str]]:
    """Find what breaks a rule between entries: where, and a sentence."""
    pfs = list(_entries(tree, (), "physicalFunctions"))
    for path, pf in pfs:
        ranges = list(_read_ranges(pf, path))
        yield from _find_overlaps(ranges)
        yield from _find_beyond(ranges, pf.get("numVfs"))
        yield from _find_mac_twins(pf, path)
    yield from _find_twins(pfs)
    yield from _find_duplicates(tree)
    for path, pool in _entries(tree, (), "resourceList"):
        yield from _find_misfits(pool, path)
        if isinstance(tree, dict) and tree.get("cdi") is True:
            yield from _find_no_vendor(pool, path)


def _entries(node: Plain, path: KeyPath, key: str) -> Iterator[tuple[KeyPath, dict[str, Plain]]]:
    """Objects in the list under this key, with their paths."""
    entries = node.get(key) if isinstance(node, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield (*path, key, index), entry


def _read_ranges(pf: Plain, path: KeyPath) -> Iterator[tuple[KeyPath, VfIndices]]:
    for place, vf in _entries(pf, path, "vfs"):
        try:
            yield (*place, "range"), VfIndices.parse(str(vf.get("range")))
        except ValueError:
            continue


def _find_overlaps(ranges: list[tuple[KeyPath, VfIndices]]) -> Iterator[tuple[KeyPath, str]]:
    """Go over all spans in order: one that begins before the furthest end so far overlaps."""
    spans = [(span.start, span.stop, place) for place, indices in ranges for span in indices.spans]
    owner: KeyPath = ()
    reached = 0
    for start, stop, place in sorted(spans):
        if start < reached:
            common = write_span(range(start, min(stop, reached)))
            yield place, f"VF {common} is also in {write_path(owner)}; put each VF into one range"
        if stop > reached:
            reached, owner = stop, place


def _find_beyond(ranges: list[tuple[KeyPath, VfIndices]], count: Plain) -> Iterator[tuple[KeyPath, str]]:
    if type(count) is not int or count < 0:
        return
    for path, indices in ranges:
        if indices.last >= count:
            yield path, f"VF {indices.last} will not exist: numVfs is {count} and VFs count from 0"


def _find_mac_twins(pf: Plain, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """A MAC in two ranges of a PF; one that is twice in a range is found by the range's own check."""
    seen: dict[Plain, KeyPath] = {}
    for place, vf in _entries(pf, path, "vfs"):
        given = vf.get("mac")
        macs = [*given.values()] if isinstance(given, dict) else given if isinstance(given, list) else []
        for mac in dict.fromkeys(mac.lower() for mac in macs if isinstance(mac, str)):
            first = seen.setdefault(mac, place)
            if first != place:
                yield (*place, "mac"), f"{mac} is also in {write_path((*first, 'mac'))}; give each VF its own MAC"


def _find_twins(pfs: list[tuple[KeyPath, dict[str, Plain]]]) -> Iterator[tuple[KeyPath, str]]:
    seen: dict[str, KeyPath] = {}
    for path, pf in pfs:
        select = pf.get("select")
        if not isinstance(select, dict):
            continue
        nodes = pf.get("nodes")
        first = seen.setdefault(f"{sorted(select.items(), key=str)!r}{nodes!r}", path)
        if first != path:
            yield (*path, "select"), f"{write_path(first)} selects the same PFs; put all ranges into that entry"


def _find_duplicates(tree: Plain) -> Iterator[tuple[KeyPath, str]]:
    """Resources that are there twice on a node. Whether two different `nodes` have one in common, only a node knows."""
    seen: dict[str, list[tuple[KeyPath, Plain]]] = {}
    for path, pool in _entries(tree, (), "resourceList"):
        if "resourceName" not in pool:
            continue
        resource = f"{_prefix(pool)}/{pool['resourceName']}"
        nodes = pool.get("nodes")
        others = seen.setdefault(resource, [])
        first = next((other for other, where in others if where is None or nodes is None or where == nodes), None)
        if first is not None:
            yield (*path, "resourceName"), f"{write_path(first)} is {resource} already; give this pool another name"
        others.append((path, nodes))


def _find_misfits(pool: dict[str, Plain], path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Selector keys that exclude each other, or that the pool's type needs."""
    for key in pool:
        if key in _SELECTOR_KEYS:
            yield (*path, key), "this key belongs in the pool's selectors"
    kind = pool.get("deviceType") or _DEFAULTS["deviceType"]
    for place, selector in _selectors(pool, path):
        if selector.get("isRdma") is True and selector.get("vdpaType"):
            yield (*place, "vdpaType"), "a device is given for RDMA or as vDPA; put it into a selector of its own"
        if kind == "auxNetDevice" and selector.get("auxTypes") in _NOTHING:
            yield place, "a selector of an auxNetDevice pool needs auxTypes: [sf]"


def _find_no_vendor(pool: dict[str, Plain], path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """With CDI the prefix is the vendor of the devices' names, which begins with a letter (SPEC.md of CDI 0.5.0)."""
    if _prefix(pool)[0].isdigit():
        yield (*path, "resourcePrefix"), "begins with a digit, which a vendor of CDI devices cannot; choose another"


def _prefix(pool: dict[str, Plain]) -> str:
    return str(pool.get("resourcePrefix") or _DEFAULTS["resourcePrefix"])


def _selectors(pool: dict[str, Plain], path: KeyPath) -> Iterator[tuple[KeyPath, dict[str, Plain]]]:
    selectors = pool.get("selectors")
    if isinstance(selectors, dict):
        yield (*path, "selectors"), selectors
    yield from _entries(pool, path, "selectors")
