"""What waits keeps no other: IPAM plugins that hang, locks that are held, and more requests than there is room for."""

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cni.ipam import delegate
from cni.ipam.turns import Turns
from cni.protocol.wire import Reply, Request
from cni.service import server as server_module
from cni.service.server import CniServer
from cni.slots import waiting
from cni.verbs.dispatch import Verbs
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Journal
from sriovdp.state.locks import Locks
from tests.cni.conversing import Held, call, until

STATUS = Request("STATUS", "", "", "", "", "", b'{"cniVersion": "1.1.0", "name": "n", "type": "sriov"}')


class Node:
    """The agent's CNI side, with an IPAM plugin that hangs until `go`, and one that does not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        self._install("slow", f"echo >>{folder}/asked; while [ ! -e {folder}/go ]; do sleep 0.1; done")
        self._install("quick", "exit 0")
        journal = Journal(folder / "journal")
        self.verbs = Verbs(Sysfs(folder / "sys"), journal, Locks(journal.locks, waiting))

    def _install(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    async def delete(self, container: str, plugin: str) -> Reply:
        """DEL of a container by that plugin's network."""
        config: dict[str, Any] = {"cniVersion": "1.0.0", "name": "n", "type": "sriov", "ipam": {"type": plugin}}
        stdin = json.dumps(config).encode()
        request = Request("DEL", container, "", "net1", "", str(self.folder / "bin"), stdin)
        return await call(self.folder / "agent.sock", request)

    @property
    def asked(self) -> int:
        """How many calls the slow plugin has had."""
        path = self.folder / "asked"
        return len(path.read_text()) if path.exists() else 0


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Node]:
    """The node as long as the block; what hangs is let go at its end."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))  # for as many clients
    node = Node(tmp_path)
    server = CniServer(tmp_path / "agent.sock", node.verbs.handle)
    await server.start()
    try:
        yield node
    finally:
        await asyncio.to_thread((tmp_path / "go").touch)
        await server.stop()


async def test_plugin_that_hangs_keeps_only_its_own_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """STATUS, which probes ask, and the pods of other plugins are answered; the hundredth call is refused at once."""
    monkeypatch.setattr(delegate, "_turns", Turns(at_once=20, most=30))
    async with serving(tmp_path) as node:
        slow = [asyncio.create_task(node.delete(f"c{number}", "slow")) for number in range(30)]
        await until(lambda: node.asked == 20)
        assert b"no VFs" in (await call(tmp_path / "agent.sock", STATUS)).stdout
        assert (await node.delete("other", "quick")).exit_code == 0
        await until(lambda: delegate._turns._all["slow"] == 30)
        assert (await node.delete("last", "slow")).exit_code == 0  # it owns nothing
        assert node.asked == 20
        (tmp_path / "go").touch()
        assert {reply.exit_code for reply in await asyncio.gather(*slow)} == {0}
    assert (delegate._turns._all, delegate._turns._running) == ({}, {})


async def test_waiting_for_a_lock_holds_no_worker(tmp_path: Path) -> None:
    """Forty repetitions of one DEL wait for each other; another container's does not wait for them."""
    async with serving(tmp_path) as node:
        with node.verbs.locks.hold("c-net1"):
            same = [asyncio.create_task(node.delete("c", "quick")) for _ in range(40)]
            await until(lambda: node.verbs.locks._users["c-net1"] == 41)
            assert (await node.delete("other", "quick")).exit_code == 0
            assert b"no VFs" in (await call(tmp_path / "agent.sock", STATUS)).stdout
        assert {reply.exit_code for reply in await asyncio.gather(*same)} == {0}


async def test_requests_over_the_bound_are_refused_and_probes_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code 11: the runtime tries again. Room for probes is kept."""
    monkeypatch.setattr(server_module, "_CONNECTIONS", 8)
    held = Held()

    def handle(request: Request, netns_fd: int | None, cancelled: Any) -> Reply:
        return Reply(0, b"well") if request.command == "STATUS" else held(request, netns_fd, cancelled)

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))
    server = CniServer(tmp_path / "agent.sock", handle)
    await server.start()
    try:
        node = [Request("DEL", f"c{number}", "", "net1", "", "", b"{}") for number in range(7)]
        path = tmp_path / "agent.sock"
        running = [asyncio.create_task(call(path, request)) for request in node[:6]]
        await until(lambda: len(server._connections) == 6 and held.running.is_set())
        await until(lambda: server._workers._running == 6)
        assert json.loads((await call(path, node[6])).stdout)["code"] == 11
        assert (await call(path, STATUS)).stdout == b"well"
        held.finish.set()
        assert {reply.exit_code for reply in await asyncio.gather(*running)} == {0}
    finally:
        held.finish.set()
        await server.stop()
