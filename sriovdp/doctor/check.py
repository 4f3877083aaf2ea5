"""What a check is: a function with a name, an area and a source, and what it finds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sriovdp.errors import SriovdpError

if TYPE_CHECKING:
    from sriovdp.doctor.examined import Examined

Status = Literal["fail", "warn", "ok", "skipped"]
ORDER: tuple[Status, ...] = ("fail", "warn", "ok", "skipped")
"""From the worst to the least."""


class SkipError(SriovdpError):
    """A check has nothing to look at on this node; the message says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check saw: a sentence that begins with its object, and the command that fixes it."""

    status: Status
    text: str
    fix: str = ""


def fail(text: str, fix: str) -> Finding:
    """What keeps pods from their devices."""
    return Finding("fail", text, fix)


def warn(text: str, fix: str) -> Finding:
    """What may do so, or is not as the config says."""
    return Finding("warn", text, fix)


def ok(text: str) -> Finding:
    """What is as it should be."""
    return Finding("ok", text)


Question = Callable[["Examined"], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `source` says where its rule comes from; `about` is what it looks at, in one line."""

    name: str
    area: str
    source: str
    about: str
    question: Question


def check(name: str, area: str, source: str) -> Callable[[Question], Check]:
    """Make a check of a function; its docstring says what it looks at."""

    def make(question: Question) -> Check:
        return Check(name, area, source, (question.__doc__ or "").partition("\n")[0], question)

    return make
