"""Why each device is, or is not, advertised. No I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sriovdp.config.values import PfConfig, Pool
from sriovdp.model import Node
from sriovdp.pools.candidates import Candidate, list_candidates
from sriovdp.pools.selectors import Rejection, judge


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one device.

    `pool` and `selector` (from 0) are what matches first, None when nothing does. It is advertised, unless
    `candidate.obstacle` says why not. `rejections` tells why each pool before that one, or every pool, does not match.
    """

    candidate: Candidate
    pool: Pool | None
    selector: int | None
    rejections: tuple[tuple[Pool, tuple[Rejection, ...]], ...]

    @property
    def resource(self) -> str | None:
        """The resource that the device is advertised as, None when it is not."""
        return None if self.pool is None or self.candidate.obstacle else self.pool.resource


def explain(pools: Sequence[Pool], node: Node, physical_functions: Sequence[PfConfig] = ()) -> Iterator[Verdict]:
    """Judge each network function, subfunction and accelerator of a node, by the rules of `pools.assign`."""
    for candidate in list_candidates(node, physical_functions):
        yield _judge(pools, candidate)


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
        return
    yield f"{head}  -> not advertised"
    if candidate.obstacle:
        match = f"; {_write_match(verdict)} would take it otherwise" if verdict.pool else ""
        yield f"    {candidate.obstacle}{match}"
        return
    fitting = [entry for entry in verdict.rejections if entry[0].device_type == candidate.device_type]
    if not fitting:
        yield f"    no pool has deviceType {candidate.device_type}"
    for pool, rejections in fitting:
        yield from _write_rejections(pool, rejections)


def _write_match(verdict: Verdict) -> str:
    several = verdict.pool is not None and len(verdict.pool.selectors) > 1
    where = f", selectors[{verdict.selector}]" if several else ""
    return f"{verdict.pool.resource if verdict.pool else None}{where}"


def _write_rejections(pool: Pool, rejections: Sequence[Rejection]) -> Iterator[str]:
    for number, rejection in enumerate(rejections):
        where = f" selectors[{number}]" if len(pool.selectors) > 1 else ""
        yield f"    {pool.resource}{where}: {rejection}"
