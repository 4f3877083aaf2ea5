"""Why each device is, or is not, advertised. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from sriovdp.config.values import PfConfig, Pool
from sriovdp.model import Node
from sriovdp.pools.candidates import Candidate, list_candidates
from sriovdp.pools.faults import find_pf_lacks, write_lack
from sriovdp.pools.near_misses import BEFORE_3_5, NearMisses
from sriovdp.pools.selectors import Rejection, is_named_itself, judge


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one device.

    `pool` and `selector` (from 0) are the first that match, None if none does. The device is advertised, unless
    `candidate.obstacle` says why not. `rejections` says why each pool before that one, or every pool, does not match.
    """

    candidate: Candidate
    pool: Pool | None
    selector: int | None
    rejections: tuple[tuple[Pool, tuple[Rejection, ...]], ...]

    @property
    def resource(self) -> str | None:
        """The resource that the device is advertised as, None if it is not."""
        return None if self.pool is None or self.candidate.obstacle else self.pool.resource


def explain(pools: Sequence[Pool], node: Node, physical_functions: Sequence[PfConfig] = ()) -> Iterator[Verdict]:
    """Judge each network function, subfunction and accelerator of a node, by the rules of `pools.assign`."""
    verdicts = [_judge(pools, candidate) for candidate in list_candidates(node, physical_functions)]
    notes = _note_misses(pools, node, verdicts)
    for verdict in verdicts:
        yield _annotate(verdict, notes)


Notes: TypeAlias = Mapping[tuple[str, int, str], str]
"""Near misses by resource, number of the selector, and field."""


def _note_misses(pools: Sequence[Pool], node: Node, verdicts: Sequence[Verdict]) -> Notes:
    """What the values of selectors likely mean; of one that takes a device only what is sure."""
    taking = {(verdict.pool.resource, verdict.selector) for verdict in verdicts if verdict.pool}
    misses = NearMisses(node)
    notes: dict[tuple[str, int, str], str] = {}
    for pool in pools:
        for number, selector in enumerate(pool.selectors):
            for miss in misses.find(selector, pool.device_type):
                if miss.sure or (pool.resource, number) not in taking:
                    key = pool.resource, number, miss.field
                    notes[key] = f"{notes[key]}; {miss.sentence}" if key in notes else miss.sentence
    return notes


def _annotate(verdict: Verdict, notes: Notes) -> Verdict:
    """The verdict with notes where its rejections have none of their own."""
    if not notes:
        return verdict
    rejections = tuple(
        (
            pool,
            tuple(
                replace(rejection, note=rejection.note or notes.get((pool.resource, number, rejection.field), ""))
                for number, rejection in enumerate(found)
            ),
        )
        for pool, found in verdict.rejections
    )
    return replace(verdict, rejections=rejections)


def _judge(pools: Sequence[Pool], candidate: Candidate) -> Verdict:
    rejections: list[tuple[Pool, tuple[Rejection, ...]]] = []
    for pool in pools:
        found = judge(pool, candidate)
        if isinstance(found, int):
            return Verdict(candidate, pool, found, tuple(rejections))
        rejections.append((pool, found))
    return Verdict(candidate, None, None, tuple(rejections))


def describe(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain data for JSON; every key is always there."""
    candidate = verdict.candidate
    return {
        "id": candidate.id,
        "kind": candidate.kind,
        "deviceType": candidate.device_type,
        "pf": candidate.pf.address,
        "pfName": candidate.pf.netdev.name if candidate.pf.netdev else None,
        "index": candidate.index,
        "vendor": candidate.vendor,
        "device": candidate.device,
        "driver": candidate.function.driver,
        "netdev": candidate.netdev.name if candidate.netdev else None,
        "resource": verdict.resource,
        "obstacle": candidate.obstacle or None,
        "matches": verdict.pool.resource if verdict.pool else None,
        "selector": verdict.selector,
        "health": _list_lacks(verdict),
        "rejections": [
            {
                "resource": pool.resource,
                "selector": number,
                "field": rejection.field,
                "wanted": list(rejection.wanted),
                "actual": rejection.actual,
                "note": rejection.note or None,
            }
            for pool, rejections in verdict.rejections
            for number, rejection in enumerate(rejections)
        ],
    }


def write(verdict: Verdict) -> Iterator[str]:
    """A verdict as lines of text: the device and its resource, then why not the others."""
    candidate = verdict.candidate
    what = f"{candidate.id}  {candidate}" if candidate.kind != "PF" else candidate.id
    name = f"  {candidate.netdev.name}" if candidate.netdev else ""
    driver = candidate.function.driver or "no driver"
    head = f"{what}{name}  {candidate.vendor}:{candidate.device}  {driver}"
    if verdict.resource:
        yield f"{head}  -> {_write_match(verdict)}"
        yield from (f"    {line}" for line in _list_lacks(verdict))
        if verdict.pool and is_named_itself(verdict.pool.selectors[verdict.selector or 0], candidate):
            yield f"    pfNames takes the PF itself, {BEFORE_3_5}"
        return
    yield f"{head}  -> not advertised"
    if candidate.obstacle:
        match = f"{_write_match(verdict)} would take it, but " if verdict.pool else ""
        yield f"    {match}{candidate.obstacle}"
        return
    fitting = [entry for entry in verdict.rejections if entry[0].device_type == candidate.device_type]
    if not fitting:
        yield f"    no pool has deviceType {candidate.device_type}"
    for pool, rejections in fitting:
        yield from _write_rejections(pool, rejections)


def _list_lacks(verdict: Verdict) -> list[str]:
    """What its PF lacks for the health that its pool asks for. What only the agent sees is in `sriovdp status`."""
    if verdict.pool is None or verdict.resource is None:
        return []
    pool = verdict.pool
    return [write_lack(pool, lack) for lack in find_pf_lacks(pool, verdict.candidate)]


def _write_match(verdict: Verdict) -> str:
    several = verdict.pool is not None and len(verdict.pool.selectors) > 1
    where = f", selectors[{verdict.selector}]" if several else ""
    return f"{verdict.pool.resource if verdict.pool else None}{where}"


def _write_rejections(pool: Pool, rejections: Sequence[Rejection]) -> Iterator[str]:
    for number, rejection in enumerate(rejections):
        where = f" selectors[{number}]" if len(pool.selectors) > 1 else ""
        yield f"    {pool.resource}{where}: {rejection}"
