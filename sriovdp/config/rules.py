"""Rules between entries of the file: VF ranges of one PF, resources and PFs that are there twice.

They look at the tree as it was written and pass over what has no meaning by itself: `shape` tells of that, and a fault
there must not hide one here.
"""

from collections.abc import Iterator

from sriovdp.config.document import Path, Plain, write_path
from sriovdp.config.ranges import VfIndices, write_span
from sriovdp.config.values import DEFAULT_PREFIX


def find_broken(tree: Plain) -> Iterator[tuple[Path, str]]:
    """Find what breaks a rule between entries: where, and a sentence."""
    pfs = list(_entries(tree, (), "physicalFunctions"))
    for path, pf in pfs:
        ranges = list(_read_ranges(pf, path))
        yield from _find_overlaps(ranges)
        yield from _find_beyond(ranges, pf.get("numVfs"))
    yield from _find_twins(pfs)
    yield from _find_duplicates(tree)


def _entries(node: Plain, path: Path, key: str) -> Iterator[tuple[Path, dict[str, Plain]]]:
    """Objects in the list under this key, with their paths."""
    entries = node.get(key) if isinstance(node, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield (*path, key, index), entry


def _read_ranges(pf: Plain, path: Path) -> Iterator[tuple[Path, VfIndices]]:
    for place, vf in _entries(pf, path, "vfs"):
        try:
            yield (*place, "range"), VfIndices.parse(str(vf.get("range")))
        except ValueError:
            continue


def _find_overlaps(ranges: list[tuple[Path, VfIndices]]) -> Iterator[tuple[Path, str]]:
    """Go over all spans in order: one that begins before the furthest end so far overlaps."""
    spans = [(span.start, span.stop, place) for place, indices in ranges for span in indices.spans]
    owner: Path = ()
    reached = 0
    for start, stop, place in sorted(spans):
        if start < reached:
            common = write_span(range(start, min(stop, reached)))
            yield place, f"VF {common} is also in {write_path(owner)}; put each VF into one range"
        if stop > reached:
            reached, owner = stop, place


def _find_beyond(ranges: list[tuple[Path, VfIndices]], count: Plain) -> Iterator[tuple[Path, str]]:
    if type(count) is not int or count < 0:
        return
    for path, indices in ranges:
        if indices.last >= count:
            yield path, f"VF {indices.last} will not be there: numVfs is {count} and VFs count from 0"


def _find_twins(pfs: list[tuple[Path, dict[str, Plain]]]) -> Iterator[tuple[Path, str]]:
    seen: dict[str, Path] = {}
    for path, pf in pfs:
        select = pf.get("select")
        if not isinstance(select, dict):
            continue
        first = seen.setdefault(repr(sorted(select.items(), key=str)), path)
        if first != path:
            yield (*path, "select"), f"{write_path(first)} selects the same PFs; put all ranges into that entry"


def _find_duplicates(tree: Plain) -> Iterator[tuple[Path, str]]:
    seen: dict[str, Path] = {}
    for path, pool in _entries(tree, (), "resourceList"):
        if "resourceName" not in pool:
            continue
        resource = f"{pool.get('resourcePrefix') or DEFAULT_PREFIX}/{pool['resourceName']}"
        first = seen.setdefault(resource, path)
        if first != path:
            yield (*path, "resourceName"), f"{write_path(first)} is {resource} already; give this pool another name"
