"""PFs whose list of VFs takes the kernel long: they are asked less often, so that the node's network goes on.

ice waits up to 0.8 s for each VF in reset, and holds RTNL meanwhile, which all changes of interfaces, addresses and
routes of the node need (intel/ice/ice_vf_lib.c, ice_check_vf_ready_for_cfg). A look that is repeated every few seconds
would keep the node standing.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sriovdp.model import VfSettings

logger = logging.getLogger(__name__)

_SLOW = 0.3  # seconds; the list of 128 VFs takes some milliseconds
_SHARE = 20  # a PF is asked in no more than one part in so many of the time
_LONGEST_REST = 60.0  # seconds

Settings = Mapping[int, VfSettings] | None
"""Settings of a PF's VFs by index; None when its driver has none."""


@dataclass(slots=True)
class _Answer:
    settings: Settings
    vfs: int
    until: float = 0.0  # time.monotonic
    is_slow: bool = False


@dataclass
class SlowLists:
    """The last answers of PFs, for one that looks at them again and again. To be used by one thread at a time."""

    _answers: dict[str, _Answer] = field(default_factory=dict)

    def ask(self, pf: str, name: str, vfs: int, read: Callable[[], Settings]) -> Settings:
        """What `read` gives of a PF; or what it gave before, as long as the PF rests after a slow answer.

        `pf` is its PCI address, `name` its netdev's, `vfs` how many VFs it has: another number is asked for at once.
        """
        last = self._answers.get(pf)
        began = time.monotonic()
        if last and last.vfs == vfs and began < last.until:
            return last.settings
        answer = _Answer(read(), vfs)
        now = time.monotonic()
        took = now - began
        if took > _SLOW:
            rest = min(took * _SHARE, _LONGEST_REST)
            answer.until, answer.is_slow = now + rest, True
            if not (last and last.is_slow):
                logger.warning(
                    "%s (%s): the kernel took %.1f s to list its VFs, as with VFs in reset, and no network of the node "
                    "can be changed meanwhile; from now on it is asked every %.0f s",
                    *(name, pf, took, rest),
                )
        elif last and last.is_slow:
            logger.info("%s (%s): the kernel lists its VFs fast again", name, pf)
        self._answers[pf] = answer
        return answer.settings

    def forget(self) -> None:
        """Ask all again: the VFs were changed."""
        self._answers.clear()
