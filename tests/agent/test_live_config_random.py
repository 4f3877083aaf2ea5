"""The config file is edited at random while pods come and go: the kubelet sees what `explain` says, pods lose nothing.

SRIOVDP_EDITS and SRIOVDP_SEED choose how many steps there are and which.
"""

import asyncio
import json
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sriovdp.agent import Agent
from sriovdp.model import VfSettings
from sriovdp.node.inventory import take_snapshot
from sriovdp.pools.explanation import explain
from tests.agent.following import follow, reload
from tests.agent.running import wait_until
from tests.fakes.kubelet import AdmissionError, Kubelet
from tests.fakes.sysfs import Tree

_RESOURCES = ("a", "b", "c")
_INVALID = ("", "resourceList: [", "physicalFunctions: 7\n", "resourceList: [{resourceName: 'a b'}]\n", "[]\n")


def _make_config(dice: random.Random) -> str:
    """A valid config: another number of VFs, other drivers and settings, other pools."""
    count = dice.choice((2, 4, 6))
    middle = dice.randrange(count)
    vfs: list[dict[str, Any]] = [{"range": f"{middle}-{count - 1}", "driver": "vfio-pci"}]
    if middle:
        vfs.append({"range": f"0-{middle - 1}", "driver": "kernel"})
    if dice.random() < 0.5:
        vfs[0]["vlan"] = dice.choice((0, 7, 8))
    pools = dice.sample(_RESOURCES, dice.randint(1, len(_RESOURCES)))
    selectors: list[dict[str, Any]] = [
        {"drivers": ["igbvf"]}, {"drivers": ["vfio-pci"]}, {"pfNames": ["enp1s0#0-1"]}, {"vendors": ["8086"]},
    ]  # fmt: skip
    document = {
        "physicalFunctions": [{"select": {"pfNames": ["enp1s0"]}, "numVfs": count, "vfs": vfs}],
        "resourceList": [{"resourceName": name, "selectors": dice.choice(selectors)} for name in pools],
    }
    return json.dumps(document)


@dataclass
class _Play:
    """Edits, pods, and what has to hold after each step. `held` has what each pod's VF was when the pod got it."""

    agent: Agent
    kubelet: Kubelet
    tree: Tree
    path: Path
    dice: random.Random
    held: dict[str, tuple[str, str, object]] = field(default_factory=dict)
    pods: int = 0

    async def step(self) -> None:
        """Do one thing."""
        what = self.dice.random()
        if what < 0.5:
            self.path.write_text(_make_config(self.dice))
        elif what < 0.65:
            self.path.write_text(self.dice.choice(_INVALID))
        elif what < 0.85 and (free := [name for name, ids in self.kubelet.offered().items() if ids]):
            await self._admit(self.dice.choice(sorted(free)))
        elif self.held:
            pod = self.dice.choice(sorted(self.held))
            del self.held[pod]
            await self.kubelet.remove(pod)

    async def _admit(self, resource: str) -> None:
        self.pods += 1
        name = f"pod{self.pods}"
        try:
            admission = await self.kubelet.admit(name, {resource: 1})
        except AdmissionError:
            return  # none is free
        [id_] = admission.devices[resource]
        self.held[name] = (resource, id_, self._look_at(id_))
        await wait_until(lambda: id_ not in self.agent.offering.admitting())  # a real pod lives longer

    def _look_at(self, id_: str) -> tuple[str | None, VfSettings | None]:
        vf = next(vf for _, vf in take_snapshot(self.tree.sysfs).vfs() if vf.address == id_)
        return vf.driver, vf.settings

    async def check(self) -> None:
        """What has to hold once the agent has nothing left to do."""
        await asyncio.to_thread(reload, self.path.parent)
        for pod, (_, id_, before) in self.held.items():
            assert self._look_at(id_) == before, f"{pod} lost {id_}"
        try:
            await wait_until(lambda: self._list_offered() == self._expect())
        except TimeoutError:
            raise AssertionError(f"offered {self._list_offered()}, expected {self._expect()}") from None

    def _list_offered(self) -> dict[str, list[str]]:
        """What the kubelet can give to the next pod."""
        return self._leave_free(self.kubelet.offered())

    def _expect(self) -> dict[str, list[str]]:
        """What `explain` says of the node and the config in force."""
        expected: dict[str, list[str]] = {}
        config, node = self.agent.config, take_snapshot(self.tree.sysfs)
        for verdict in explain(config.pools, node, config.physical_functions):
            expected.setdefault(verdict.resource or "", []).append(verdict.candidate.id)
        expected.pop("", None)
        return self._leave_free(expected)

    def _leave_free(self, devices: dict[str, list[str]]) -> dict[str, list[str]]:
        """Without what pods have, and without resources of which there is nothing then."""
        held = {id_ for _, id_, _ in self.held.values()}
        free = {resource: sorted(set(ids) - held) for resource, ids in devices.items()}
        return {resource: ids for resource, ids in free.items() if ids}


async def test_the_kubelet_sees_what_the_file_says(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """Steps one after the other, with a look at everything after each."""
    seed = int(os.environ.get("SRIOVDP_SEED", "1"))
    dice = random.Random(seed)
    path = tmp_path / "config.yaml"
    path.write_text(_make_config(dice))
    async with follow(tree, tmp_path, path) as agent:
        play = _Play(agent, kubelet, tree, path, dice)
        for number in range(int(os.environ.get("SRIOVDP_EDITS", "25"))):
            await play.step()
            try:
                await play.check()
            except AssertionError as error:
                error.add_note(f"seed {seed}, step {number}, file:\n{path.read_text()}")
                raise
