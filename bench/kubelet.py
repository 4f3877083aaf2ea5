"""`python -m bench.kubelet [ROUNDS]` on this machine: how fast the agent offers and allocates, on generated trees.

Times are from the exec of the agent's process to the first ListAndWatch message of every resource, as a client sees it
that dials each socket when it appears; `CPU` is what the agent computed until then, which other work on the machine
does not change. Trees: 7 VFs, and 1,024 VFs of 8 PFs in 1 resource and in 8, all on vfio-pci.

`python -m bench.kubelet --against FOLDER [ROUNDS]` measures the start with 7 VFs only, in turns with the agent of
another checkout in FOLDER, which this virtual environment has to have the libraries of.
"""

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc.aio

from sriovdp.kubelet.api import deviceplugin_v1beta1_pb2 as pb2
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2_grpc import DevicePluginStub

_OPTIONS = (("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1))
_ALLOCATIONS = 500
_DIAL_INTERVAL = 0.002  # seconds


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--against"]:
        _compare(Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 7)
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    print(
        f"{'VFs':>5} {'resources':>9} {'first LW ms':>22} {'CPU ms':>7} {'Allocate ms p50':>16} {'p99':>6} "
        f"{'LW ms p50':>9} {'p99':>6} {'RSS MiB':>8}"
    )
    for pfs, vfs, resources in ((1, 7, 1), (8, 128, 1), (8, 128, 8)):
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder), pfs, vfs, resources)
            samples = [asyncio.run(_measure(Path(folder), resources)) for _ in range(rounds)]
        _report(pfs * vfs, resources, samples)


def _compare(other: Path, rounds: int) -> None:
    """The start of two checkouts, in turns; medians, and the range of CPU times."""
    found: dict[Path, list[Mapping[str, list[float]]]] = {other.resolve(): [], Path.cwd(): []}
    for _ in range(rounds):
        for checkout, samples in found.items():
            with tempfile.TemporaryDirectory() as folder:
                build(Path(folder), 1, 7, 1)
                samples.append(asyncio.run(_measure(Path(folder), 1, checkout)))
    for checkout, samples in found.items():
        first, cpu, resident = (sorted(s[key][0] for s in samples) for key in ("first", "cpu", "resident"))
        print(
            f"{checkout}: first ListAndWatch {statistics.median(first):.0f} ms, CPU {statistics.median(cpu):.0f} ms "
            f"({cpu[0]:.0f}-{cpu[-1]:.0f}), RSS {statistics.median(resident):.1f} MiB, n={rounds}"
        )


def _report(vfs: int, resources: int, samples: Sequence[Mapping[str, list[float]]]) -> None:
    merged = {key: sorted(value for sample in samples for value in sample[key]) for key in samples[0]}
    first, allocate = merged["first"], merged["allocate"]
    spread = f"{statistics.median(first):.0f} ({first[0]:.0f}-{first[-1]:.0f})"
    p50, p99 = statistics.median(allocate), allocate[int(len(allocate) * 0.99)]
    again, resident = merged["again"], statistics.median(merged["resident"])
    again_p50, again_p99 = statistics.median(again), again[int(len(again) * 0.99)]
    cpu = statistics.median(merged["cpu"])
    print(
        f"{vfs:5} {resources:9} {spread:>22} {cpu:7.0f} {p50:16.2f} {p99:6.2f} "
        f"{again_p50:9.2f} {again_p99:6.2f} {resident:8.1f}"
    )


