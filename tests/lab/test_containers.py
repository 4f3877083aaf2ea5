"""Containers that have exactly what the agent allocated, and no more: enough to drive a real VF without being root."""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.kubelet import Admission, Kubelet
from tests.lab.containers import run_cdi_container, run_container
from tests.lab.node import AgentProcess, LabNode

pytestmark = pytest.mark.lab(hugepages=448, containerd=True)

CONFIG = Path("config/sample.yaml")
VFIO, UIO = "intel.com/sriov_dpdk", "intel.com/sriov_igb_uio"

# linux/vfio.h: VFIO_GET_API_VERSION, VFIO_GROUP_GET_STATUS; flag 1 says that the group is viable
OPEN_GROUP = """
import fcntl, os, struct
container, group = (os.open(path, os.O_RDWR) for path in ("/dev/vfio/vfio", "/dev/vfio/{group}"))
status = bytearray(struct.pack("II", 8, 0))
fcntl.ioctl(group, 0x3b67, status)
print("user", os.getuid(), "version", fcntl.ioctl(container, 0x3b64), "flags", struct.unpack("II", status)[1])
print("VF", os.environ["PCIDEVICE_INTEL_COM_SRIOV_DPDK"], "nodes", sorted(os.listdir("/dev/vfio")))
"""

LOOK_AT_UIO = """
import os
read_only = bool(os.statvfs("/sys/bus").f_flag & os.ST_RDONLY)
size = os.stat("{folder}/config").st_size
print("node", os.path.exists("/dev/uio0"), "config", size, "sysfs read-only", read_only)
for line in open("/proc/self/mountinfo"):
    place, options = line.split()[4:6]
    if place.startswith(os.path.realpath("{folder}")):
        print(os.path.basename(place), options.split(",")[0])
"""


@pytest.fixture
def node() -> Iterator[LabNode]:
    """The lab's node without VFs: the agent has to make them."""
    node = LabNode(CONFIG)
    node.remove_vfs()
    yield node
    node.remove_vfs()


@pytest.fixture
async def kubelet(node: LabNode) -> AsyncIterator[Kubelet]:
    """A kubelet with an agent that has provisioned the node and offers its pools."""
    async with _serve(CONFIG) as kubelet:
        yield kubelet


@asynccontextmanager
async def _serve(config: Path) -> AsyncIterator[Kubelet]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "kubelet/plugins_registry").mkdir(parents=True)
        async with Kubelet(Path(name) / "kubelet") as kubelet:
            agent = AgentProcess(config, Path(name))
            await asyncio.to_thread(agent.start)
            try:
                await kubelet.wait_for(VFIO, count=2)
                await kubelet.wait_for(UIO, count=1)
                yield kubelet
            finally:
                await asyncio.to_thread(agent.stop)


async def test_container_opens_its_group_and_has_no_other(kubelet: Kubelet) -> None:
    """A user without any capability opens the group of the VF in its environment, and the kernel calls it viable."""
    pod = await kubelet.admit("opens", {VFIO: 1})
    [vf] = pod.devices[VFIO]
    group = _find_group(vf)
    command = ["/usr/bin/python3", "-ISc", OPEN_GROUP.format(group=group)]
    opened = await asyncio.to_thread(run_container, "opens", pod, command)
    assert opened.returncode == 0, opened.stderr
    assert opened.stdout.splitlines() == ["user 1000 version 0 flags 1", f"VF {vf} nodes {sorted(['vfio', group])}"]


async def test_container_runs_testpmd_as_a_user(kubelet: Kubelet) -> None:
    """DPDK takes the VF over and shows its port, without any capability; without the allocation it has none."""
    pod = await kubelet.admit("testpmd", {VFIO: 1})
    [vf] = pod.devices[VFIO]
    started = await asyncio.to_thread(run_container, "testpmd", pod, _testpmd(vf))
    output = started.stdout + started.stderr
    assert started.returncode == 0, output
    assert f"device: {vf}" in output
    assert re.search(r"Port 0: ([0-9A-F]{2}:){5}[0-9A-F]{2}", output), output
    bare = await asyncio.to_thread(run_container, "bare", Admission(envs=pod.envs), _testpmd(vf))
    assert "Port 0:" not in bare.stdout + bare.stderr, "it has a port without the allocation: the test shows nothing"


