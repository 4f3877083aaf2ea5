"""How each PF was before it was first changed, and before its last change: the `pf-ADDRESS.json` files of the journal.

A record in phase `changing` belongs to an apply that is at work, or was interrupted. The state after a reboot is the
kernel's own, so what an apply of an earlier boot left behind means nothing any more; the originals still do.
"""

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Self

from sriovdp.errors import InUseError, JournalError
from sriovdp.model import Eswitch, PciAddress, PhysicalFunction, VfSettings, VirtualFunction
from sriovdp.reading import UnreadableError, build, parse_object, read_file
from sriovdp.state.files import open_lock
from sriovdp.state.journal import VERSION, Journal, read_boot_id


@dataclass(frozen=True, slots=True)
class VfState:
    """A VF as it was. `mtu` and `mac` are its netdev's, None without one; `settings` None: no PF could be asked."""

    index: int
    driver: str | None
    mtu: int | None = None
    settings: VfSettings | None = None
    mac: str | None = None

    @classmethod
    def of(cls, vf: VirtualFunction) -> Self:
        """The state of a VF in a snapshot."""
        mtu, mac = (vf.netdev.mtu, vf.netdev.mac) if vf.netdev else (None, None)
        return cls(vf.index, vf.driver, mtu, vf.settings, mac)


@dataclass(frozen=True, slots=True)
class PfState:
    """A PF as it was. `up` and `mtu` are its netdev's, None without one.

    `eswitch` is None as long as no config has said of the PF in which mode it has to be.
    """

    up: bool | None
    mtu: int | None
    autoprobe: bool
    vfs: tuple[VfState, ...] = ()
    eswitch: Eswitch | None = None

    @classmethod
    def of(cls, pf: PhysicalFunction) -> Self:
        """The state of a PF in a snapshot."""
        netdev = pf.netdev
        vfs = tuple(map(VfState.of, pf.vfs))
        return cls(netdev.up if netdev else None, netdev.mtu if netdev else None, pf.autoprobe, vfs)


@dataclass(frozen=True, slots=True)
class PfRecord:
    """One file. `original` is the state before the first apply, `before` that before the last one.

    `macs` are the stable MACs that the last apply left, by VF index in decimal; `refused` says of which VFs the driver
    of the PF (`PF`), or that of the VF's netdev as well (`VF`), takes no MAC or GUID that this program makes.
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
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_interrupted(self) -> bool:
        """Whether an apply of this boot did not come to its end."""
        return self.phase == "changing" and self.boot_id == read_boot_id()


def write_record(journal: Journal, record: PfRecord) -> None:
    """Make a record durable. Raises JournalError."""
    journal.write_pf(record.address, asdict(record))


def survey_records(journal: Journal) -> tuple[dict[PciAddress, PfRecord], dict[PciAddress, str]]:
    """All records that can be understood, and why another one cannot, each by the PF's address.

    The address of a damaged file is that of its name; a name without one is no record. Raises JournalError when the
    folder cannot be read.
    """
    records, damaged = dict[PciAddress, PfRecord](), dict[PciAddress, str]()
    for address in map(PciAddress, journal.list_pfs()):
        path = _find_path(journal, address)
        try:
            records[address] = _read(path, address)
        except FileNotFoundError:
            continue  # a reset came between listing and reading it
        except (UnreadableError, OSError) as error:
            damaged[address] = f"{path} cannot be understood: {error}; {_DAMAGE_HINT}"
    return records, damaged


def remove_record(journal: Journal, address: PciAddress) -> None:
    """Forget a PF: it is as it was before the first apply."""
    _find_path(journal, address).unlink(missing_ok=True)


@contextmanager
def claim_provisioning(journal: Journal) -> Iterator[None]:
    """Be the only one who provisions. Raises InUseError while another process does, JournalError."""
    path = journal.directory / "provision.lock"
    try:
        lock = open_lock(path)
    except OSError as error:
        raise JournalError(
            f"opening {path} failed: {error.strerror}", hint="nothing was changed; make that disk writable"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError("another apply or reset is at work on this node", hint="wait for its end") from error
        yield
    finally:
        os.close(lock)


def _find_path(journal: Journal, address: PciAddress) -> Path:
    return journal.directory / f"pf-{address}.json"


_INDEX = re.compile("[0-9]{1,5}")
_DAMAGE_HINT = "move the file away; `sriovdp reset` then does not know how that PF was before the first apply"


def _read(path: Path, address: PciAddress) -> PfRecord:
    """Raises UnreadableError, OSError."""
    document = parse_object(read_file(path))
    if document.get("version") != VERSION:
        raise UnreadableError(f"it is of version {str(document.get('version'))[:20]}, this program reads {VERSION}")
    record = build(PfRecord, document)
    if record.address != address:
        raise UnreadableError(f"it is about {record.address[:20]!r}")
    for name, values in (("macs", record.macs), ("refused", record.refused)):
        if not all(map(_INDEX.fullmatch, values)):
            raise UnreadableError(f"{name} is {str(dict(values))[:60]!r}")
    return record
