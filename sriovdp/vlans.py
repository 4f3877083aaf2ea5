"""Sets of VLANs, written as `0,100-199`: in the config file, in networks, and in the files of drivers."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Self

from sriovdp.limits import MAX_VLAN

_ITEM = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class VlanIds(Collection[int]):
    """Numbers of VLANs; 0 stands for none. `spans` are in order and neither overlap nor touch."""

    spans: tuple[range, ...] = ()

    @classmethod
    def parse(cls, text: str, least: int = 0) -> Self:
        """Read `N` or `A-B` (both ends included), comma separated. Raises ValueError with a sentence."""
        spans = []
        for item in text.split(","):
            match = _ITEM.fullmatch(item)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if not least <= first <= last <= MAX_VLAN:
                raise ValueError(
                    f"write VLANs from {least} to {MAX_VLAN} and ranges of them like {least},100-199 without spaces"
                )
            spans.append(range(first, last + 1))
        return cls(merge_spans(spans))

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Self:
        """The set of these."""
        return cls(merge_spans([range(number, number + 1) for number in numbers]))

    def __contains__(self, number: object) -> bool:
        return any(number in span for span in self.spans)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.spans)

    def __len__(self) -> int:
        return sum(len(span) for span in self.spans)

    def __sub__(self, other: Collection[int]) -> Self:
        return self.of(set(self).difference(other))

    def __str__(self) -> str:
        return ",".join(write_span(span) for span in self.spans)


def write_span(span: range) -> str:
    """One span as people write it: `4` or `0-3`."""
    return str(span.start) if len(span) == 1 else f"{span.start}-{span.stop - 1}"


def merge_spans(spans: Iterable[range]) -> tuple[range, ...]:
    """The same numbers, in order; spans that overlap or touch are one."""
    merged: list[range] = []
    for span in sorted(spans, key=lambda span: span.start):
        if merged and span.start <= merged[-1].stop:
            merged[-1] = range(merged[-1].start, max(merged[-1].stop, span.stop))
        else:
            merged.append(span)
    return tuple(merged)
