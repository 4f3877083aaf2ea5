"""The spool: what the launcher keeps there without an agent, and how the next agent replays it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cni.protocol.spec import INVALID_CONFIG, IPAM_FAILURE, render_error
from cni.protocol.wire import Reply, Request, Spooled, decode_spooled, encode_spooled
from cni.service import spool as spool_module
from cni.service.connection import Handle
from cni.service.spool import Spool
from cni.verbs.dispatch import Verbs
from sriovdp.errors import CniError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Attachment, Journal, Original, read_boot_id
from sriovdp.state.locks import Locks
from tests.cni.launching import TIMEOUT, Outcome, run_alone

DEL = Request("DEL", "c1", "/run/netns/a", "net1", "K8S_POD_NAME=red", "/opt/cni/bin", b'{"name": "net-a"}')
GC = Request("GC", "", "", "", "", "/opt/cni/bin", b'{"name": "net-a"}')
VARIABLES = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "net1"}

# An agent that ends itself by SIGKILL in the state that it is given: no cleaning up, and its socket's file stays.
KILLED = """if True:
    import os, signal, socket, sys
    path, state = sys.argv[1:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print(flush=True)
    if state == "listening":
        import select
        select.select([listener], [], [])
    else:
        connection, _ = listener.accept()
        if state != "accepted":
            connection.recv(1 if state == "received a part" else 1 << 20)
        if state == "answered a part of the header":
            connection.send(b"SRIO")
        if state == "answered a part of the result":
            connection.send(b"SRIO" + bytes([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9]) + b"part")
    os.kill(os.getpid(), signal.SIGKILL)
"""
STATES = [
    "listening",
    "accepted",
    "received a part",
    "received",
    "answered a part of the header",
    "answered a part of the result",
]


class Agent:
    """What the agent's verbs are to the spool: it remembers requests and answers as it is set."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.seen: list[tuple[Request, int | None]] = []

    def __call__(self, request: Request, netns_fd: int | None, cancelled: threading.Event) -> Reply:
        """Remember the request, and the inode of its namespace."""
        assert not cancelled.is_set()
        self.seen.append((request, None if netns_fd is None else os.fstat(netns_fd).st_ino))
        return self.replies.pop(0) if self.replies else Reply(0, b"")

    @property
    def containers(self) -> list[str]:
        """Whose requests came, in their order."""
        return [request.container_id for request, _ in self.seen]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The spool's folder, which is not there yet."""
    return tmp_path / "state/spool"


def keep(folder: Path, name: str, request: Request = DEL, inode: int = 0, boot: str = "") -> Path:
    """Put a request into the spool as the launcher does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(encode_spooled(Spooled(request, 4, inode, boot)))
    return folder / name


def failing(code: int) -> Reply:
    """An error of the verbs."""
    return Reply(1, render_error(CniError(code, "it failed")))


def test_del_without_agent_is_kept_and_replayed(launcher: Path, folder: Path, tmp_path: Path) -> None:
    """The runtime gets success; every part of its request reaches the next agent, with the namespace it named."""
    inode = Path("/proc/self/ns/net").stat().st_ino
    paths = {"SRIOVDP_SOCKET": str(tmp_path / "none.sock"), "SRIOVDP_SPOOL": str(folder)}
    netns = f"/proc/{os.getpid()}/ns/net"
    outcome = run_alone(
        launcher, DEL.stdin, **VARIABLES, **paths, CNI_NETNS=netns, CNI_ARGS=DEL.args, CNI_PATH=DEL.path
    )

    assert outcome == Outcome(0, b"")
    [file] = folder.iterdir()
    assert (file.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    request = replace(DEL, netns=netns)
    device = Path("/proc/self/ns/net").stat().st_dev
    assert decode_spooled(file.read_bytes()) == Spooled(request, device, inode, read_boot_id())
    agent = Agent()
    Spool(folder).replay(agent)
    assert agent.seen == [(request, inode)]
    assert list(folder.iterdir()) == []


def test_gc_without_agent_is_kept_too(launcher: Path, folder: Path, tmp_path: Path) -> None:
    """It names no container and has no namespace."""
    paths = {"SRIOVDP_SOCKET": str(tmp_path / "none.sock"), "SRIOVDP_SPOOL": str(folder)}

    assert run_alone(launcher, GC.stdin, CNI_COMMAND="GC", CNI_PATH=GC.path, **paths) == Outcome(0, b"")

    noted: list[Request] = []
    Spool(folder).note_gcs(noted.append)
    assert noted == [GC]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("state", STATES)
def test_agent_killed_in_each_state(static_launcher: Path, folder: Path, tmp_path: Path, state: str) -> None:
    """ADD has to try again; DEL is kept, and the file of the dead agent's socket is no obstacle."""
    path = tmp_path / "agent.sock"
    outcomes = []
    for command in ("ADD", "DEL"):
        path.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, "-ISc", KILLED, path, state], stdout=subprocess.PIPE) as agent:
            assert agent.stdout
            agent.stdout.readline()
            paths = {"SRIOVDP_SOCKET": str(path), "SRIOVDP_SPOOL": str(folder)}
            stdin = b"x" * (1 << 19)  # more than a socket's buffer
            outcomes.append(run_alone(static_launcher, stdin, **(VARIABLES | {"CNI_COMMAND": command}), **paths))
        assert agent.returncode == -signal.SIGKILL

    assert outcomes[0].error["code"] == 11
    assert outcomes[1] == Outcome(0, b"")
    assert [decode_spooled(file.read_bytes()).request.command for file in folder.iterdir()] == ["DEL"]


