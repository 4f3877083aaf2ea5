"""Samples of several candidates, and the table of them."""

import math
from collections.abc import Iterable


class Samples:
    """Times in ms, by row and candidate. Ratios are of medians, to those of the candidate `reference`."""

    def __init__(self, reference: str) -> None:
        self._reference = reference
        self._times: dict[tuple[str, ...], dict[str, list[float]]] = {}
        self._failures: dict[tuple[str, ...], list[str]] = {}

    def add(self, row: tuple[str, ...], candidate: str, time: float) -> None:
        """Add one."""
        self._times.setdefault(row, {}).setdefault(candidate, []).append(time)

    def take(self, row: tuple[str, ...], candidate: str, times: Iterable[float], failure: str) -> None:
        """Add times of jobs that were run at once; a failure is printed with the table, and its times are none."""
        if failure:
            self._failures.setdefault((*row, candidate), []).append(failure)
            return
        for time in times:
            self.add(row, candidate, time)

    def print(self) -> None:
        """A line for each row and candidate."""
        print(f"{'':26} {'':18} {'p50':>8} {'p90':>8} {'p99':>8}   p50 / {self._reference}")
        for row, candidates in self._times.items():
            base = quantile(candidates[self._reference], 0.5)
            for candidate, times in candidates.items():
                figures = " ".join(f"{quantile(times, share):8.2f}" for share in (0.5, 0.9, 0.99))
                ratio = quantile(times, 0.5) / base
                print(f"{' '.join(row):26} {candidate:18} {figures}   {ratio:.2f}", flush=True)
        for row, failures in self._failures.items():
            print(f"{' '.join(row)} failed {len(failures)} times, which is not counted: {failures[-1]}")


def quantile(times: list[float], share: float) -> float:
    """The smallest sample that is not under this share of all (nearest rank)."""
    return sorted(times)[max(0, math.ceil(share * len(times)) - 1)]
