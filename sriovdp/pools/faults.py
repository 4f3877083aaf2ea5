"""What a device lacks, by the conditions of its pool; here what a snapshot of the node says. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from sriovdp.config.terms import HealthAction, HealthCondition
from sriovdp.config.values import Pool
from sriovdp.pools.candidates import Candidate


@dataclass(frozen=True, slots=True)
class Lack:
    """A condition that a device does not meet now, with the reason, like `its PF eth0 has no link`."""

    condition: HealthCondition
    reason: str


def wants(pool: Pool, condition: HealthCondition) -> bool:
    """Whether a pool asks for a condition at all."""
    return pool.find_rule(condition).action != "ignore"


def find_pf_lacks(pool: Pool, candidate: Candidate) -> Iterator[Lack]:
    """What the PF of a device lacks. A function without a PF here, like a VF in a virtual machine, is its own.

    Without a netdev here it has no link to judge.
    """
    netdev = candidate.pf.netdev
    if netdev is None:
        if candidate.kind != "PF" and wants(pool, "pfPresent"):
            yield Lack("pfPresent", f"its PF {candidate.pf.address} has no netdev on this host")
        return
    if wants(pool, "pfUp") and not netdev.up:
        yield Lack("pfUp", f"its PF {netdev.name} is down")
    if wants(pool, "pfCarrier") and not netdev.carrier:
        yield Lack("pfCarrier", f"its PF {netdev.name} has no link")


def write_lack(pool: Pool, lack: Lack) -> str:
    """A lack with what becomes of it, for a person."""
    rule = pool.find_rule(lack.condition)
    action: HealthAction = rule.action
    what = "not healthy" if action == "unhealthy" else "a warning"
    held = f" when this lasts {rule.seconds} s" if rule.seconds and not rule.is_event else ""
    return f"{what}{held}: {lack.reason} ({lack.condition})"
