"""One run of a plugin's executable: what it says, and what ends it."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cni.ipam import process as process_module
from cni.ipam.process import PluginKilledError, PluginProcess, find_executable


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Starts a plugin of a few shell lines, which gets its own process id as $$."""

    def write(text: str, stdin: bytes = b"") -> PluginProcess:
        script = tmp_path / "plugin"
        script.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\n{text}\n")
        script.chmod(0o755)
        return PluginProcess(str(script), {"PATH": os.environ["PATH"], "CNI_COMMAND": "ADD"}, stdin)

    return write


def is_running(folder: Path) -> bool:
    """Whether the plugin's process is there."""
    return Path("/proc", (folder / "pid").read_text().strip()).exists()


def test_everything_comes_back(start: Any) -> None:
    """Large input and output in both streams, and the exit code."""
    process = start("cat; head -c 200000 /dev/zero >&2; exit 7", b"x" * 300_000)

    assert process.wait(timeout=30) == (7, b"x" * 300_000, bytes(200_000))


def test_signal_is_reported(start: Any) -> None:
    """A plugin that is killed by somebody else."""
    assert start("kill -9 $$").wait() == (-9, b"", b"")


def test_child_that_keeps_stdout_open_is_not_waited_for(start: Any, tmp_path: Path) -> None:
    """The plugin's own end counts, and what it said until then is there."""
    started = start(f"sleep 60 & echo $! >{tmp_path}/child; echo done")

    assert started.wait(timeout=30)[:2] == (0, b"done\n")

    os.kill(int((tmp_path / "child").read_text()), 9)


@pytest.mark.parametrize(
    ("text", "timeout", "told"),
    [("sleep 60", 0.2, "did not answer within 0 s"), ("exec cat /dev/zero", 30, "said more than 1048576 bytes")],
)
def test_bounds(start: Any, tmp_path: Path, text: str, timeout: float, told: str) -> None:
    """Who is too slow or says too much is killed and reaped."""
    with pytest.raises(PluginKilledError, match=told):
        start(text).wait(timeout=timeout)

    assert not is_running(tmp_path)


def test_cancel_leaves_time_to_end(start: Any) -> None:
    """What a plugin has begun, as to write a lease, it may end: no other program can."""
    cancelled = threading.Event()
    cancelled.set()

    assert start("sleep 0.3; echo done").wait(cancelled) == (0, b"done\n", b"")


def test_stop_leaves_time_to_end(start: Any, tmp_path: Path) -> None:
    """The same when the answer is not read."""
    process = start(f"sleep 0.3; touch {tmp_path}/lease")

    process.stop()
    process.stop()

    assert (tmp_path / "lease").exists()
    assert not is_running(tmp_path)


def test_cancel_kills_with_all_its_children(start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the answer any more, and it does not end: the whole session of the plugin goes."""
    monkeypatch.setattr(process_module, "GRACE", 0.1)
    process = start(f"sleep 60 & echo $! >{tmp_path}/child; wait")
    cancelled = threading.Event()
    while not (tmp_path / "child").exists():
        time.sleep(0.01)
    threading.Timer(0.1, cancelled.set).start()

    with pytest.raises(PluginKilledError, match="after its caller gave up and was killed"):
        process.wait(cancelled)

    assert not is_running(tmp_path)
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    deadline = time.monotonic() + 30
    while child.exists() and child.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_no_descriptor_is_left(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither after its end, nor after a kill, nor when it could not be executed at all."""
    monkeypatch.setattr(process_module, "GRACE", 0.1)
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names, not paths
    start("true").wait()
    start("sleep 60").stop()
    with pytest.raises(OSError, match="No such file"):
        PluginProcess("/nowhere/plugin", {}, b"")

    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_in_a_container_the_hosts_files_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Process 1 in another mount namespace is the host's: it says which plugins there are, and is entered for them."""
    (tmp_path / "host/opt").mkdir(parents=True)
    (tmp_path / "host/opt/plugin").touch(0o755)
    monkeypatch.setattr(process_module, "_HOST_ROOT", str(tmp_path / "host"))
    monkeypatch.setattr(process_module, "_entrance", lambda: ("/bin/echo", "entered"))

    assert find_executable("plugin", "/opt") == "/opt/plugin"
    assert PluginProcess("/opt/plugin", {}, b"").wait() == (0, b"entered /opt/plugin\n", b"")
    monkeypatch.setattr(process_module, "_entrance", tuple)
    assert find_executable("plugin", "/opt") is None
