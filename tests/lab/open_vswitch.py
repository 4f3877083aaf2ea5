"""Open vSwitch in the lab's guest: Debian's programs from the cache, with the kernel's own datapath."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setup.open_vswitch import find_open_vswitch
from tests.lab.vnic_cards import run, wait_for

_RUN = Path("/run/openvswitch")
_SOCKET = _RUN / "db.sock"


@dataclass(frozen=True)
class OpenVswitch:
    """Database and daemon. `state` is a folder for the database."""

    state: Path

    def start(self) -> None:
        """Start both, with the database as it was left."""
        root = find_open_vswitch()
        assert run("modprobe", "openvswitch").returncode == 0
        _RUN.mkdir(exist_ok=True)
        database = self.state / "conf.db"
        if not database.exists():
            schema = root / "usr/share/openvswitch/vswitch.ovsschema"
            self._run(root / "usr/bin/ovsdb-tool", "create", database, schema)
        self._run(root / "usr/sbin/ovsdb-server", database, f"--remote=punix:{_SOCKET}", *self._daemon("ovsdb-server"))
        self.vsctl("--no-wait", "init")
        self.start_vswitchd()

    def start_vswitchd(self) -> None:
        """Start the daemon alone."""
        program = find_open_vswitch() / "usr/lib/openvswitch-switch/ovs-vswitchd"
        self._run(program, f"unix:{_SOCKET}", *self._daemon("ovs-vswitchd"))

    def kill(self, name: str) -> None:
        """End `ovsdb-server` or `ovs-vswitchd` at once, and wait until it is gone."""
        pid = self._pid(name)
        if pid:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not Path(f"/proc/{pid}/exe").exists())
            (self.state / f"{name}.pid").unlink()
        if name == "ovsdb-server":
            _SOCKET.unlink(missing_ok=True)

    def stop(self) -> None:
        """End both; the kernel's datapath goes too."""
        for name in ("ovs-vswitchd", "ovsdb-server"):
            self.kill(name)
        run("ip", "link", "delete", "ovs-system")
        run(str(find_open_vswitch() / "usr/bin/ovs-dpctl"), "del-dp", "ovs-system")
        run("rmmod", "openvswitch")

    def vsctl(self, *words: str) -> str:
        """What `ovs-vsctl` prints. Raises AssertionError."""
        return self._run(find_open_vswitch() / "usr/bin/ovs-vsctl", "--timeout=30", *words)

    def port(self, name: str) -> dict[str, Any]:
        """The row of a port; empty when there is none."""
        shown = self.vsctl(
            "--format=json", "--columns=tag,trunks,vlan_mode,external_ids", "find", "Port", f"name={name}"
        )
        table = json.loads(shown)
        return dict(zip(table["headings"], table["data"][0], strict=True)) if table["data"] else {}

    def ports(self, bridge: str) -> list[str]:
        """Names of a bridge's ports."""
        return self.vsctl("list-ports", bridge).split()

    def _pid(self, name: str) -> int:
        path = self.state / f"{name}.pid"
        return int(path.read_text()) if path.exists() else 0

    def _daemon(self, name: str) -> tuple[str, ...]:
        pid, log = self.state / f"{name}.pid", self.state / f"{name}.log"
        return (f"--pidfile={pid}", f"--log-file={log}", f"--unixctl={self.state / name}.ctl", "--detach", "--no-chdir")

    def _run(self, *command: str | Path) -> str:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command[0]}: {done.stderr}"
        return done.stdout


@contextmanager
def open_vswitch(state: Path) -> Iterator[OpenVswitch]:
    """A running one; all of it is gone at the end."""
    switch = OpenVswitch(state)
    switch.start()
    try:
        yield switch
    finally:
        switch.stop()
