"""The agent's recovery, until it has nothing more to do at once."""

import threading

from cni.verbs.backlog import Backlog
from cni.verbs.recovery import Recovery


def recover(recovery: Recovery) -> dict[str, str]:
    """Finish what is owed; gives the VFs that no pod should get, with the reason."""
    ended = threading.Event()
    backlog = Backlog(recovery.sysfs, recovery.journal, lambda: recovery, ended.set)
    backlog.look()
    for _ in range(1000):
        if not backlog.is_working:
            break
        assert ended.wait(90), backlog.report()
        ended.clear()
        backlog.look()
    return backlog.broken()
