"""A PF as the config names it: one PF of a node, or all PFs that a selector means where no node is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sriovdp.cluster.interface import Interface
from sriovdp.cluster.merge import Merged, Policy
from sriovdp.config.ranges import VfIndices


@dataclass(frozen=True, slots=True)
class Target:
    """`subject` names it in messages, `select` is its entry in `physicalFunctions`, `nodes` which nodes it is for.

    `devices` is the selector of a pool for its VFs without their range; `ranged` is the key there that takes the range.
    `interface` is None where no node is known.
    """

    subject: str
    select: Mapping[str, Any]
    devices: Mapping[str, Any]
    ranged: str
    interface: Interface | None = None
    nodes: Mapping[str, Any] | None = None

    @property
    def is_passed_in(self) -> bool:
        """Whether it is a VF of a virtual machine's host: there is nothing to split."""
        return self.interface is not None and bool(self.interface.net_filter)

    def write_selector(self, indices: VfIndices, count: int) -> dict[str, Any]:
        """The selector of a pool for these VFs; `count` is the number of VFs that the PF has."""
        if not self.ranged:
            return dict(self.devices)
        is_all = len(indices) == count
        names = [entry if is_all else f"{entry}#{indices}" for entry in self.devices[self.ranged]]
        return {**self.devices, self.ranged: names}


@dataclass(slots=True)
class Setup:
    """What the config says of one target."""

    target: Target
    merged: Merged

    @property
    def policies(self) -> list[Policy]:
        """The policies that have VFs of it."""
        return [group.policy for group in self.merged.groups]


def target_of(interface: Interface) -> Target:
    """One PF of a node, by its PCI address: a change of its name, as in switchdev mode, does not matter."""
    address = str(interface.address)
    if interface.net_filter:
        return Target(str(interface), {}, {"pciAddresses": [address]}, "", interface)
    return Target(str(interface), {"pciAddresses": [address]}, {"rootDevices": [address]}, "rootDevices", interface)
