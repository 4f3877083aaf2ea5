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
        self._logged: set[str] = set()

    @property
    def settled(self) -> bool:
        """Whether all that was found last has been logged: a look at the same node finds nothing to log."""
        return self._since.keys() == self._logged

    def update(self, differences: Iterable[str], unread: Iterable[str] = ()) -> None:
        """Take over what a look found, as sentences, and log what changed.

        `unread` are about VFs that could not be read: what was found of them before still counts.
        """
        now = time.monotonic()
        unknown = list(unread)
        subjects = tuple(sentence.partition("): ")[0] for sentence in unknown)
        kept = (line for line in self._logged if subjects and line.startswith(subjects))
        self._since = {found: self._since.get(found, now) for found in (*differences, *unknown, *kept)}
        for difference, since in self._since.items():
            if now - since >= self._lasting and difference not in self._logged:
                what = "is not known to be" if difference in unknown else "is not"
                logger.warning("%s; the node %s as its config says", difference, what)
                self._logged.add(difference)
        for difference in sorted(self._logged - self._since.keys()):
            logger.info("%s; this is settled", difference)
            self._logged.remove(difference)
