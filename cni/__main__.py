"""`python -m cni`: the CNI plugin as a program of its own, for a node without the agent.

Same verbs, same journal, same locks: an agent on the same node and this never work on one VF at the same time.
SRIOVDP_STATE_DIR moves the folder with the journal.
"""

import logging
import os
import sys
from pathlib import Path

from cni.protocol.spec import VERSIONS
from cni.protocol.wire import DELEGATED, Reply, Request
from cni.verbs.announce import announce_once
from cni.verbs.dispatch import Verbs
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Journal
from sriovdp.state.locks import Locks

_STATE = "/var/lib/sriovdp"


def main() -> int:
    """Serve the request of the environment; the exit code is the plugin's."""
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    command = os.environ.get("CNI_COMMAND", "")
    if not command:
        sys.stderr.write(f"CNI plugin sriov of sriovdp\nCNI protocol versions supported: {', '.join(VERSIONS)}\n")
        return 0
    reply = _serve(command)
    sys.stdout.buffer.write(reply.stdout)
    sys.stdout.buffer.flush()
    return reply.exit_code


def _serve(command: str) -> Reply:
    variables = {name: os.environ.get(f"CNI_{name}", "") for name in ("CONTAINERID", "NETNS", "IFNAME", "ARGS", "PATH")}
    netns_fd, netns_errno = _open(variables["NETNS"])
    request = Request(
        command,
        variables["CONTAINERID"],
        variables["NETNS"],
        variables["IFNAME"],
        variables["ARGS"],
        variables["PATH"],
        b"" if command == "VERSION" else sys.stdin.buffer.read(),
        netns_errno,
        is_delegated=DELEGATED in os.environ,
    )
    journal = Journal(Path(os.environ.get("SRIOVDP_STATE_DIR", _STATE)) / "journal")
    return Verbs(Sysfs(), journal, Locks(journal.locks), announce_once).handle(request, netns_fd)


def _open(path: str) -> tuple[int | None, int]:
    """The fd of CNI_NETNS, which the process's end closes, and why there is none."""
    try:
        return (os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else None), 0
    except OSError as error:
        return None, error.errno or 0


if __name__ == "__main__":
    sys.exit(main())
