"""The write-ahead journal: what is about to be changed, and how it was before.

One JSON file for each attachment of a VF to a sandbox, one for each PF that was split. A file is complete or not there:
written beside its place, flushed, and renamed. When it is new the directory is flushed too, but not when it replaces an
older one or is removed: who looks after a power loss sees another boot, in which every phase means the same.

No file stops the others, whatever it holds: one that cannot be understood is a `Damage`, about one VF.
"""

import fcntl
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from sriovdp.errors import DamageError, InUseError, JournalError
from sriovdp.model import VfSettings, escape_unprintable, find_pod, is_pci_address, name_container
from sriovdp.reading import UnreadableError, build, parse_object, read_file
from sriovdp.state.files import open_lock

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
VERSION = 1  # files of older versions of this program are read, as fields only come to what there was

_DEVICE = re.compile(rb'"device": *"([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])"')
_TEMPORARY = re.compile(r"\.(\d+)-\d+")

LEFT_OUT: Mapping[str, Any] = MappingProxyType({})
"""What `config` and `result` of a surveyed attachment are: a node's pods can have a hundred megabytes of them."""

Phase = Literal["adding", "attached", "releasing"]


@dataclass(frozen=True, slots=True)
class Original:
    """How a VF was before it was attached; what releasing it brings back.

    `driver` is empty when it was unbound. `name`, `altnames`, `mac`, `mtu`, `up` and the flags are the netdev's and
    None/empty in DPDK mode. `settings` is None when no PF is visible to set anything through. `tuning` is that of
    `sriovdp.kernel.tuning`, None where it could not be read: then a release binds the driver again. `dev_port` says
    which netdev it is of a function that has several.
    """

    driver: str
    settings: VfSettings | None
    name: str | None = None
    altnames: tuple[str, ...] = ()
    mac: str | None = None
    mtu: int = 0
    up: bool = False
    promisc: bool = False
    allmulti: bool = False
    tuning: Mapping[str, str] | None = None
    dev_port: int | None = None


@dataclass(frozen=True, slots=True)
class RepresentorState:
    """How a VF's representor was, in no bridge: `up` or not. `bridge` is the one that an ADD puts it into, or empty.

    `switch` says whose bridge it is: Linux's or Open vSwitch's.
    """

    up: bool
    bridge: str = ""
    switch: Literal["linux", "ovs"] = "linux"


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of the journal that cannot be understood, and the VF it is about, where that can still be read."""

    path: Path
    device: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """One VF attached as one interface of one container. `config` is the network configuration as it came.

    `netns_dev` and `netns_ino` identify the sandbox, `boot_id` the boot in which that means something.
    `released` says that the VF is back and only its addresses are owed, `freed` that they are free and only the VF is
    owed. `interface` is the name in the pod where
    it is another than `ifname`, the CNI_IFNAME; `unsupported` are settings that the NIC refused and that were let go;
    `result` is what ADD answered, in the shape of specification 1.1.0; `device_info` is a file that ADD wrote,
    and `device_info_dev` and `device_info_ino` identify it; both are 0 until it is written;
    `rdma` has the names that the VF's RDMA devices have on the host and the kernel's indices, where they go with it.
    `representor` is None for a VF without one; `trunk` are the VLANs that it could tag with before, empty for all, None
    where none are set.
    """

    container_id: str
    ifname: str
    network: str
    device: str
    mode: Literal["kernel", "dpdk"]
    original: Original
    netns: str
    netns_dev: int
    netns_ino: int
    boot_id: str
    config: Mapping[str, Any] = field(default_factory=dict)
    args: str = ""
    path: str = ""
    phase: Phase = "adding"
    released: bool = False
    freed: bool = False
    interface: str = ""
    unsupported: tuple[str, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    device_info: str = ""
    device_info_dev: int = 0
    device_info_ino: int = 0
    rdma: Mapping[str, int] = field(default_factory=dict)
    representor: RepresentorState | None = None
    trunk: str | None = None

    @property
    def pod_ifname(self) -> str:
        """The interface's name in the pod."""
        return self.interface or self.ifname

    @property
    def key(self) -> str:
        """Name of the attachment, and of the lock of its requests."""
        return f"{self.container_id}-{self.ifname}"

    @property
    def pod(self) -> str:
        """Namespace and name of the pod, like `default/web`; empty when the runtime did not give them."""
        return find_pod(self.args)

    @property
    def caller(self) -> str:
        """Who asked for the VF, for the start of a log line, with the container that a runtime's log names."""
        return name_container(self.args, self.container_id, self.ifname)

    @property
    def owner(self) -> str:
        """Who uses the VF, for a person: the pod if the runtime named it, else the container."""
        owner = f"{f'pod {self.pod}' if self.pod else f'container {self.container_id}'} ({self.ifname})"
        return escape_unprintable(owner)


