"""Which pod has which device, as the kubelet reports it. Values only; `sriovdp.kubelet.podresources` asks for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True, order=True)
class Holder:
    """A container that was given a device."""

    namespace: str
    pod: str
    container: str

    @property
    def pod_name(self) -> str:
        """The pod with its namespace, like `default/web`."""
        return f"{self.namespace}/{self.pod}"

    def __str__(self) -> str:
        return f"pod {self.pod_name} (container {self.container})"


_NO_HOLDERS: Mapping[tuple[str, str], tuple[Holder, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PodDevices:
    """The pods of this node and what they have. `holders` goes by resource and device ID.

    A device can have several holders: containers of one pod, as a main container takes over from an init container.
    `problem` says why the kubelet could not be asked: then nothing is known, and empty does not mean free. It was asked
    `asked_at`, on the monotonic clock.
    """

    pods: frozenset[str] = frozenset()
    holders: Mapping[tuple[str, str], tuple[Holder, ...]] = field(default_factory=lambda: _NO_HOLDERS)
    problem: str = ""
    asked_at: float = field(default=0.0, compare=False)

    @property
    def known(self) -> bool:
        """Whether the kubelet answered."""
        return not self.problem

    def held(self, resource: str) -> frozenset[str]:
        """IDs of the resource's devices that pods have."""
        return frozenset(id_ for name, id_ in self.holders if name == resource)

    def held_elsewhere(self, resource: str) -> dict[str, str]:
        """Devices that pods have as another resource, by ID, each with who has it: a config can move one to a pool."""
        return {
            id_: f"{holders[0]} has it as {name}"
            for (name, id_), holders in self.holders.items()
            if name != resource and holders
        }

    def owners(self) -> dict[str, str]:
        """Who has each device that a pod has, by the device's ID."""
        return {id_: str(holders[0]) for (_, id_), holders in self.holders.items() if holders}

    def find(self, device_id: str) -> Holder | None:
        """Who has a device, whatever resource it was given as."""
        return next((holders[0] for (_, id_), holders in self.holders.items() if id_ == device_id and holders), None)
