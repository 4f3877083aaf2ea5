"""A support bundle: one archive with all that support needs of a node, in which nobody is named. Bounded in size."""

import io
import json
import os
import re
import stat
import tarfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from sriovdp.config.text import read
from sriovdp.config.values import Config
from sriovdp.doctor.disguise import Disguise
from sriovdp.doctor.examined import Examined
from sriovdp.doctor.view import ANSWERS, UNSEEN, resolve
from sriovdp.errors import ConfigError, SriovdpError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.node.recording import Pseudonyms, record
from sriovdp.node.sources import collect_facts
from sriovdp.reading import UnreadableError, parse_object, read_file

LOG_MOST = 1 << 20  # bytes of the log that are kept, its end
_MOST = 64 << 20  # bytes of all files
_MOST_ENTRIES = 5000  # files of the journal
_ENTRY_MOST = 1 << 16  # bytes of one of them
_CONFIG = "/etc/sriovdp/config.yaml"
_HIDDEN_KEYS = frozenset({"env", "additionalinfo"})
_NO_VALUE = "HIDDEN"
_JOURNAL = re.compile(r"(attachment|pf)-.+\.json")

README = """What this is: a report of `sriovdp report`, about one node.

doctor.txt    what `sriovdp doctor --all` found, and doctor.json the same for programs
status.txt    what the agent answered
log.txt       the end of the agent's log
node/         the files of the node that the checks read, no more of each than they need: its config, its journal,
              a recording of its sysfs. `sriovdp doctor --root node` finds the same; for other commands it is
              `--sysfs node/sys`

Names of nodes, pods, namespaces, networks, containers and users, MACs, GUIDs, IP addresses, UUIDs, serial numbers and
values of environment variables are replaced: the same original has the same replacement in all files.
"""


