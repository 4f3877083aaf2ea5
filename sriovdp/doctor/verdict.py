"""All checks in the order of causes, and what they find on a node."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sriovdp.doctor import kernel, kubelet, log, owners, pci, pf, rdma, records, runtime, vf
from sriovdp.doctor.check import ORDER, Check, Finding, SkipError, Status
from sriovdp.doctor.examined import Examined
from sriovdp.doctor.view import UnseenError
from sriovdp.model import escape_unprintable
from sriovdp.reading import UnreadableError

SCHEMA_VERSION = 1
_MOST = 20  # findings of a check that are listed; a node can have a thousand VFs with one fault

_FIRST = ("clock", "disk", "config", "devices")
_LATE = ("hugepages", "boot", "agent", "config-fit", "drift", "versions")
_ALL = [one for area in (kernel, pci, log, pf, vf, owners, rdma, runtime, kubelet, records) for one in area.CHECKS]


def _place(one: Check) -> tuple[int, int]:
    if one.name in _FIRST:
        return 0, _FIRST.index(one.name)
    return (2, _LATE.index(one.name)) if one.name in _LATE else (1, 0)


CHECKS: tuple[Check, ...] = tuple(sorted(_ALL, key=_place))
"""A cause comes before what follows from it: of two faults, the first is to be repaired first."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check found: its findings, the worst first. `left_out` counts those beyond the first twenty."""

    check: Check
    findings: tuple[Finding, ...]
    left_out: int = 0

    @property
    def status(self) -> Status:
        """The worst of its findings; `ok` without any."""
        return self.findings[0].status if self.findings else "ok"


def examine(examined: Examined, checks: Sequence[Check] = CHECKS) -> list[Verdict]:
    """Do all checks. None can stop another: one that fails by itself is a finding with its error."""
    return [_do(one, examined) for one in checks]


def sort(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The worst first, and among those of one status the cause first."""
    return sorted(verdicts, key=lambda verdict: ORDER.index(verdict.status))


def _do(one: Check, examined: Examined) -> Verdict:
    found: list[Finding] = []
    try:
        found.extend(one.question(examined))
    except (SkipError, UnseenError) as error:
        found.append(Finding("skipped", error.message))
    except (UnreadableError, RecursionError) as error:
        found.append(Finding("warn", f"the check {one.name} cannot read what it needs: {error}", "repair that file"))
    except Exception as error:  # noqa: BLE001 - whatever a node holds, the other checks go on
        said = f"the check {one.name} failed: {type(error).__name__}: {error}"
        found.append(Finding("warn", said, "report it, with `sriovdp report`"))
    shown = sorted((_clean(finding) for finding in found), key=lambda finding: ORDER.index(finding.status))
    return Verdict(one, tuple(shown[:_MOST]), max(0, len(shown) - _MOST))


def _clean(finding: Finding) -> Finding:
    """As it may go to a terminal."""
    return Finding(finding.status, escape_unprintable(finding.text)[:1000], escape_unprintable(finding.fix))


def describe(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The JSON of `sriovdp doctor --json`; docs/doctor.md has its schema."""
    counted = {status: sum(verdict.status == status for verdict in verdicts) for status in ORDER}
    return {
        "version": SCHEMA_VERSION,
        "status": sort(verdicts)[0].status if verdicts else "ok",
        "counts": counted,
        "checks": [
            {
                "name": verdict.check.name,
                "area": verdict.check.area,
                "status": verdict.status,
                "left_out": verdict.left_out,
                "findings": [
                    {"status": one.status, "text": one.text, "fix": one.fix or None} for one in verdict.findings
                ],
            }
            for verdict in sort(verdicts)
        ],
    }
