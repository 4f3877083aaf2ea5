"""How the node differs from its config, in the log: each difference that lasts, and its end."""

import logging
import time
from collections.abc import Iterable

logger = logging.getLogger(__name__)


class DriftLog:
    """What was found and logged so far. A difference is logged when it is still there `lasting` seconds later.

    An ADD or a DEL that is at work leaves its VF without a driver for an instant, which is no difference.
    """

    def __init__(self, lasting: float = 1.0) -> None:
        self._lasting = lasting
        self._since: dict[str, float] = {}
        self._told: set[str] = set()

    @property
    def settled(self) -> bool:
        """Whether all that was found last has been logged: a look at the same node finds nothing to log."""
        return self._since.keys() == self._told

    def update(self, differences: Iterable[str]) -> None:
        """Take over what a look found, as sentences, and log what changed."""
        now = time.monotonic()
        self._since = {difference: self._since.get(difference, now) for difference in differences}
        for difference, since in self._since.items():
            if now - since >= self._lasting and difference not in self._told:
                logger.warning("%s; the node is not as its config says", difference)
                self._told.add(difference)
        for difference in sorted(self._told - self._since.keys()):
            logger.info("%s; this is settled", difference)
            self._told.remove(difference)
