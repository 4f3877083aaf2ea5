"""Hysteresis of health: what a device lacks counts when it has lasted, and ends when it has been there again as long.

For each lack there is a level from 0 to the seconds that it must last. It rises by a second each second while the
device lacks the condition, and falls while it does not; the lack counts from when the level is full to when it is
empty. So a link that comes and goes by the second changes nothing, and one that is mostly down counts as down. Pure.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sriovdp.config.terms import HealthCondition
from sriovdp.config.values import HealthRule
from sriovdp.pools.faults import Lack

Key = tuple[str, str]
"""Device and condition."""


@dataclass(slots=True)
class _Level:
    lack: Lack
    rule: HealthRule
    seconds: float
    at: float
    is_lacking: bool
    counts: bool


class Holds:
    """The levels of one pool's devices. Times are seconds on any clock that does not go back."""

    def __init__(self) -> None:
        self._levels: dict[Key, _Level] = {}
        self._is_first = True

    def update(
        self,
        now: float,
        find_rule: Callable[[HealthCondition], HealthRule],
        lacks: Iterable[tuple[str, Lack]],
        happened: Iterable[tuple[str, Lack]] = (),
    ) -> None:
        """Take over what devices lack now, and what happened to them since the last time, which counts at once.

        What is lacking the first time counts at once too: it may have lasted since before the agent's start. The rules
        may be others than the last time.
        """
        current = {(id_, lack.condition): lack for id_, lack in lacks}
        for key, level in self._levels.items():
            level.rule = find_rule(level.lack.condition)
            _advance(level, now)
            level.is_lacking = key in current
        for key, lack in current.items():
            fresh = _Level(lack, find_rule(lack.condition), 0.0, now, is_lacking=True, counts=False)
            level = self._levels.setdefault(key, fresh)
            level.lack = lack
            if self._is_first:
                level.seconds = level.rule.seconds
        for id_, lack in happened:
            rule = find_rule(lack.condition)
            self._levels[id_, lack.condition] = _Level(lack, rule, rule.seconds, now, is_lacking=False, counts=True)
        for level in self._levels.values():
            if level.is_lacking and level.seconds >= level.rule.seconds:
                level.counts = True
        self._levels = {key: level for key, level in self._levels.items() if _matters(level)}
        self._is_first = False

    def find(self) -> Mapping[str, list[tuple[Lack, HealthRule]]]:
        """What counts now, by device."""
        found: dict[str, list[tuple[Lack, HealthRule]]] = {}
        for (id_, _), level in self._levels.items():
            if level.counts:
                found.setdefault(id_, []).append((level.lack, level.rule))
        return found

    def find_next(self) -> float | None:
        """Seconds from the last update to when something may begin or cease to count, None for never."""
        waits = [
            level.rule.seconds - level.seconds if level.is_lacking else level.seconds
            for level in self._levels.values()
            if level.is_lacking != level.counts
        ]
        return min(waits, default=None)


def _matters(level: _Level) -> bool:
    return level.rule.action != "ignore" and (level.is_lacking or level.seconds > 0)


def _advance(level: _Level, now: float) -> None:
    passed = now - level.at
    level.at = now
    level.seconds += passed if level.is_lacking else -passed
    level.seconds = max(0.0, min(level.seconds, float(level.rule.seconds)))
    if level.is_lacking and level.seconds >= level.rule.seconds:
        level.counts = True
    elif not level.is_lacking and not level.seconds:
        level.counts = False