class Bundle:
    """Collects a report in a folder, and packs it. All text goes through the disguise."""

    def __init__(self, examined: Examined, disguise: Disguise, macs: Pseudonyms, folder: Path) -> None:
        self._examined = examined
        self._disguise = disguise
        self._macs = macs
        self._folder = folder
        self._node = folder / "node"
        self._node.mkdir()
        self.missing: list[str] = []

    def add(self, name: str, text: str) -> None:
        """A page of its own."""
        (self._folder / name).write_text(self._disguise.hide(text), encoding="utf-8")

    def add_node(self) -> None:
        """The node as a root: its sysfs, what the checks read, config and journal."""
        self._record()
        self._add_config()
        self._add_journal()
        view = self._examined.view
        for path, text in view.texts.items():
            self._write(path, self._disguise.hide(text))
        for path, name in view.links.items():
            self._place(path, partial(_link, name))
        for name, lines in view.answers.items():
            self._write(f"{ANSWERS}/{name}.json", json.dumps([self._disguise.hide(line) for line in lines]))
        self._write(UNSEEN, json.dumps(sorted(map(self._disguise.hide, view.unseen))))
        for path, mode in sorted(view.places.items(), reverse=True):  # what is in a folder makes the folder
            self._place(path, Path.mkdir if path.endswith("/") else partial(_touch, mode))
        for top in view.tops:
            self._place(f"/{top}", Path.mkdir)
        self.add("README.txt", README + "".join(f"\nNot in it: {reason}" for reason in self.missing) + "\n")

    def pack(self, target: Path) -> int:
        """Write the archive, a new file that only its owner can read; gives its size. Raises SriovdpError."""
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SriovdpError(
                f"writing {target} failed: {error.strerror}", hint="name a new file in another folder"
            ) from error
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                with tarfile.open(fileobj=file, mode="w:gz") as archive:
                    self._fill(archive, target.name.partition(".")[0])
                return file.tell()
        except OSError as error:
            target.unlink(missing_ok=True)
            raise SriovdpError(f"writing {target} failed: {error.strerror}", hint="make room on that disk") from error
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def _fill(self, archive: tarfile.TarFile, top: str) -> None:
        """Folders, regular files and links; no link leads out, and nobody that has a name owns anything."""
        total = 0
        for path in sorted(self._folder.rglob("*")):
            entry = archive.gettarinfo(path, f"{top}/{path.relative_to(self._folder)}")
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            if entry.issym() and not self._stays_inside(path, entry.linkname):
                entry.linkname = f"./{entry.linkname.rstrip('/').rpartition('/')[2]}"  # a reader takes no more of it
            total += entry.size
            if total > _MOST:
                raise SriovdpError(
                    f"the report has more than {_MOST >> 20} MiB", hint="leave the log out: --log /dev/null"
                )
            archive.addfile(entry, io.BytesIO(path.read_bytes()) if entry.isreg() else None)

    def _stays_inside(self, path: Path, target: str) -> bool:
        place = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120
        return not target.startswith("/") and place.startswith(f"{self._folder}/")

    def _record(self) -> None:
        sysfs = Sysfs(self._examined.view.sysfs)
        try:
            node = self._examined.node
            record(sysfs.root, node, collect_facts(sysfs, node), self._node / "sys", self._macs)
        except SriovdpError as error:
            self.missing.append(f"the recording: {error}")

    def _add_config(self) -> None:
        text = self._examined.config_text
        if not text:
            self.missing.append("the config: there is none, or it cannot be read")
            return
        try:
            tree = hide_values(read(text, self._examined.config_path).tree)
        except ConfigError as error:
            self.missing.append(f"the config: {'; '.join(error.faults)}")
            self._write(_CONFIG, "{")  # not valid either
            return
        self._write(_CONFIG, self._disguise.hide(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)))

    def _add_journal(self) -> None:
        folder = f"{self._examined.folders.state}/journal"
        try:
            place = Path(self._examined.view.place(folder))
            names = sorted(name for name in os.listdir(place) if _JOURNAL.fullmatch(name))  # noqa: PTH208
        except (OSError, UnreadableError) as error:
            self.missing.append(f"the journal {folder}: {error}")
            return
        if len(names) > _MOST_ENTRIES:
            self.missing.append(f"{len(names) - _MOST_ENTRIES} files of the journal")
        (self._node / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for name in names[:_MOST_ENTRIES]:
            self._write(f"{folder}/{name}", self._disguise.hide(_read_entry(place / name)))

    def _write(self, path: str, text: str) -> None:
        self._place(path, lambda place: place.write_text(text + "\n", encoding="utf-8"))

    def _place(self, path: str, make: Callable[[Path], object]) -> None:
        """Make something at a path of the node, unless something is there."""
        hidden = path if path.startswith("/sys/") else self._disguise.hide(path)
        place = Path(f"{self._node}{resolve(str(self._node), hidden)}")
        if place.exists() or place.is_symlink():
            return
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            make(place)
        except (FileExistsError, NotADirectoryError):
            self.missing.append(f"{hidden}: it was a file and a folder at once")


def _link(name: str, place: Path) -> None:
    """Only the last part of where a link leads is ever read."""
    place.symlink_to(f"./{name}")


def _touch(mode: int, place: Path) -> None:
    place.touch()
    place.chmod(stat.S_IMODE(mode) & 0o755 | 0o600)


def _read_entry(path: Path) -> str:
    """A file of the journal without the network's configuration and result; of a damaged one its size."""
    try:
        document = parse_object(read_file(path, _ENTRY_MOST))
    except (OSError, UnreadableError) as error:
        return f"left out: {type(error).__name__}"
    for key in ("config", "result"):
        document.pop(key, None)
    return json.dumps(document)


def hide_values(tree: Any) -> Any:
    """A config's tree in which values of environment variables and such are hidden."""
    if isinstance(tree, dict):
        return {
            key: _hide_leaves(value) if str(key).lower() in _HIDDEN_KEYS else hide_values(value)
            for key, value in tree.items()
        }
    return [hide_values(value) for value in tree] if isinstance(tree, list) else tree


def _hide_leaves(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hide_leaves(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_hide_leaves(item) for item in value]
    return _NO_VALUE


def list_names(examined: Examined, node_name: str, config: Config | None) -> Mapping[str, list[str]]:
    """Names that identify somebody, by their kind: what the journal, the kubelet and the config have."""
    attachments = examined.surveyed[0] if examined.has_journal else []
    pairs = [entry.pod for entry in attachments if entry.pod]
    pairs += [line.partition(" ")[2] for line in examined.view.answers.get("pod-resources", [])[1:]]
    selects = [entry.nodes for entry in config.physical_functions] if config else []
    selects += [pool.nodes for pool in config.pools] if config else []
    nodes = [name for select in selects if select for name in select.names]
    return {
        "node": [name for name in {node_name, node_name.partition(".")[0], *nodes} if name],
        "namespace": sorted({pair.partition("/")[0] for pair in pairs}),
        "pod": sorted({pair.partition("/")[2] for pair in pairs}),
        "network": sorted({entry.network for entry in attachments if entry.network}),
        "pair": sorted(set(pairs)),
    }


def read_tail(path: Path) -> str:
    """The end of a log. A link is not followed, and a FIFO not waited for. Raises SriovdpError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and size > LOG_MOST:
                file.seek(size - LOG_MOST)
            return (file.read(LOG_MOST) or b"").decode(errors="replace")
    except OSError as error:
        raise SriovdpError(f"reading the log {path} failed: {error.strerror}", hint="name a file, no link") from error
