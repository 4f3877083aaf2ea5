"""One run of a CNI plugin's executable: in the host's mount namespace, bounded in time and output."""

import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Event

from cni.protocol.keys import is_plugin_name

TIMEOUT = 60.0  # seconds; kubelet gives a sandbox two to four minutes
# seconds for one whose answer is not wanted any more: killed between making a lease and writing the owner into it,
# host-local would lose that address forever
GRACE = 2.0
OUTPUT_MAX = 1 << 20  # bytes of stdout, and of stderr
_CANCEL_POLL = 100  # milliseconds
_HOST_ROOT = "/proc/1/root"
NOT_EXECUTED = "nsenter: failed to execute"
"""How nsenter of util-linux begins its error when it cannot execute the program (include/c.h, errexec)."""
_NSENTER = ("/usr/bin/nsenter", "--mount=/proc/1/ns/mnt", "--")


class PluginKilledError(Exception):
    """The plugin was killed; the text says why."""


class PluginProcess:
    """A plugin under way, in a session of its own. It has to be waited for or stopped."""

    def __init__(self, executable: str, environment: Mapping[str, str], stdin: bytes) -> None:
        """Start it. Raises OSError."""
        command = [*_entrance(), executable]
        # posix_spawn, not subprocess: it costs half (docs/performance.md); every fd of Python's is closed on exec
        source = os.memfd_create("cni-config", os.MFD_CLOEXEC)  # no pipe: no thread has to feed it
        out, write_out = os.pipe2(os.O_CLOEXEC)
        error, write_error = os.pipe2(os.O_CLOEXEC)
        self._streams = {out: bytearray(), error: bytearray()}
        try:
            os.write(source, stdin)
            os.lseek(source, 0, os.SEEK_SET)
            places = enumerate((source, write_out, write_error))
            self._pid = os.posix_spawn(
                command[0],
                command,
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in places],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except BaseException:  # ValueError too: what no environment can hold
            self._close()
            raise
        finally:
            for descriptor in (source, write_out, write_error):
                os.close(descriptor)
        self._is_reaped = False

    def wait(self, cancelled: Event | None = None, timeout: float = TIMEOUT) -> tuple[int, bytes, bytes]:
        """Wait for its end; gives exit code (negative: the signal that ended it), stdout and stderr.

        Once `cancelled` is set it has GRACE to end. Raises PluginKilledError when it took too long or said too much.
        """
        limit = (time.monotonic() + timeout, f"did not answer within {timeout:.0f} s")
        exit_fd = os.pidfd_open(self._pid)
        try:
            poll = select.poll()
            for descriptor in (exit_fd, *self._streams):
                poll.register(descriptor, select.POLLIN)
            while exit_fd not in self._read(poll, _CANCEL_POLL):
                if cancelled is not None and cancelled.is_set():
                    cancelled = None
                    limit = (time.monotonic() + GRACE, f"did not end within {GRACE:.0f} s after its caller gave up")
                self._check(*limit)
            # its output is complete; other processes that hold its stdout are not waited for
            poll.unregister(exit_fd)
            while self._read(poll, 0):
                self._check(*limit)
        finally:
            os.close(exit_fd)
        code = self._reap()
        out, error = (bytes(stream) for stream in self._streams.values())
        self._close()
        return code, out, error

    def stop(self) -> bool:
        """Let it end if it still runs, in GRACE; then kill it and what it started. Gives whether it ended with 0."""
        if not self._is_reaped:
            with suppress(PluginKilledError):
                return self.wait(timeout=GRACE)[0] == 0
        return False

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._is_reaped and os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def _read(self, poll: "select.poll", pause: int) -> list[int]:
        """Take what there is, waiting for it so many milliseconds; gives the fds that had something to read."""
        ready = [descriptor for descriptor, _ in poll.poll(pause)]
        for descriptor in ready:
            if descriptor in self._streams:
                part = os.read(descriptor, 1 << 16)
                self._streams[descriptor] += part
                if not part:
                    poll.unregister(descriptor)
        return ready

    def _check(self, deadline: float, too_late: str) -> None:
        if time.monotonic() > deadline:
            why = too_late
        elif max(len(stream) for stream in self._streams.values()) > OUTPUT_MAX:
            why = f"said more than {OUTPUT_MAX} bytes"
        else:
            return
        os.killpg(self._pid, signal.SIGKILL)
        self._reap()
        self._close()
        raise PluginKilledError(f"{why} and was killed")

    def _reap(self) -> int:
        self._is_reaped = True
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _close(self) -> None:
        for descriptor in self._streams:
            os.close(descriptor)
        self._streams = {}


def find_executable(name: str, path: str) -> str | None:
    """The first executable file of that name in the folders of a search path, as the host sees them.

    A name with `/` in it is never found: names come from those who write networks, and they choose no programs.
    """
    if not is_plugin_name(name):
        return None
    root = _HOST_ROOT if _entrance() else ""
    for directory in path.split(os.pathsep):
        candidate = f"{directory}/{name}"
        if directory and Path(root + candidate).is_file() and os.access(root + candidate, os.X_OK):
            return candidate
    return None


def date_executable(executable: str) -> int:
    """When the file was changed last, in ns; 0 when it is gone."""
    try:
        return os.stat((_HOST_ROOT if _entrance() else "") + executable).st_mtime_ns  # noqa: PTH116 - asked in each ADD
    except OSError:
        return 0


@cache
def _entrance() -> Sequence[str]:
    """What leads into the host's mount namespace from a container that sees the host's processes."""
    try:
        is_here = Path("/proc/1/ns/mnt").stat().st_ino == Path("/proc/self/ns/mnt").stat().st_ino
    except OSError:  # process 1 is not ours to look at
        return ()
    return () if is_here else _NSENTER
