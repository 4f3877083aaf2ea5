"""Which node this is, and which entries of a file that all nodes share are for it."""

import os
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sriovdp.config.values import Config, NodeSelect
from sriovdp.errors import ConfigError

NAME_VARIABLE = "NODE_NAME"
LABELS_VARIABLE = "NODE_LABELS"


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """A node by its Kubernetes name and labels. `labels` None: they are not known."""

    name: str
    labels: Mapping[str, str] | None = None

    @classmethod
    def find(cls, name: str | None = None, labels: Mapping[str, str] | None = None) -> "NodeIdentity":
        """What is given, else the variables NODE_NAME and NODE_LABELS (`key=value,...`), else the host's name."""
        given = os.environ.get(LABELS_VARIABLE)
        if labels is None and given is not None:
            labels = dict(_split(label) for label in given.split(",") if label)
        return cls(name or os.environ.get(NAME_VARIABLE) or platform.node().lower(), labels)


def _split(label: str) -> tuple[str, str]:
    key, _, value = label.strip().partition("=")
    return key, value


def is_for(nodes: NodeSelect | None, identity: NodeIdentity) -> bool:
    """Say whether an entry is for this node. Raises ValueError if that depends on labels that are not known."""
    if nodes is None:
        return True
    if nodes.names and identity.name not in nodes.names:
        return False
    if nodes.labels and identity.labels is None:
        raise ValueError(
            f"the labels of node {identity.name} are not known; give them with --node-label or in {LABELS_VARIABLE}"
        )
    return nodes.matches(identity.name, identity.labels or {})


def select_entries(config: Config, identity: NodeIdentity, source: str) -> Config:
    """The config with only the entries for this node.

    Raises ConfigError if that depends on labels that are not known, or if two pools for this node have one name.
    """
    try:
        pfs = tuple(entry for entry in config.physical_functions if is_for(entry.nodes, identity))
        pools = tuple(pool for pool in config.pools if is_for(pool.nodes, identity))
    except ValueError as error:
        raise ConfigError(source, [str(error)]) from error
    counted = Counter(pool.resource for pool in pools)
    twice = [f"node {identity.name} has {n} pools named {name}" for name, n in counted.items() if n > 1]
    if twice:
        raise ConfigError(source, twice)
    return replace(config, physical_functions=pfs, pools=pools)
