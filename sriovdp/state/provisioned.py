"""How each PF was before it was first changed, and before its last change: the `pf-ADDRESS.json` files of the journal.

A record in phase `changing` belongs to an apply that is at work, or was interrupted. The state after a reboot is the
kernel's own, so what an apply of an earlier boot left behind means nothing any more; the originals still do.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from sriovdp.errors import InUseError, JournalError
from sriovdp.model import PciAddress, PhysicalFunction, VfSettings
from sriovdp.state.journal import VERSION, Journal, read_boot_id


@dataclass(frozen=True, slots=True)
class VfState:
    """A VF as it was. `mtu` is its netdev's, None without one; `settings` None: there was no PF netdev to ask."""

    index: int
    driver: str | None
    mtu: int | None = None
    settings: VfSettings | None = None


@dataclass(frozen=True, slots=True)
class PfState:
    """A PF as it was. `up` and `mtu` are its netdev's, None without one."""

    up: bool | None
    mtu: int | None
    autoprobe: bool
    vfs: tuple[VfState, ...] = ()

    @classmethod
    def of(cls, pf: PhysicalFunction) -> Self:
        """The state of a PF in a snapshot."""
        vfs = tuple(VfState(vf.index, vf.driver, vf.netdev.mtu if vf.netdev else None, vf.settings) for vf in pf.vfs)
        netdev = pf.netdev
        return cls(netdev.up if netdev else None, netdev.mtu if netdev else None, pf.autoprobe, vfs)


@dataclass(frozen=True, slots=True)
class PfRecord:
    """One file. `original` is the state before the first apply, `before` that before the last one.

    `macs` are the stable admin MACs that the last apply left, by VF index in decimal.
    """

    address: PciAddress
    phase: Literal["changing", "done"]
    boot_id: str
    original: PfState
    before: PfState
    steps: tuple[str, ...] = ()
    allow_host_uplink: bool = False
    externally_managed: bool = False
    macs: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_interrupted(self) -> bool:
        """Whether an apply of this boot did not come to its end."""
        return self.phase == "changing" and self.boot_id == read_boot_id()


def write_record(journal: Journal, record: PfRecord) -> None:
    """Make a record durable. Raises JournalError."""
    journal.write_pf(record.address, asdict(record))


def list_records(journal: Journal) -> dict[PciAddress, PfRecord]:
    """All records, by the PF's address. Raises JournalError when one cannot be understood."""
    records = (_parse(path) for path in sorted(_folder(journal).glob("pf-*.json")))
    return {record.address: record for record in records}


def remove_record(journal: Journal, address: PciAddress) -> None:
    """Forget a PF: it is as it was before the first apply."""
    (_folder(journal) / f"pf-{address}.json").unlink(missing_ok=True)


@contextmanager
def claim_provisioning(journal: Journal) -> Iterator[None]:
    """Be the only one who provisions. Raises InUseError while another process does, JournalError."""
    path = _folder(journal) / "provision.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = path.open("w")
    except OSError as error:
        raise JournalError(
            f"opening {path} failed: {error.strerror}", hint="nothing was changed; make that disk writable"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError("another apply or reset is at work on this node", hint="wait for its end") from error
        yield


def _folder(journal: Journal) -> Path:
    return journal.directory


def _parse(path: Path) -> PfRecord:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        if record.pop("version") != VERSION:
            raise ValueError("it is of another version")
        return PfRecord(
            address=PciAddress(record.pop("address")),
            original=_parse_state(record.pop("original")),
            before=_parse_state(record.pop("before")),
            steps=tuple(record.pop("steps")),
            **record,
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise JournalError(
            f"{path} cannot be understood: {error}",
            hint="move the file away; `sriovdp reset` then knows no more how that PF was before the first apply",
        ) from error


def _parse_state(state: Mapping[str, Any]) -> PfState:
    vfs = (
        VfState(**{**vf, "settings": VfSettings(**vf["settings"]) if vf["settings"] else None}) for vf in state["vfs"]
    )
    return PfState(**{**state, "vfs": tuple(vfs)})
