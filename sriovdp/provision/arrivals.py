"""PFs and drivers that come while the agent runs: what is logged of them, and whether there is something to be made."""

import logging

from sriovdp.config.values import Config
from sriovdp.model import Node, PhysicalFunction
from sriovdp.provision.drift import describe_change

logger = logging.getLogger(__name__)


class Arrivals:
    """Compares each look at the node with the one before."""

    def __init__(self) -> None:
        self._node: Node | None = None
        self._drivers = frozenset[str]()

    def note(self, config: Config, node: Node, drivers: frozenset[str], *, is_lacking: bool) -> bool:
        """Log what came or went, and say whether the node is to be made as the config says.

        It is when a PF of the config came, and when a driver came while the node `is_lacking` something.
        """
        before, self._node = self._node or node, node
        is_new = bool(drivers - self._drivers)
        self._drivers = drivers
        for change in describe_change(before, node):
            logger.info("%s", change)
        arrived = find_arrivals(config, before, node)
        for pf in arrived:
            logger.info(
                "%s (%s): new here, or with a new name, driver or VFs: made as the config says", pf.name, pf.address
            )
        return bool(arrived) or (is_new and is_lacking)


def find_arrivals(config: Config, before: Node, now: Node) -> list[PhysicalFunction]:
    """PFs with a driver and an entry in the config that were not there before, or not so.

    A PF that was removed and found again between two looks, as by a reset of its firmware, has a new netdev; one that
    got its driver has its first one. One that was renamed may have got another entry. VFs that something else creates
    come with their PF.
    """
    known = {_identify(config, pf) for pf in before.pfs}
    return [pf for pf in now.pfs if pf.driver and config.find_pf(pf) and _identify(config, pf) not in known]


def _identify(config: Config, pf: PhysicalFunction) -> tuple[object, ...]:
    entry = config.find_pf(pf)
    foreign = tuple(vf.address for vf in pf.vfs) if entry and entry.externally_managed else ()
    return pf.address, pf.driver, pf.netdev.ifindex if pf.netdev else None, id(entry), foreign