async def test_container_has_the_files_of_its_uio_vf(kubelet: Kubelet) -> None:
    """For igb_uio a program opens files of sysfs for writing: these can be written, the rest of sysfs cannot."""
    pod = await kubelet.admit("uio", {UIO: 1})
    [vf] = pod.devices[UIO]
    command = ["/usr/bin/python3", "-ISc", LOOK_AT_UIO.format(folder=f"/sys/bus/pci/devices/{vf}")]
    seen = await asyncio.to_thread(run_container, "uio", pod, command)
    assert seen.returncode == 0, seen.stderr
    _check_uio_files(seen.stdout)


@pytest.fixture
def cdi_config(tmp_path: Path) -> Path:
    """The sample with CDI."""
    config = tmp_path / "config.yaml"
    config.write_text(f"{CONFIG.read_text()}\ncdi: true\n")
    return config


async def test_containers_by_cdi(node: LabNode, cdi_config: Path) -> None:
    """The same through CDI: a user without any capability opens the group, runs testpmd, and has the UIO VF's files.

    A container with a device that no spec has is not started.
    """
    async with _serve(cdi_config) as kubelet:
        pod, other = await kubelet.admit("vfio", {VFIO: 1}), await kubelet.admit("uio", {UIO: 1})
        [vf], [uio] = pod.devices[VFIO], other.devices[UIO]
        assert (pod.nodes, pod.mounts, other.nodes, other.mounts) == ([], [], [], [])
        group = _find_group(vf)
        command = ["/usr/bin/python3", "-ISc", OPEN_GROUP.format(group=group)]
        opened = await asyncio.to_thread(run_cdi_container, pod, command)
        assert opened.returncode == 0, opened.stderr
        assert opened.stdout.splitlines() == ["user 1000 version 0 flags 1", f"VF {vf} nodes {sorted(['vfio', group])}"]

        started = await asyncio.to_thread(run_cdi_container, pod, _testpmd(vf))
        output = started.stdout + started.stderr
        assert started.returncode == 0, output
        assert re.search(r"Port 0: ([0-9A-F]{2}:){5}[0-9A-F]{2}", output), output

        command = ["/usr/bin/python3", "-ISc", LOOK_AT_UIO.format(folder=f"/sys/bus/pci/devices/{uio}")]
        seen = await asyncio.to_thread(run_cdi_container, other, command)
        assert seen.returncode == 0, seen.stderr
        _check_uio_files(seen.stdout)

        unknown = replace(pod, cdi_devices=[f"{pod.cdi_devices[0]}0"])
        refused = await asyncio.to_thread(run_cdi_container, unknown, ["/usr/bin/true"])
        assert "unresolvable CDI devices" in refused.stderr


def _check_uio_files(output: str) -> None:
    lines = output.splitlines()
    assert lines[0] == "node True config 4096 sysfs read-only True"
    assert {"config rw", "resource0 rw"} <= set(lines[1:]), lines


def _find_group(address: str) -> str:
    return Path(f"/sys/bus/pci/devices/{address}/iommu_group").resolve().name


def _testpmd(vf: str) -> list[str]:
    """DPDK's testpmd on one VF, which it starts, shows and leaves: its input has an end, that of `ctr` has none."""
    options = f"-l 0-1 -m 200 --no-telemetry --in-memory -a {vf} -- --total-num-mbufs=4096 --auto-start"
    return ["/usr/bin/sh", "-c", f"exec dpdk-testpmd {options} </dev/null"]