def build(root: Path, pfs: int, vfs: int, resources: int) -> None:
    """A sysfs tree as the kernel lays it out, device nodes, and a config with one pool, or one for each PF."""
    devices = root / "sys/bus/pci/devices"
    for path in (devices, root / "sys/bus/pci/drivers/vfio-pci", root / "sys/bus/pci/drivers/ice", root / "dev/vfio"):
        path.mkdir(parents=True)
    (root / "dev/vfio/vfio").touch()
    group = 0
    for number in range(pfs):
        bus = f"0000:{16 + 8 * number:02x}"
        pf = _add_function(root, f"{bus}:00.0", "0x1592", "ice", sriov_totalvfs="256", sriov_numvfs=str(vfs))
        netdev = pf / f"net/ens{number}f0"
        netdev.mkdir(parents=True)
        for name, value in {"ifindex": str(number + 2), "address": "52:54:00:00:00:01", "mtu": "1500"}.items():
            (netdev / name).write_text(f"{value}\n")
        for name, value in {"flags": "0x1003", "operstate": "up", "carrier": "1", "type": "1"}.items():
            (netdev / name).write_text(f"{value}\n")
        for index in range(vfs):
            address = f"{bus}:{1 + index // 8:02x}.{index % 8}"
            vf = _add_function(root, address, "0x1889", "vfio-pci")
            (vf / "physfn").symlink_to(pf)
            (vf / "iommu_group").symlink_to(root / f"sys/kernel/iommu_groups/{group}")
            (pf / f"virtfn{index}").symlink_to(vf)
            (root / f"dev/vfio/{group}").touch()
            group += 1
    names = [f"ens{number}f0" for number in range(pfs)]
    pools = [names] if resources == 1 else [[name] for name in names]
    document = {
        "resourceList": [{"resourceName": f"pool{n}", "selectors": {"pfNames": pool}} for n, pool in enumerate(pools)]
    }
    (root / "config.json").write_text(json.dumps(document))


def _add_function(root: Path, address: str, device: str, driver: str, **more: str) -> Path:
    folder = root / "sys/devices" / address
    folder.mkdir(parents=True)
    values = {"class": "0x020000", "vendor": "0x8086", "device": device, "numa_node": "0", "driver_override": "(null)"}
    for name, value in (values | more).items():
        (folder / name).write_text(f"{value}\n")
    (folder / "driver").symlink_to(root / "sys/bus/pci/drivers" / driver)
    (root / "sys/bus/pci/devices" / address).symlink_to(folder)
    return folder


async def start_agent(root: Path, checkout: Path) -> Process:
    """The agent of a checkout as a process, on the tree that `build` made in `root`; its log is there too."""
    with (root / "log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            str(Path(__file__).with_name("agent_process.py")),
            str(root),
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        )


async def _measure(root: Path, resources: int, checkout: Path | None = None) -> dict[str, list[float]]:
    sockets = root / "k/plugins_registry"
    sockets.mkdir(parents=True, exist_ok=True)
    for left in sockets.iterdir():
        left.unlink()
    started = time.perf_counter()
    agent = await start_agent(root, checkout or Path.cwd())
    try:
        streams = [asyncio.create_task(follow(sockets, n)) for n in range(resources)]
        found = await asyncio.wait_for(asyncio.gather(*streams), 120)
        first, cpu = (time.perf_counter() - started) * 1000, read_cpu_ms(agent.pid)
        allocate = await _allocate(sockets, sorted(found[0]))
        again = [await _connect_again(sockets) for _ in range(20)]
        resident = _read_resident_kib(agent.pid)
    finally:
        agent.kill()
        await agent.wait()
    return {"first": [first], "cpu": [cpu], "allocate": allocate, "again": again, "resident": [resident / 1024]}


def read_cpu_ms(pid: int) -> float:
    """User and system time of all threads of a process (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def _read_resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def _find(sockets: Path, number: int) -> Path | None:
    """A resource's socket, whose name is another one after each start."""
    return next(sockets.glob(f"sriovdp-intel.com_pool{number}[-.]*"), None)


def _dial(sockets: Path, number: int) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"unix:{_find(sockets, number)}", options=_OPTIONS)


async def follow(sockets: Path, number: int) -> list[str]:
    """Devices of a resource's first message. `number` counts resources, which are called pool0, pool1 and so on."""
    while _find(sockets, number) is None:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(_DIAL_INTERVAL)
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):  # bound, and not listened on yet
            async with _dial(sockets, number) as channel:
                answer = await anext(aiter(DevicePluginStub(channel).ListAndWatch(pb2.Empty())))
                return [device.ID for device in answer.devices]


async def _allocate(sockets: Path, ids: list[str]) -> list[float]:
    times = []
    async with _dial(sockets, 0) as channel:
        stub = DevicePluginStub(channel)
        for round_ in range(_ALLOCATIONS):
            container = pb2.ContainerAllocateRequest(devices_ids=[ids[round_ % len(ids)]])
            started = time.perf_counter()
            await stub.Allocate(pb2.AllocateRequest(container_requests=[container]))
            times.append((time.perf_counter() - started) * 1000)
    return times


async def _connect_again(sockets: Path) -> float:
    """How long a kubelet that connects again waits for the whole list, in ms."""
    started = time.perf_counter()
    await follow(sockets, 0)
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    main()
