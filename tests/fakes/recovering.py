"""The agent's recovery, until it has nothing more to do at once."""

import time

from cni.verbs.backlog import Backlog
from cni.verbs.recovery import Recovery

_ROUNDS = 4  # the VF, then the addresses; a VF that another request has in one round is looked at in the next
_LIMIT = 90.0  # seconds for a round


def recover(recovery: Recovery) -> dict[str, str]:
    """Finish what is owed; gives the VFs that no pod should get, with the reason."""
    backlog = Backlog(recovery.sysfs, recovery.journal, lambda: recovery, lambda: None)
    for _ in range(_ROUNDS):
        backlog.look()
        end = time.monotonic() + _LIMIT
        while backlog.is_working:
            assert time.monotonic() < end, backlog.report()
            time.sleep(0.002)
    return backlog.broken()