def test_agent_that_lives_but_does_not_answer_gets_no_spool(
    impatient_launcher: Path, folder: Path, tmp_path: Path
) -> None:
    """A hung agent would not look at it, and the runtime's next DEL may find it well."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        paths = {"SRIOVDP_SOCKET": str(path), "SRIOVDP_SPOOL": str(folder)}
        outcome = run_alone(impatient_launcher, b"{}", **VARIABLES, **paths)

    assert outcome.error["code"] == 11
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", ["DEL", "GC"])
def test_spool_that_can_not_be_written_is_an_error(launcher: Path, tmp_path: Path, command: str) -> None:
    """The DEL is not lost: the runtime reads both, and asks again."""
    (tmp_path / "file").touch()
    spool = str(tmp_path / "file/spool")
    paths = {"SRIOVDP_SOCKET": str(tmp_path / "none.sock"), "SRIOVDP_SPOOL": spool}
    outcome = run_alone(launcher, b"{}", **(VARIABLES | {"CNI_COMMAND": command}), **paths)

    assert outcome.error["code"] == 11
    assert f"{command} cannot be kept for it in {spool}: Not a directory" in outcome.error["msg"]


@pytest.mark.netns
def test_full_disk_is_an_error_and_leaves_nothing(static_launcher: Path, folder: Path, tmp_path: Path) -> None:
    """A request that does not fit is not kept in part."""
    folder.mkdir(parents=True)
    script = 'mount -t tmpfs -o size=64k tmpfs "$SRIOVDP_SPOOL" && "$0"; code=$?; ls -A "$SRIOVDP_SPOOL"; exit $code'
    variables = {**VARIABLES, "SRIOVDP_SOCKET": str(tmp_path / "none.sock"), "SRIOVDP_SPOOL": str(folder)}
    finished = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, static_launcher],
        input=b"x" * (1 << 19),
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **variables},
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )

    assert finished.stderr == b""
    assert "No space left on device" in Outcome(finished.returncode, finished.stdout).error["msg"]


def test_agent_that_comes_up_meanwhile_is_seen(static_launcher: Path, folder: Path, tmp_path: Path) -> None:
    """Who found no agent and waits for the spool's lock looks again under it: nothing is spooled behind a replay."""
    folder.mkdir(parents=True)
    path = tmp_path / "agent.sock"
    paths = {"SRIOVDP_SOCKET": str(path), "SRIOVDP_SPOOL": str(folder)}
    lock = os.open(folder, os.O_RDONLY)
    with ThreadPoolExecutor() as pool:
        spool_module._lock(lock)
        launcher = pool.submit(run_alone, static_launcher, b"{}", **VARIABLES, **paths)
        wait_for_waiter(lock)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            os.close(lock)
            outcome = launcher.result()

    assert outcome.error["code"] == 11
    assert list(folder.iterdir()) == []