class Journal:
    """The journal's directory. Safe to use from several threads: each file is written as a whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # what each file held when it was read last, by name, with the stamp that another version of it does not have
        self._seen: Mapping[str, tuple[_Stamp, Attachment | Damage]] = {}

    @property
    def directory(self) -> Path:
        """Folder of the attachments' files, and of other state that is kept beside them."""
        return self._directory

    @property
    def locks(self) -> Path:
        """Folder for the locks of all that work with this journal."""
        return self._directory / "locks"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Be the only agent with this journal: what one has under way, another would take for left behind by a crash.

        The kernel drops the claim when the process ends, however it ends. Raises InUseError while another has it, and
        JournalError when the folder cannot be written.
        """
        lock = self._open_lock()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise InUseError(
                f"another sriovdp agent has the journal {self._directory}", hint="stop it; one agent serves a node"
            ) from error
        try:
            self._remove_halves()
            yield
        finally:
            os.close(lock)

    def write_attachment(self, attachment: Attachment) -> None:
        """Make the attachment durable. Raises JournalError when the disk does not take it."""
        if attachment.config is LEFT_OUT or attachment.result is LEFT_OUT:
            raise ValueError(f"the attachment {attachment.key} of a survey is not whole")
        self._write(_attachment_name(attachment.container_id, attachment.ifname), _fields(attachment))

    def find_attachment(self, container_id: str, ifname: str) -> Attachment | None:
        """The attachment of that container's interface; None without one.

        Raises DamageError when its file cannot be understood, JournalError when it cannot be read.
        """
        path = self._directory / _attachment_name(container_id, ifname)
        try:
            return _read_attachment(path)
        except FileNotFoundError:
            return None
        except UnreadableError as error:
            raise DamageError(_describe_damage(path, error), hint=_DAMAGE_HINT) from error
        except OSError as error:
            raise JournalError(f"reading {path} failed: {error.strerror}", hint="check that disk") from error

    def attachments(self) -> list[Attachment]:
        """All attachments, in order of their files. Raises JournalError when a file cannot be understood."""
        found, damages = self.survey()
        if damages:
            raise JournalError(damages[0].reason)
        whole = (self.find_attachment(entry.container_id, entry.ifname) for entry in found)
        return [entry for entry in whole if entry is not None]

    def survey(self) -> tuple[list[Attachment], list[Damage]]:
        """All attachments that can be understood, without `config` and `result` (LEFT_OUT), and the files that cannot.

        A file is read again when it has changed, so that this is cheap. Raises JournalError when the folder cannot be
        read: then nothing is known of any VF.
        """
        known, seen = self._seen, dict[str, tuple[_Stamp, Attachment | Damage]]()
        for name in self._list_names("attachment-"):
            if (stamp := _stamp(f"{self._directory}/{name}")) is None:
                continue  # a DEL came between listing and reading it
            before = known.get(name)
            entry = before[1] if before and before[0] == stamp else _survey_file(self._directory / name)
            if entry is not None:
                seen[name] = (stamp, entry)
        self._seen = seen
        entries = [entry for _, entry in seen.values()]
        attachments = [entry for entry in entries if isinstance(entry, Attachment)]
        return attachments, [entry for entry in entries if isinstance(entry, Damage)]

    def check_writable(self) -> None:
        """Raises JournalError when nothing can be written."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=self._directory) as probe:
                probe.write(b"probe")
        except OSError as error:
            raise JournalError(
                f"writing below {self._directory} failed: {error.strerror}",
                hint="make room on that disk, or mount it writable",
            ) from error

    def remove_attachment(self, attachment: Attachment) -> None:
        """Forget an attachment; nothing happens when it is not there. Raises JournalError when the disk refuses it."""
        path = self._directory / _attachment_name(attachment.container_id, attachment.ifname)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise JournalError(f"removing {path} failed: {error.strerror}", hint="mount that disk writable") from error

    def write_pf(self, address: str, record: Mapping[str, Any]) -> None:
        """Make the intent to change a PF durable. Raises JournalError when the disk does not take it."""
        self._write(f"pf-{address}.json", record)

    def has_pfs(self) -> bool:
        """Whether an apply ever changed a PF that was not given back. Raises JournalError."""
        return bool(self.list_pfs())

    def list_pfs(self) -> list[str]:
        """Addresses of the PFs that an apply changed, by the names of their files. Raises JournalError."""
        addresses = (name.removeprefix("pf-").removesuffix(".json") for name in self._list_names("pf-"))
        return [address for address in addresses if is_pci_address(address)]

    def _list_names(self, prefix: str) -> list[str]:
        try:
            names = os.listdir(self._directory)  # noqa: PTH208 - pathlib costs more than the system call
        except FileNotFoundError:
            return []
        except OSError as error:
            raise JournalError(
                f"reading the folder {self._directory} failed: {error.strerror}",
                hint="no VF can be given to a pod until it can be read; check that disk",
            ) from error
        return sorted(name for name in names if name.startswith(prefix) and name.endswith(".json"))

    def _open_lock(self) -> int:
        path = self._directory / "lock"
        try:
            return open_lock(path)
        except OSError as error:
            raise JournalError(
                f"opening {path} failed: {error.strerror}", hint="make room on that disk, or mount it writable"
            ) from error

    def _remove_halves(self) -> None:
        """Remove what killed processes were writing: it was never complete."""
        for name in os.listdir(self._directory):  # noqa: PTH208
            found = _TEMPORARY.fullmatch(name)
            if found and not Path("/proc", found[1]).exists():
                with suppress(OSError):  # a folder: no killed process of ours made it
                    (self._directory / name).unlink()

    def _write(self, name: str, record: Mapping[str, Any]) -> None:
        path = f"{self._directory}/{name}"
        text = json.dumps({"version": VERSION, **record}, separators=(",", ":"), default=_fields)
        try:
            is_new = not os.path.exists(path)  # noqa: PTH110 - pathlib costs more than the system call, here and below
            if is_new:
                self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_durably(path, text.encode())
            if is_new:
                self._sync_directory()
        except OSError as error:
            raise JournalError(
                f"writing {self._directory / name} failed: {error.strerror}",
                hint="nothing was changed; make room on that disk, or mount it writable",
            ) from error

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@cache
def read_boot_id() -> str:
    """Identity of this boot; namespaces and VF settings of another boot mean nothing."""
    return _BOOT_ID.read_text().strip()


