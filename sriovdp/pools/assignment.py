"""Pools: which device belongs to which resource. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sriovdp.config.values import PfConfig, Pool, Selector
from sriovdp.model import Node
from sriovdp.pools.candidates import NONE_RETURNED, Candidate, list_candidates
from sriovdp.pools.placement import Place
from sriovdp.pools.selectors import find_owner


@dataclass(frozen=True, slots=True)
class Offer:
    """A device of a pool, and the selector that takes it."""

    candidate: Candidate
    selector: Selector

    @property
    def id(self) -> str:
        """Its ID for the kubelet."""
        return self.candidate.id

    def __str__(self) -> str:
        return self.candidate.name

    @property
    def place(self) -> Place:
        """Where it is, for choosing among devices."""
        return Place(self.candidate.pf.address, self.candidate.function.numa_node)


def assign(
    pools: Sequence[Pool],
    node: Node,
    physical_functions: Sequence[PfConfig] = (),
    returned: Mapping[str, str] = NONE_RETURNED,
) -> list[dict[str, Offer]]:
    """Give each device of the node to the first pool, in file order, that takes it.

    The devices of each pool are by their IDs, in order of PF and VF index; it takes one pass over the node. Not offered
    are devices without a driver, PFs that are split or that `physical_functions` wants split, and what this host itself
    needs unless `physical_functions` allows it. `returned` as in `list_candidates`.
    """
    offers: list[dict[str, Offer]] = [{} for _ in pools]
    for candidate in list_candidates(node, physical_functions, returned):
        owner = None if candidate.obstacle else find_owner(pools, candidate)
        if owner is not None:
            number, selector = owner
            offers[number][candidate.id] = Offer(candidate, pools[number].selectors[selector])
    return offers