def wait_for_waiter(descriptor: int) -> None:
    """Wait until a process waits for the lock of this file (`->` in /proc/locks)."""
    inode = os.fstat(descriptor).st_ino
    deadline = time.monotonic() + TIMEOUT
    while not any("->" in line and f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_replay_begins_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oldest first, and each once."""
    monkeypatch.setattr(spool_module, "_THREADS", 1)
    for second in (3, 1, 2):
        keep(folder, f"0000000000{second}.000000000-7", replace(DEL, container_id=f"c{second}"))
    agent = Agent()
    spool = Spool(folder)

    spool.replay(agent)
    spool.replay(agent)

    assert agent.containers == ["c1", "c2", "c3"]


def test_no_spool_is_an_empty_one(folder: Path) -> None:
    """A new node has none."""
    agent = Agent()
    spool = Spool(folder)

    spool.settle()
    spool.replay(agent)

    assert agent.seen == []


def test_settle_waits_for_a_launcher_and_removes_halves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher writes is waited for; what a killed one left half written was never promised to anybody."""
    keep(folder, "00000000001.000000000-7")
    (folder / ".00000000002.000000000-8").write_bytes(b"SRI")
    lock = os.open(folder, os.O_RDONLY)
    spool_module._lock(lock)
    settling = threading.Thread(target=Spool(folder).settle)
    settling.start()
    settling.join(0.1)
    assert settling.is_alive()
    os.close(lock)
    settling.join(TIMEOUT)
    assert [path.name for path in folder.iterdir()] == ["00000000001.000000000-7"]

    monkeypatch.setattr(spool_module, "_LOCK_TIMEOUT", 0.05)
    lock = os.open(folder, os.O_RDONLY)
    spool_module._lock(lock)
    Spool(folder).settle()  # does not hang
    os.close(lock)


def test_failed_del_is_tried_again_but_not_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An IPAM plugin that fails now may work later."""
    keep(folder, "1")
    agent = Agent(failing(IPAM_FAILURE))
    spool = Spool(folder)

    spool.replay(agent)
    spool.replay(agent)
    assert len(agent.seen) == 1

    later = time.monotonic() + 3600
    monkeypatch.setattr(time, "monotonic", lambda: later)
    spool.replay(agent)
    assert len(agent.seen) == 2
    assert list(folder.iterdir()) == []


def test_gc_is_for_the_start_only(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Later it would take pods that came meanwhile for gone."""
    keep(folder, "1", GC)
    agent = Agent()

    Spool(folder).replay(agent)

    assert agent.seen == []
    assert list(folder.iterdir()) == []
    assert "too old" in caplog.text


def test_gc_that_cannot_be_taken_over_stops_no_other(folder: Path) -> None:
    """It is put aside, whatever it is that went wrong; DELs are not touched."""
    for number, stdin in enumerate((b"first", b"second")):
        keep(folder, f"{number}", replace(GC, stdin=stdin))
    keep(folder, "2")
    noted: list[Request] = []

    def note(request: Request) -> None:
        noted.append(request)
        if request.stdin == b"first":
            raise RecursionError

    Spool(folder).note_gcs(note)

    assert [request.stdin for request in noted] == [b"first", b"second"]
    assert sorted(path.name for path in folder.iterdir()) == ["0.rejected", "2"]


ANYTHING: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: path.mkdir(),
    "FIFO": os.mkfifo,
    "link": lambda path: path.symlink_to("/dev/zero"),
    "dangling link": lambda path: path.symlink_to("/nowhere"),
    "huge": lambda path: path.write_bytes(b"SRIO" * 400_000),
    "empty": lambda path: path.touch(),
}


@pytest.mark.parametrize("kind", ANYTHING)
def test_what_is_no_file_stops_no_replay(folder: Path, kind: str) -> None:
    """It is not waited for either."""
    folder.mkdir(parents=True)
    ANYTHING[kind](folder / "0")
    keep(folder, "1")
    agent = Agent()
    spool = Spool(folder)

    spool.note_gcs(lambda _: None)
    assert spool.replay(agent)

    assert agent.containers == ["c1"]


