"""The releases that are owed on a node, worked off in the background: each for itself, with growing pauses.

Neither a VF that does not come home nor an IPAM plugin that hangs keeps anything else waiting: VFs and addresses have
threads of their own, the entries of one IPAM plugin have at most two of these, and what was tried least is tried next.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cni.verbs.owed import is_owed, without_lost_vf
from sriovdp.errors import BusyError, SriovdpError
from sriovdp.kernel.device_name import DeviceName
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Attachment, Damage, Journal

if TYPE_CHECKING:
    from cni.verbs.recovery import Recovery

logger = logging.getLogger(__name__)

Part = Literal["VF", "addresses"]

_THREADS: dict[Part, int] = {"VF": 8, "addresses": 4}
_PER_PLUGIN = 2
_PAUSE, _PAUSE_MAX = 5.0, 600.0  # seconds before the second attempt, doubled with each, and at most


@dataclass(slots=True)
class Debt:
    """One part of one release that is owed. `reason` is why it is not done, empty before its first attempt."""

    entry: Attachment
    part: Part
    plugin: str = ""
    attempts: int = 0
    due: float = 0.0
    reason: str = ""
    is_running: bool = field(default=False, compare=False)

    @property
    def key(self) -> tuple[str, str]:
        """What it is known by."""
        return self.entry.key, self.part


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What an operator should know of: a VF that no pod gets (its address), or addresses that are not free (empty)."""

    device: str
    owner: str
    reason: str
    attempts: int


