"""The write-ahead journal: what is about to be changed, and how it was before.

One JSON file for each attachment of a VF to a sandbox, one for each PF that was split. A file is complete or not there:
written beside its place, flushed, and renamed. When it is new the directory is flushed too, but not when it replaces an
older one or is removed: who looks after a power loss sees another boot, in which every phase means the same.
"""

import fcntl
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from sriovdp.errors import InUseError, JournalError
from sriovdp.kernel.sysfs import list_names
from sriovdp.model import VfSettings, split_args

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
VERSION = 1  # files of older versions of this program are read, as fields only come to what there was

_DEVICE = re.compile(r'"device": *"([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])"')

Phase = Literal["adding", "attached", "releasing"]


@dataclass(frozen=True, slots=True)
class Original:
    """How a VF was before it was attached; what releasing it brings back.

    `driver` is empty when it was unbound. `name`, `altnames`, `mac`, `mtu`, `up` and the flags are the netdev's and
    None/empty in DPDK mode. `settings` is None when no PF is visible to set anything through.
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


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of the journal that can not be understood, and the VF it is about, where that can still be read."""

    path: Path
    device: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """One VF attached as one interface of one container. `config` is the network configuration as it came.

    `netns_dev` and `netns_ino` identify the sandbox, `boot_id` the boot in which that means something.
    `released` says that the VF is back and only the IPAM plugin's DEL is owed. `interface` is the name in the pod where
    it is another than `ifname`, the CNI_IFNAME; `unsupported` are settings that the NIC refused and that were let go;
    `result` is what ADD answered, in the shape of specification 1.1.0; `device_info` is a file that ADD wrote,
    and `device_info_dev` and `device_info_ino` identify it; both are 0 until it is written.
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
    interface: str = ""
    unsupported: tuple[str, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    device_info: str = ""
    device_info_dev: int = 0
    device_info_ino: int = 0

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
        pairs = split_args(self.args)
        pod = pairs.get("K8S_POD_NAME")
        return f"{pairs.get('K8S_POD_NAMESPACE', 'default')}/{pod}" if pod else ""

    @property
    def owner(self) -> str:
        """Who uses the VF, for a person: the pod if the runtime named it, else the container."""
        return f"{f'pod {self.pod}' if self.pod else f'container {self.container_id}'} ({self.ifname})"


class Journal:
    """The journal's directory. Safe to use from several threads: each file is written as a whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def locks(self) -> Path:
        """Folder for the locks of whoever works with this journal."""
        return self._directory / "locks"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Be the only agent with this journal: what one has under way, another would take for left behind by a crash.

        The kernel drops the claim when the process ends, however it ends. Raises InUseError while another has it.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._directory / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InUseError(
                    f"another sriovdp agent has the journal {self._directory}", hint="stop it; one agent serves a node"
                ) from error
            yield

    def write_attachment(self, attachment: Attachment) -> None:
        """Make the attachment durable. Raises JournalError when the disk does not take it."""
        self._write(_attachment_name(attachment.container_id, attachment.ifname), _fields(attachment))

    def find_attachment(self, container_id: str, ifname: str) -> Attachment | None:
        """The attachment of that container's interface. Raises JournalError when its file can not be understood."""
        return _parse_attachment(self._directory / _attachment_name(container_id, ifname))

    def attachments(self) -> list[Attachment]:
        """All attachments, in order of their files. Raises JournalError when a file can not be understood."""
        parsed = [_parse_attachment(path) for path in self._paths()]
        return [attachment for attachment in parsed if attachment is not None]

    def survey(self) -> tuple[list[Attachment], list[Damage]]:
        """All attachments that can be understood, and the files that can not."""
        found: list[Attachment] = []
        damages: list[Damage] = []
        for path in self._paths():
            try:
                attachment = _parse_attachment(path)
            except JournalError as error:
                damages.append(Damage(path, _guess_device(path), str(error)))
            else:
                found += [attachment] if attachment else []
        return found, damages

    def _paths(self) -> list[Path]:
        names = list_names(self._directory)
        return [self._directory / name for name in names if name.startswith("attachment-") and name.endswith(".json")]

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
        """Forget an attachment; nothing happens when it is not there."""
        (self._directory / _attachment_name(attachment.container_id, attachment.ifname)).unlink(missing_ok=True)

    def write_pf(self, address: str, record: Mapping[str, Any]) -> None:
        """Make the intent to change a PF durable. Raises JournalError when the disk does not take it."""
        self._write(f"pf-{address}.json", record)

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
    temporary = f"{folder}/.{os.getpid()}-{threading.get_native_id()}"  # nobody else's while this thread lives
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


def _parse_attachment(path: Path) -> Attachment | None:
    """What a file says; None when it is not there, as after a DEL that came between listing and reading it."""
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - as above
            return _parse(stream.read())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise JournalError(
            f"{path} can not be understood: {error}", hint="move the file away once the VF it names is known to be free"
        ) from error


@lru_cache(512)  # an ADD looks at the attachments of all pods
def _parse(content: bytes) -> Attachment:
    record = json.loads(content)
    if record.pop("version") != VERSION:
        raise ValueError("it is of another version")
    original = record.pop("original")
    settings = original.pop("settings")
    return Attachment(
        unsupported=tuple(record.pop("unsupported", ())),
        original=Original(
            **{**original, "altnames": tuple(original["altnames"])},
            settings=VfSettings(**settings) if settings else None,
        ),
        **record,
    )


def _guess_device(path: Path) -> str | None:
    try:
        found = _DEVICE.search(path.read_text(errors="replace"))
    except OSError:
        return None
    return found[1] if found else None
