"""Sets of VF indices, written as upstream writes them: `0-3,5`."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Self

from sriovdp.limits import MAX_VFS
from sriovdp.vlans import merge_spans, write_span

_ITEM = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_GRAMMAR = "write VF indices and ranges like 0-3,5 without spaces"


@dataclass(frozen=True, slots=True)
class VfIndices(Collection[int]):
    """VF indices of one PF, counted from 0 as sysfs counts `virtfnN`.

    `spans` are in order and neither overlap nor touch, so equal sets are equal values.
    """

    spans: tuple[range, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `N` or `A-B` (both ends included), comma separated. Raises ValueError with a sentence."""
        if not text:
            raise ValueError(f"the range is empty; {_GRAMMAR}")
        return cls(merge_spans([_parse_item(item) for item in text.split(",")]))

    @property
    def last(self) -> int:
        """The highest index."""
        return self.spans[-1].stop - 1

    def __contains__(self, index: object) -> bool:
        return any(index in span for span in self.spans)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.spans)

    def __len__(self) -> int:
        return sum(len(span) for span in self.spans)

    def __str__(self) -> str:
        return ",".join(write_span(span) for span in self.spans)


def _parse_item(item: str) -> range:
    match = _ITEM.fullmatch(item)
    if not match:
        raise ValueError(f"{item!r} is no VF index or range; {_GRAMMAR}")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise ValueError(f"the range {item} is reversed; write {last}-{first}")
    if last >= MAX_VFS:
        raise ValueError(f"VF {last} cannot exist: PCI allows a PF {MAX_VFS} VFs, indices 0-{MAX_VFS - 1}")
    return range(first, last + 1)
