# ruff: noqa: ASYNC240 - the files are small, and in memory
"""The agent follows its config file: pools and PFs change without a restart, what pods have stays."""

import asyncio
from pathlib import Path

import pytest

from sriovdp.kernel.sysfs import read_text
from tests.agent.following import ask_status, follow, reload
from tests.agent.running import CONFIG, DPDK, KERNEL, wait_until
from tests.fakes.kubelet import Kubelet
from tests.fakes.sysfs import PF, Tree, vf_address

OTHER = "intel.com/other"
SPLIT = CONFIG.replace(
    "{resourceName: sriov, selectors: {drivers: [igbvf]}}", "{resourceName: other, selectors: {drivers: [igbvf]}}"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The config file."""
    file = tmp_path / "etc/config.yaml"
    file.parent.mkdir()
    file.write_text(CONFIG)
    return file


async def test_pools_come_and_go_and_others_keep_their_streams(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, path: Path
) -> None:
    """A pool is renamed: the old one is gone for the kubelet, the new one has its devices, the third sees nothing."""
    async with follow(tree, tmp_path, path):
        await kubelet.wait_for(KERNEL, count=2)
        await kubelet.wait_for(DPDK, count=2)
        lists = len(kubelet.lists(DPDK))
        path.write_text(SPLIT)
        assert await kubelet.wait_for(OTHER, count=2) == [vf_address(PF, 0), vf_address(PF, 1)]
        await kubelet.wait_for(KERNEL, count=0)
        assert (kubelet.registrations.count(DPDK), len(kubelet.lists(DPDK))) == (1, lists)
        path.write_text(CONFIG)
        await kubelet.wait_for(KERNEL, count=2)
        await kubelet.wait_for(OTHER, count=0)


async def test_the_node_follows_and_what_a_pod_has_waits_for_it(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, path: Path
) -> None:
    """Another number of VFs while a pod has one: nothing is changed until it goes, and that is said with its name."""
    async with follow(tree, tmp_path, path):
        await kubelet.wait_for(DPDK, count=2)
        await kubelet.admit("red", {DPDK: 1})
        path.write_text(CONFIG.replace("numVfs: 4", "numVfs: 6"))
        shown = await asyncio.to_thread(reload, tmp_path)
        assert "waiting: enp1s0 VF 2 (0000:01:10.4) is used by pod default/red" in shown
        status = await asyncio.to_thread(ask_status, tmp_path)
        assert "waiting: enp1s0 VF 2 (0000:01:10.4) is used by pod default/red" in status
        assert read_text(tree.root / f"bus/pci/devices/{PF}/sriov_numvfs") == "4"
        await kubelet.remove("red")
        await kubelet.wait_for(KERNEL, count=4)
        assert read_text(tree.root / f"bus/pci/devices/{PF}/sriov_numvfs") == "6"
        assert await asyncio.to_thread(reload, tmp_path) == "the config in force is what the file says\n0"


async def test_a_pool_that_is_gone_serves_its_pods_until_they_go(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, path: Path
) -> None:
    """It offers what the pod has and nothing else, and its VF is offered by the new pool afterwards."""
    async with follow(tree, tmp_path, path):
        await kubelet.wait_for(KERNEL, count=2)
        await kubelet.admit("red", {KERNEL: 1})
        path.write_text(SPLIT)
        await kubelet.wait_for(OTHER, count=1)
        assert await kubelet.wait_for(KERNEL, count=1) == [vf_address(PF, 0)]
        await kubelet.remove("red")
        await kubelet.wait_for(OTHER, count=2)
        await kubelet.wait_for(KERNEL, count=0)


@pytest.mark.parametrize("content", ["", "resourceList: [", CONFIG + "  - {resourceName: a b}\n", "\x00"])
async def test_a_file_that_is_not_valid_changes_nothing(
    tree: Tree, kubelet: Kubelet, tmp_path: Path, path: Path, content: str
) -> None:
    """The config in force stays, and log and commands say why; the next valid file is taken."""
    async with follow(tree, tmp_path, path) as agent:
        await kubelet.wait_for(KERNEL, count=2)
        running = agent.config
        path.write_text(content)
        shown = await asyncio.to_thread(reload, tmp_path)
        assert "nothing was changed" in shown
        assert shown.endswith("1")
        status = await asyncio.to_thread(ask_status, tmp_path)
        assert "the config file is not in force: " in status
        assert agent.config is running
        path.unlink()
        assert "No such file or directory" in await asyncio.to_thread(reload, tmp_path)
        path.write_text(SPLIT)
        await kubelet.wait_for(OTHER, count=2)
        assert "not in force" not in (await asyncio.to_thread(ask_status, tmp_path))


async def test_a_configmap_is_swapped(tree: Tree, kubelet: Kubelet, tmp_path: Path) -> None:
    """The kubelet writes a new folder and renames a symbolic link over `..data` (pkg/volume/util/atomic_writer.go)."""
    volume = tmp_path / "volume"
    for name, text in (("..first", CONFIG), ("..second", SPLIT)):
        (volume / name).mkdir(parents=True)
        (volume / name / "config.yaml").write_text(text)
    (volume / "..data").symlink_to("..first")
    (volume / "config.yaml").symlink_to("..data/config.yaml")
    async with follow(tree, tmp_path, volume / "config.yaml"):
        await kubelet.wait_for(KERNEL, count=2)
        (volume / "..data_tmp").symlink_to("..second")
        (volume / "..data_tmp").rename(volume / "..data")
        await kubelet.wait_for(OTHER, count=2)


async def test_rights_of_networksfollow(tree: Tree, kubelet: Kubelet, tmp_path: Path, path: Path) -> None:
    """What the file allows to networks holds for the next ADD."""
    async with follow(tree, tmp_path, path) as agent:
        await kubelet.wait_for(KERNEL, count=2)
        await asyncio.to_thread(agent._load)
        assert agent._verbs.policy.trust
        path.write_text(CONFIG + "cni: {allow: {trust: false}}\n")
        await wait_until(lambda: not agent._verbs.policy.trust)