def _attachment_name(container_id: str, ifname: str) -> str:
    return f"attachment-{container_id}-{ifname}.json"


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass; `dataclasses.asdict` would copy all that is in them."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _write_durably(path: str, content: bytes) -> None:
    folder = os.path.dirname(path)  # noqa: PTH120
    temporary = f"{folder}/.{os.getpid()}-{threading.get_native_id()}"  # this thread's own as long as it lives
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            while content:
                content = content[os.write(descriptor, content) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


_Stamp = tuple[int, int, int, int]


def _stamp(path: str) -> _Stamp | None:
    """What differs between two versions of a file; None when it is gone."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _survey_file(path: Path) -> Attachment | Damage | None:
    """What a file says, as far as a survey has it; None when it is gone by now."""
    try:
        return replace(_read_attachment(path), config=LEFT_OUT, result=LEFT_OUT)
    except FileNotFoundError:
        return None
    except (UnreadableError, OSError) as error:
        return Damage(path, _guess_device(path), f"{_describe_damage(path, error)}; {_DAMAGE_HINT}")


def _read_attachment(path: Path) -> Attachment:
    """Raises UnreadableError, OSError."""
    record = parse_object(read_file(path))
    if record.get("version") != VERSION:
        raise UnreadableError(f"it is of version {str(record.get('version'))[:20]}, this program reads {VERSION}")
    attachment = build(Attachment, record)
    if not is_pci_address(attachment.device):
        raise UnreadableError(f"device is {attachment.device[:60]!r}")
    if path.name != _attachment_name(attachment.container_id, attachment.ifname):
        raise UnreadableError(f"it is about {attachment.key[:60]!r}")
    for name in ("netns", "args", "path", "interface", "container_id", "ifname"):
        if "\0" in getattr(attachment, name):
            raise UnreadableError(f"{name} holds a NUL")
    return attachment


_DAMAGE_HINT = "move the file away once the VF it names is known to be free"


def _describe_damage(path: Path, error: Exception) -> str:
    return f"{path} cannot be understood: {error}"


def _guess_device(path: Path) -> str | None:
    try:
        found = _DEVICE.search(read_file(path))
    except (OSError, UnreadableError):
        return None
    return found[1].decode() if found else None
