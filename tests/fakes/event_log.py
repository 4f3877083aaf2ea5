"""What a kubelet did with a plugin, in words that are the same for a real one and for the fake."""

from collections.abc import Iterable
from pathlib import Path


class EventLog:
    """Steps of registrations, and the lists that came. Sockets go by the order in which they were first seen."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        """`connected`, `registered #1`, `refused #1: TEXT`, `deregistered #1`, `disconnected`."""
        self.lists: list[str] = []
        """Healthy and unhealthy devices of each list, like `4+0`."""
        self._sockets: list[str] = []

    def add(self, step: str, socket: str | Path = "", text: str = "") -> None:
        """Take down a step of a registration."""
        number = f" #{self._number(Path(socket).name)}" if socket else ""
        self.steps.append(f"{step}{number}{': ' if text else ''}{text}")

    def add_list(self, healthy: Iterable[str], unhealthy: Iterable[str]) -> None:
        """Take down a list of devices."""
        self.lists.append(f"{len(list(healthy))}+{len(list(unhealthy))}")

    def settled(self) -> list[str]:
        """The steps; the stream's end and the socket's end, which the kubelet notices apart, are in one order."""
        steps = list(self.steps)
        for index in range(len(steps) - 1):
            if steps[index].startswith("deregistered") and steps[index + 1] == "disconnected":
                steps[index : index + 2] = reversed(steps[index : index + 2])
        return steps

    def _number(self, name: str) -> int:
        if name not in self._sockets:
            self._sockets.append(name)
        return self._sockets.index(name) + 1
