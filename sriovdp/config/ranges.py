"""Sets of VF indices and of VLANs, written as upstream writes indices: `0-3,5`."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Self

from sriovdp.limits import MAX_VFS, MAX_VLAN

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
        return cls(_merge([_parse_item(item) for item in text.split(",")]))

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


@dataclass(frozen=True, slots=True)
class VlanIds:
    """Port VLANs, 0 among them for none. `spans` are as those of VfIndices."""

    spans: tuple[range, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `N` or `A-B` (both ends included), comma separated. Raises ValueError with a sentence."""
        spans = []
        for item in text.split(","):
            match = _ITEM.fullmatch(item)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if not first <= last <= MAX_VLAN:
                raise ValueError(f"write VLANs from 0 to {MAX_VLAN} and ranges of them like 0,100-199 without spaces")
            spans.append(range(first, last + 1))
        return cls(_merge(spans))

    def __str__(self) -> str:
        return ",".join(write_span(span) for span in self.spans)


def write_span(span: range) -> str:
    """One span as the config file has it: `4` or `0-3`."""
    return str(span.start) if len(span) == 1 else f"{span.start}-{span.stop - 1}"


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


def _merge(spans: list[range]) -> tuple[range, ...]:
    merged: list[range] = []
    for span in sorted(spans, key=lambda span: span.start):
        if merged and span.start <= merged[-1].stop:
            merged[-1] = range(merged[-1].start, max(merged[-1].stop, span.stop))
        else:
            merged.append(span)
    return tuple(merged)