class Backlog:
    """The work that is owed, and why the rest of it is not done. Safe to use from several threads.

    `find_recovery` gives what finishes a release. It is called in the thread of each attempt, and not before there is
    something owed: on most starts the agent need not import it before the pools are with the kubelet.
    `changed` is called, in any thread, when something came to an end. `pause` is what _PAUSE says, for tests.
    """

    def __init__(
        self,
        sysfs: Sysfs,
        journal: Journal,
        find_recovery: "Callable[[], Recovery]",
        changed: Callable[[], None],
        *,
        pause: float = _PAUSE,
    ) -> None:
        self._sysfs = sysfs
        self._journal = journal
        self._find_recovery = find_recovery
        self._changed = changed
        self._pause = pause
        self._debts: dict[tuple[str, str], Debt] = {}
        self._damages: dict[str, Damage] = {}
        self._running: Counter[str] = Counter()
        self._condition = threading.Condition()
        self._is_first = True

    def look(self) -> None:
        """Take over what the journal says, and begin what is due. Raises JournalError when it cannot be read."""
        attachments, damages = self._journal.survey()
        owed = [without_lost_vf(entry) for entry in attachments if is_owed(entry)]
        wanted = {debt.key: debt for debt in map(_describe, owed)}
        for key, debt in wanted.items():
            if key not in self._debts and debt.part == "addresses":
                debt.plugin = _find_plugin(self._journal, debt.entry)
            if debt.part == "VF" and self._is_first:  # later, it can be an ADD or DEL that is at work
                debt.reason = f"its release from {debt.entry.owner} is not finished yet"
        self._is_first = False
        with self._condition:
            kept = {key: debt for key, debt in self._debts.items() if key in wanted or debt.is_running}
            self._debts = wanted | kept
            self._note_damages(damages)
            self._begin()

    def wait(self, timeout: float) -> None:
        """Wait until each VF that is owed was tried once, for at most so many seconds."""
        with self._condition:
            self._condition.wait_for(self._is_tried, timeout)

    @property
    def is_working(self) -> bool:
        """Whether anything is being tried now, or is to be tried for the first time."""
        with self._condition:
            return any(debt.is_running or not debt.attempts for debt in self._debts.values())

    @property
    def is_open(self) -> bool:
        """Whether anything is owed, and so is to be looked at again."""
        with self._condition:
            return bool(self._debts)

    def broken(self) -> dict[str, str]:
        """The VFs that no pod should get, with the reason."""
        return {found.device: found.reason for found in self.report() if found.device}

    def report(self) -> list[Quarantine]:
        """All that did not end well until now, and what the agent found at its start and has not tried yet."""
        with self._condition:
            debts = [debt for debt in self._debts.values() if debt.reason]
            damaged = list(self._damages.values())
        found = [
            Quarantine(debt.entry.device if debt.part == "VF" else "", debt.entry.owner, debt.reason, debt.attempts)
            for debt in debts
        ]
        return found + [Quarantine(damage.device or "", str(damage.path), damage.reason, 1) for damage in damaged]

    def _name(self, device: str) -> DeviceName:
        return DeviceName(self._sysfs, device)

    def _is_tried(self) -> bool:
        return all(debt.attempts for debt in self._debts.values() if debt.part == "VF")

    def _note_damages(self, damages: Iterable[Damage]) -> None:
        """Each damaged file is logged once, as long as it stays what it is."""
        found = {damage.reason: damage for damage in damages}
        for reason in found.keys() - self._damages.keys():
            device = found[reason].device
            logger.error("%s: %s", self._name(device) if device else "the journal", reason)
        self._damages = found

    def _begin(self) -> None:
        """Start threads for what is due, as far as there are any."""
        now = time.monotonic()
        due = [debt for debt in self._debts.values() if not debt.is_running and debt.due <= now]
        for debt in sorted(due, key=lambda debt: (debt.attempts, debt.due)):
            plugin = f"plugin {debt.plugin}"
            if self._running[debt.part] >= _THREADS[debt.part]:
                continue
            if debt.part == "addresses" and self._running[plugin] >= _PER_PLUGIN:
                continue
            debt.is_running = True
            self._running.update((debt.part, plugin))
            threading.Thread(target=self._run, args=(debt,), name="recovery", daemon=True).start()

    def _run(self, debt: Debt) -> None:
        """Try once, in a thread of its own."""
        failure: Exception | None = None
        is_busy = False
        try:
            recovery = self._find_recovery()
            (recovery.bring_back if debt.part == "VF" else recovery.free)(debt.entry)
        except BusyError:
            is_busy = True
        except Exception as error:  # noqa: BLE001 - whatever an entry holds: the others go on, and so does the agent
            failure = error
        with self._condition:
            debt.is_running = False
            self._running.subtract((debt.part, f"plugin {debt.plugin}"))
            self._running = +self._running
            if failure is not None:
                self._note_failure(debt, failure)
            else:
                self._debts.pop(debt.key, None)
                if debt.reason and not is_busy:
                    what = "released from" if debt.part == "VF" else "addresses are free of"
                    logger.info("%s: %s %s", self._name(debt.entry.device), what, debt.entry.owner)
            self._begin()
            self._condition.notify_all()
        self._changed()

    def _note_failure(self, debt: Debt, error: Exception) -> None:
        debt.attempts += 1
        pause = min(self._pause * 2 ** min(debt.attempts - 1, 20), _PAUSE_MAX)
        debt.due = time.monotonic() + pause
        said = error.reason if isinstance(error, SriovdpError) else repr(error)
        reason = f"{'not back from' if debt.part == 'VF' else 'addresses not free of'} {debt.entry.owner}: {said}"
        if reason != debt.reason:
            level = logging.ERROR if debt.part == "VF" else logging.WARNING
            trace = None if isinstance(error, SriovdpError) else error
            text = "%s: %s; the agent retries in %.0f s and later, this is logged once"
            logger.log(level, text, self._name(debt.entry.device), reason, pause, exc_info=trace)
        debt.reason = reason


def _describe(entry: Attachment) -> Debt:
    """The part that is to be done next."""
    return Debt(entry, "addresses" if entry.released else "VF")


def _find_plugin(journal: Journal, listed: Attachment) -> str:
    """Name of the IPAM plugin that an attachment's addresses are of, empty for none."""
    with suppress(SriovdpError):
        attachment = journal.find_attachment(listed.container_id, listed.ifname)
        ipam = attachment.config.get("ipam") if attachment else None
        return str(ipam.get("type") or "") if isinstance(ipam, dict) else ""
    return ""
