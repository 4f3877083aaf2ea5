"""One device that cannot be given never keeps the others from pods."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sriovdp.agent import Agent, Roots
from sriovdp.config.file import parse
from sriovdp.state.journal import Journal
from tests.agent.running import DPDK, owe, run_agent
from tests.fakes.kubelet import AdmissionError, Kubelet
from tests.fakes.sysfs import PF, Tree, vf_address
from tests.kubelet.real import PROGRAM, RealKubelet
from tests.recordings.nodes import Builder

ROCE, CLOUD = "intel.com/roce", "example.com/cloud_rdma"
RDMA = {"name": "mlx5", "part": "mlx5_core.rdma", "driver": "mlx5_ib.rdma"}
VF = {"driver": "mlx5_core", "netdev": {"name": "ens1f0v{n}"}, "rdma": RDMA}
AWAY = {"count": 1, "driver": "mlx5_core", "rdma": {**RDMA, "away": True}}
CONNECTX: dict[str, Any] = {
    "functions": [
        {
            "address": "0000:3b:00.0", "class": "0x020000", "vendor": "0x15b3", "device": "0x101d", "numa": 0,
            "driver": "mlx5_core", "netdev": {"name": "ens1f0np0", "port": "p0"}, "rdma": RDMA,
            "sriov": {
                "total": 8, "device": "101e", "offset": 2, "stride": 1,
                "vfs": [{"count": 1, **VF}, AWAY, {"count": 3, **VF}],
            },
        }
    ],
    "netlink": {"default_routes": ["eno1"]},
}  # fmt: skip
GUEST: dict[str, Any] = {
    "functions": [
        {
            "address": f"0000:00:0{n}.0", "class": "0x020000", "vendor": "0x15b3", "device": "0x1016",
            "driver": "mlx5_core", "group": False, "netdev": {"name": f"ens{n}"}, "rdma": RDMA,
        }
        for n in (5, 6)
    ],
    "netlink": {"default_routes": ["ens3"], "addressed": []},
}  # fmt: skip
SELECTORS = {
    ROCE: {"resourceName": "roce", "selectors": {"pfNames": ["ens1f0np0"], "isRdma": True}},
    CLOUD: {
        "resourceName": "cloud_rdma", "resourcePrefix": "example.com",
        "selectors": {"vendors": ["15b3"], "devices": ["1016"]},
    },
}  # fmt: skip


@pytest.fixture(params=["fake", "real"])
async def any_kubelet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kubelet | RealKubelet]:
    """A kubelet below tmp_path: the fake, or the kubelet's own managers."""
    if request.param == "real" and not PROGRAM.exists():
        pytest.skip("the kubelet's managers are not built: `python3 -m setup.cluster kubelet-managers`")
    async with (Kubelet if request.param == "fake" else RealKubelet)(tmp_path / "k") as kubelet:
        yield kubelet