def test_replay_never_feeds_itself(folder: Path) -> None:
    """This plugin as its own IPAM plugin would spool a DEL for each that is replayed."""
    path = keep(folder, "1")
    data = path.read_bytes()
    variable = b"CNI_SRIOVDP_DELEGATED=1\0"
    size = int.from_bytes(data[12:16], "big")
    path.write_bytes(data[:12] + (size + len(variable)).to_bytes(4, "big") + data[16:20] + variable + data[20:])
    agent = Agent()

    Spool(folder).replay(agent)

    assert agent.seen == []
    assert [path.name for path in folder.iterdir()] == ["1.rejected"]


def test_failures_are_logged_once_and_tried_ever_less_often(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An IPAM plugin without its server does not fill the log."""
    keep(folder, "1")
    agent = Agent(*[failing(IPAM_FAILURE)] * 100)
    spool = Spool(folder)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(24 * 60):  # a look in each minute of a day
        now += 60
        spool.replay(agent)
    assert 20 < len(agent.seen) < 40
    assert caplog.text.count("ERROR") == 1


@pytest.mark.parametrize("content", [b"", b"rubbish", encode_spooled(Spooled(replace(DEL, command="ADD"), 0, 0, ""))])
def test_what_is_no_request_is_put_aside(folder: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A person can look at it; the next ones are replayed, and it is not looked at again."""
    keep(folder, "1").write_bytes(content)
    keep(folder, "2")
    agent = Agent()

    for _ in range(2):
        Spool(folder).replay(agent)

    assert agent.containers == ["c1"]
    assert [path.name for path in folder.iterdir()] == ["1.rejected"]
    assert caplog.text.count(": moved to ") == 1


def test_request_that_can_never_succeed_is_put_aside(folder: Path) -> None:
    """A configuration that is refused now is refused forever."""
    keep(folder, "1")

    Spool(folder).replay(Agent(failing(INVALID_CONFIG)))

    assert [path.name for path in folder.iterdir()] == ["1.rejected"]


def test_request_of_a_later_version_waits(folder: Path) -> None:
    """An agent that was put back to an older release leaves it to the newer one."""
    file = keep(folder, "1")
    file.write_bytes(b"SRIO\0\0\0\2" + file.read_bytes()[8:])

    Spool(folder).replay(Agent())

    assert [path.name for path in folder.iterdir()] == ["1"]


@pytest.mark.parametrize("boot", ["another-boot", ""])
def test_namespace_of_another_boot_is_not_opened(folder: Path, boot: str) -> None:
    """After a reboot the same inode is another sandbox, even behind the same path."""
    inode = Path("/proc/self/ns/net").stat().st_ino
    keep(folder, "1", replace(DEL, netns="/proc/self/ns/net"), inode, boot)
    agent = Agent()

    Spool(folder).replay(agent)

    assert agent.seen == [(replace(DEL, netns="/proc/self/ns/net"), None)]


def _use(verbs: Verbs) -> Handle:
    return lambda request, netns_fd, _: verbs.handle(request, netns_fd)


def test_del_of_a_vf_that_another_pod_has_by_now(folder: Path, tmp_path: Path) -> None:
    """It releases the addresses of its own container, and touches neither the VF nor the other's attachment."""
    plugin = tmp_path / "plugin"
    plugin.write_text(f'#!/bin/sh\necho "$CNI_COMMAND $CNI_CONTAINERID" >>{tmp_path / "calls"}\n')
    plugin.chmod(0o755)
    config = {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": "0000:01:10.2"}
    stdin = json.dumps({**config, "ipam": {"type": "plugin"}}).encode()
    keep(folder, "1", replace(DEL, stdin=stdin, path=str(tmp_path)))
    journal = Journal(tmp_path / "journal")
    original = Original("igbvf", None, "eth1")
    other = Attachment(
        "c2",
        "net1",
        "net-a",
        "0000:01:10.2",
        "kernel",
        original,
        "/run/netns/b",
        4,
        1,
        read_boot_id(),
        phase="attached",
    )
    journal.write_attachment(other)

    Spool(folder).replay(_use(Verbs(Sysfs(tmp_path / "sys"), journal, Locks(journal.locks))))

    assert (tmp_path / "calls").read_text() == "DEL c1\n"
    assert journal.attachments() == [other]
    assert list(folder.iterdir()) == []
