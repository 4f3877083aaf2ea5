"""A container runtime, as far as CNI sees one: it makes network namespaces and execs the plugin's launcher.

Environment, stdin and working of the exec are those of libcni (pkg/invoke/raw_exec.go); the launcher is the real one.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cni.foreign_state import ForeignState
from cni.policy import Policy
from cni.protocol.wire import Request
from cni.verbs.announce import announce_once
from cni.verbs.dispatch import Verbs
from cni.verbs.recovery import Recovery
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Journal
from sriovdp.state.locks import Locks

_EXEC_TIMEOUT = 180.0  # seconds, for a machine that is emulated


class CniFailureError(Exception):
    """The plugin answered an error. `code` and `message` are its own; code 0 when it answered nothing readable."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Sandbox:
    """A pod's network namespace, under /run/netns as `ip netns` and containerd keep them."""

    name: str

    @property
    def path(self) -> str:
        """What the runtime gives as CNI_NETNS."""
        return f"/run/netns/{self.name}"

    @property
    def container_id(self) -> str:
        """What the runtime gives as CNI_CONTAINERID."""
        return f"{self.name}-sandbox"

    def create(self) -> "Sandbox":
        """Make the namespace, with its loopback up."""
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        subprocess.run(["ip", "-n", self.name, "link", "set", "lo", "up"], check=True)
        return self

    def remove(self) -> None:
        """Remove the namespace; nothing happens when it is gone."""
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)

    def run(self, *command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        inside = ["ip", "netns", "exec", self.name, *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=timeout, check=False)

    def ping(self, address: str, count: int = 3) -> bool:
        """Whether at least one of `count` echo requests is answered within a second each."""
        return self.run("ping", "-c", str(count), "-i", "0.3", "-W", "1", address).returncode == 0


@contextmanager
def make_sandboxes() -> Iterator[Callable[[str], Sandbox]]:
    """Make sandboxes by name; all are gone at the end."""
    made: list[Sandbox] = []

    def create(name: str) -> Sandbox:
        made.append(Sandbox(name).create())
        return made[-1]

    try:
        yield create
    finally:
        for one in made:
            one.remove()


@dataclass(frozen=True)
class Plugin:
    """The plugin without launcher and agent: its verbs, called in this process with a state of its own.

    What runs in the agent runs here, only quicker on an emulated machine, and where a test can reach into it.
    """

    root: Path
    plugins: str = "/usr/lib/cni"
    announce: Callable[..., object] = announce_once
    policy: Policy | None = None
    """What networks may name and ask for; files are below `root` without it."""

    @property
    def verbs(self) -> Verbs:
        """Fresh verbs, as after a restart."""
        journal = Journal(self.root / "journal")
        policy = self.policy or Policy((self.root,), (self.root / "devinfo",), (self.root,))
        old = ForeignState(self.root / "old")
        return Verbs(Sysfs(), journal, Locks(journal.locks), self.announce, old, policy)

    @property
    def recovery(self) -> Recovery:
        """The recovery of the same node, as after a restart."""
        journal = Journal(self.root / "journal")
        return Recovery(Sysfs(), journal, Locks(journal.locks))

    def call(
        self, command: str, sandbox: Sandbox | None, config: Mapping[str, Any], ifname: str = "net1", args: str = ""
    ) -> bytes:
        """Run a verb and give what it printed. Raises CniFailureError."""
        given = args or (f"IgnoreUnknown=true;K8S_POD_NAMESPACE=default;K8S_POD_NAME={sandbox.name}" if sandbox else "")
        container, path = (sandbox.container_id, sandbox.path) if sandbox else ("", "")
        request = Request(command, container, path, ifname if sandbox else "", given, self.plugins, _encode(config))
        try:
            netns_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else None
        except FileNotFoundError:
            netns_fd = None
        try:
            reply = self.verbs.handle(request, netns_fd)
        finally:
            if netns_fd is not None:
                os.close(netns_fd)
        if reply.exit_code != 0:
            raise _read_failure(reply.stdout, b"")
        return reply.stdout

    def add(self, sandbox: Sandbox, config: Mapping[str, Any], ifname: str = "net1", args: str = "") -> dict[str, Any]:
        """ADD; gives the result. Raises CniFailureError."""
        result: dict[str, Any] = json.loads(self.call("ADD", sandbox, config, ifname, args))
        return result

    def delete(self, sandbox: Sandbox, config: Mapping[str, Any], ifname: str = "net1") -> None:
        """DEL. Raises CniFailureError, and AssertionError when it prints what the specification forbids."""
        printed = self.call("DEL", sandbox, config, ifname)
        assert printed == b"", f"DEL printed {printed!r}"

    def attachments(self) -> list[str]:
        """Files of attachments in the journal."""
        return sorted(path.name for path in (self.root / "journal").glob("attachment-*"))


def _encode(config: Mapping[str, Any]) -> bytes:
    return json.dumps(config).encode()


@dataclass(frozen=True)
class Runtime:
    """Execs the launcher for its sandboxes."""

    launcher: Path
    socket: Path = Path("/run/sriovdp/agent.sock")
    plugins: str = "/usr/lib/cni"
    environment: Mapping[str, str] = field(default_factory=dict)

    def add(self, sandbox: Sandbox, config: Mapping[str, Any], ifname: str = "net1") -> dict[str, Any]:
        """ADD; gives the result. Raises CniFailureError."""
        result: dict[str, Any] = json.loads(self.call("ADD", sandbox, config, ifname))
        return result

    def delete(self, sandbox: Sandbox, config: Mapping[str, Any], ifname: str = "net1") -> None:
        """DEL. Raises CniFailureError, and AssertionError when it prints what the specification forbids."""
        printed = self.call("DEL", sandbox, config, ifname)
        assert printed == b"", f"DEL printed {printed!r}"

    def start(
        self, command: str, sandbox: Sandbox, config: Mapping[str, Any], ifname: str = "net1"
    ) -> subprocess.Popen[bytes]:
        """Exec the launcher and do not wait for it."""
        process = subprocess.Popen(
            [self.launcher],
            env=self._environment(command, sandbox, ifname),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin
        process.stdin.write(json.dumps(config).encode())
        process.stdin.close()
        process.stdin = None  # communicate() shall not close it again
        return process

    def call(self, command: str, sandbox: Sandbox, config: Mapping[str, Any], ifname: str = "net1") -> bytes:
        """Run a verb and give what it printed. Raises CniFailureError."""
        process = self.start(command, sandbox, config, ifname)
        stdout, stderr = process.communicate(timeout=_EXEC_TIMEOUT)
        if process.returncode != 0:
            raise _read_failure(stdout, stderr)
        return stdout

    def _environment(self, command: str, sandbox: Sandbox, ifname: str) -> dict[str, str]:
        args = f"IgnoreUnknown=true;K8S_POD_NAMESPACE=default;K8S_POD_NAME={sandbox.name}"
        return {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": sandbox.container_id,
            "CNI_NETNS": sandbox.path,
            "CNI_IFNAME": ifname,
            "CNI_ARGS": args,
            "CNI_PATH": self.plugins,
            "SRIOVDP_SOCKET": str(self.socket),
            **self.environment,
        }


def _read_failure(stdout: bytes, stderr: bytes) -> CniFailureError:
    try:
        document = json.loads(stdout)
        return CniFailureError(document["code"], f"{document['msg']} {document.get('details', '')}".strip())
    except (ValueError, KeyError, TypeError):
        return CniFailureError(0, f"stdout {stdout!r}, stderr {stderr!r}")