@asynccontextmanager
async def run_on(folder: Path, resource: str) -> AsyncIterator[None]:
    """An agent with one pool on the recorded tree in `folder`."""
    roots = Roots(
        folder / "tree", folder / "dev", folder / "k", folder / "run", folder / "state", folder / "info", folder / "cdi"
    )
    config = parse(json.dumps({"resourceList": [SELECTORS[resource]]}), "test")
    stop = asyncio.Event()
    task = asyncio.create_task(Agent(config, roots, rescan_interval=0.1).run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


def build(folder: Path, node: dict[str, Any]) -> None:
    """Make the tree and the device nodes."""
    (folder / "tree").mkdir()
    (folder / "dev/infiniband").mkdir(parents=True)
    for name in ("rdma_cm", *(f"{kind}{n}" for kind in ("uverbs", "umad", "issm") for n in range(9))):
        (folder / "dev/infiniband" / name).touch()
    Builder(folder / "tree").build(node)


async def test_an_rdma_device_that_leaked(tmp_path: Path, any_kubelet: Kubelet | RealKubelet) -> None:
    """It is in another namespace though no pod has it: its VF is not healthy, and all others are given."""
    build(tmp_path, CONNECTX)
    async with run_on(tmp_path, ROCE):
        assert await any_kubelet.wait_for(ROCE, count=1, healthy=False) == ["0000:3b:00.3"]
        given = [(await any_kubelet.admit(f"p{n}", {ROCE: 1})).devices[ROCE][0] for n in range(4)]
        assert sorted(given) == ["0000:3b:00.2", "0000:3b:00.4", "0000:3b:00.5", "0000:3b:00.6"]
        with pytest.raises(AdmissionError, match="Requested: 1, Available: 0"):
            await any_kubelet.admit("p4", {ROCE: 1})


async def test_a_vf_that_a_pod_has_without_the_kubelet(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A network with a fixed deviceID took it: the kubelet holds it for free, and it is given to no other pod."""
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2)
        await kubelet.admit("red", {})
        attached = replace(owe(tmp_path, vf_address(PF, 2)), phase="attached", args="K8S_POD_NAME=red")
        Journal(tmp_path / "state/journal").write_attachment(attached)
        assert await kubelet.wait_for(DPDK, count=1, healthy=False) == [vf_address(PF, 2)]
        assert "pod default/red (net1) has it, and the kubelet did not give it to that pod" in caplog.text
        assert (await kubelet.admit("blue", {DPDK: 1})).devices == {DPDK: [vf_address(PF, 3)]}


@pytest.mark.parametrize("text", ["", '{"version": 99, "device": "0000:01:10.4"}', '{"device": "0000:01:10.4"', "[]"])
async def test_a_damaged_attachment_is_one_unhealthy_vf(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """Torn, or of a newer version: the agent starts and serves, and goes on when it comes while it runs."""
    path = tmp_path / "state/journal/attachment-c9-net1.json"
    device = vf_address(PF, 2)
    text = text.replace("0000:01:10.4", device)
    ill = 1 if device in text else 0
    async with run_agent(tree, tmp_path):  # with VFs that are not known to be free it would make none
        await kubelet.wait_for(DPDK, count=2)
    path.write_text(text)
    async with run_agent(tree, tmp_path):
        await kubelet.wait_for(DPDK, count=2 - ill)
        await kubelet.wait_for(DPDK, count=ill, healthy=False)
        path.unlink()
        await kubelet.wait_for(DPDK, count=2)
        path.write_text(text)
        await kubelet.wait_for(DPDK, count=2 - ill)
        assert (await kubelet.admit("blue", {DPDK: 1})).devices[DPDK] != [device] or not ill
    assert caplog.text.count("attachment-c9-net1.json") > 0


async def test_a_function_that_a_pod_returned_stays(tmp_path: Path, any_kubelet: Kubelet | RealKubelet) -> None:
    """In a virtual machine a DHCP client gives it an address again; with the same MAC it is the same function.

    One that no pod had is the host's, and so is another one at the same address.
    """
    build(tmp_path, GUEST)
    facts = tmp_path / "tree/netlink.json"

    async def address(*names: str) -> None:
        content = json.loads(await asyncio.to_thread(facts.read_text))
        await asyncio.to_thread(facts.write_text, json.dumps({**content, "addressed": list(names)}))

    async with run_on(tmp_path, CLOUD):
        await any_kubelet.wait_for(CLOUD, count=2)
        (returned,) = (await any_kubelet.admit("p", {CLOUD: 1})).devices[CLOUD]
        await any_kubelet.remove("p")
        await address("ens5", "ens6")
        assert await any_kubelet.wait_for(CLOUD, count=1) == [returned]
    async with run_on(tmp_path, CLOUD):
        assert await any_kubelet.wait_for(CLOUD, count=1) == [returned]
        name = f"ens{returned[9]}"
        await asyncio.to_thread((tmp_path / f"tree/class/net/{name}/address").write_text, "52:54:00:99:99:99")
        await any_kubelet.wait_for(CLOUD, count=0)
        await address()
        await any_kubelet.wait_for(CLOUD, count=2)
