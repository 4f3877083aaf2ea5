"""Which devices to prefer for a container. Pure.

The kubelet asks when it has a choice (v1beta1.DevicePlugin.GetPreferredAllocation); it takes the answer as a wish, but
fails the pod when there is none. So there is always one: what cannot be had in the wished way is had in another.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

from sriovdp.config.terms import Order, Placement

_Groups = Mapping[str, list[str]]
"""Free devices by their PF, in the order in which they were given."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device is: address of its PF (its own, when it is none's part), and NUMA node."""

    pf: str
    numa_node: int | None = None


def prefer(
    policy: Placement, available: Sequence[str], must: Sequence[str], size: int, places: Mapping[str, Place]
) -> list[str]:
    """Pick `size` devices: all of `must`, the others out of `available` as the policy says.

    There are fewer when there are no more, and more when `must` alone is more. A device that is not in `places` counts
    as one of a PF of its own. With `numa` the fewest NUMA nodes go first, and the order decides among equals.
    """
    included = list(dict.fromkeys(must))
    free = [id_ for id_ in dict.fromkeys(available) if id_ not in set(included)]
    missing = size - len(included)
    if missing <= 0 or missing >= len(free):
        return included + free[: max(missing, 0)]
    where = {id_: places.get(id_, Place(id_)) for id_ in (*included, *free)}
    used = Counter(where[id_].pf for id_ in included)

    def pick(candidates: Sequence[str]) -> list[str]:
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for id_ in candidates:
            groups[where[id_].pf].append(id_)
        return _PICKERS[policy.order](groups, used, missing)

    if not policy.numa:
        return included + pick(free)
    rate = _RATINGS[policy.order]
    choices = [(candidates, pick(candidates)) for candidates in _list_narrowest(free, included, missing, where)]
    best = min(choices, key=lambda choice: rate(len({*used, *(where[id_].pf for id_ in choice[1])}), len(choice[0])))
    return included + best[1]


def _list_narrowest(
    free: Sequence[str], included: Iterable[str], missing: int, where: Mapping[str, Place]
) -> list[list[str]]:
    """Free devices of each set of NUMA nodes that has enough of them; the sets add as few nodes as can be."""
    given = {where[id_].numa_node for id_ in included}
    others = list(dict.fromkeys(node for id_ in free if (node := where[id_].numa_node) not in given))
    for count in range(len(others) + 1):
        sets = (given.union(added) for added in combinations(others, count))
        candidates = [[id_ for id_ in free if where[id_].numa_node in nodes] for nodes in sets]
        enough = [ids for ids in candidates if len(ids) >= missing]
        if enough:
            return enough
    raise AssertionError("all nodes together have all free devices")


def _pack(groups: _Groups, used: Mapping[str, int], count: int) -> list[str]:
    """Fill one PF first: the container's own, then the one that has the fewest left."""
    order = sorted(groups, key=lambda pf: (not used.get(pf), len(groups[pf]), pf))
    return list(chain.from_iterable(groups[pf] for pf in order))[:count]


def _spread(groups: _Groups, _used: Mapping[str, int], count: int) -> list[str]:
    """Take each from the PF that has the most left, so that all PFs are equally loaded: equal ones take turns."""
    return _take(groups, count, lambda pf, left, _: (-left, pf))


def _keep_together(groups: _Groups, used: Mapping[str, int], count: int) -> list[str]:
    """Take all of one PF, the tightest that has enough; without such a one, of as few as can be."""
    picked: list[str] = []
    rest = dict(groups)
    while len(picked) < count:
        missing = count - len(picked)
        roomy = [pf for pf in rest if len(rest[pf]) >= missing]
        if roomy:
            pf = min(roomy, key=lambda pf: (not used.get(pf), len(rest[pf]), pf))
        else:
            pf = min(rest, key=lambda pf: (not used.get(pf), -len(rest[pf]), pf))
        picked += rest.pop(pf)[:missing]
    return picked


def _keep_apart(groups: _Groups, used: Mapping[str, int], count: int) -> list[str]:
    """Take each of a PF that the container has none of yet; when all have given, of those that gave least."""
    return _take(groups, count, lambda pf, left, given: (used.get(pf, 0) + given, -left, pf))


def _take(groups: _Groups, count: int, rate: Callable[[str, int, int], tuple[int | str, ...]]) -> list[str]:
    """Take one after the other from the PF that rates lowest, by its name, what it has left, and what it gave."""
    given: Counter[str] = Counter()
    picked = []
    for _ in range(count):
        left = (pf for pf in groups if len(groups[pf]) > given[pf])
        pf = min(left, key=lambda pf: rate(pf, len(groups[pf]) - given[pf], given[pf]))
        picked.append(groups[pf][given[pf]])
        given[pf] += 1
    return picked


_PICKERS: Mapping[Order, Callable[[_Groups, Mapping[str, int], int], list[str]]] = {
    "packed": _pack,
    "spread": _spread,
    "samePF": _keep_together,
    "distinctPF": _keep_apart,
}

# how bad a set of NUMA nodes is, by the PFs that the container would have and the free devices that the set has
_RATINGS: Mapping[Order, Callable[[int, int], tuple[int, int]]] = {
    "packed": lambda _, free: (0, free),
    "spread": lambda _, free: (0, -free),
    "samePF": lambda pfs, free: (pfs, free),
    "distinctPF": lambda pfs, free: (-pfs, -free),
}
