"""A pool of VFs and its plugin, for a kubelet below tmp_path."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sriovdp.errors import DeviceError
from sriovdp.kubelet.plugin import DevicePlugin
from sriovdp.model import DeviceNode, Mount, PoolDevice
from sriovdp.pools.allocation import Allocation

RESOURCE = "intel.com/sriov_dpdk"

STUCK = "0000:af:1f.7"
"""A VF that no container can be given, nor be started with."""


class Service:
    """A pool of VFs on vfio-pci, each with a device node, a mount and a CDI name. It prefers the last devices."""

    def allocate(self, ids: Sequence[str]) -> Allocation:
        """Addresses, and a device node for each."""
        self.verify(ids)
        groups = [DeviceNode(f"/dev/vfio/noiommu-{id_[-4:]}", f"/dev/vfio/{id_[-4:]}") for id_ in ids]
        return Allocation(
            {"PCIDEVICE_INTEL_COM_SRIOV_DPDK": ",".join(ids)},
            (DeviceNode("/dev/vfio/vfio", "/dev/vfio/vfio", "rwm"), *groups),
            (Mount("/sys/devices/config", "/sys/config", read_only=False), Mount("/etc/dpdk", "/dpdk")),
            tuple(f"intel.com/net-pci={id_}" for id_ in ids),
        )

    def verify(self, ids: Sequence[str]) -> None:
        """Refuse the one that is stuck."""
        if STUCK in ids:
            raise DeviceError(f"{STUCK} is not bound to vfio-pci", hint="`sriovdp apply` binds it")

    def prefer(self, available: Sequence[str], must: Sequence[str], size: int) -> list[str]:
        """All that have to be, then the last ones."""
        return [*must, *[id_ for id_ in sorted(available, reverse=True) if id_ not in must]][:size]


def vfs(count: int) -> list[PoolDevice]:
    """The first VFs of a PF, sorted by address, all on NUMA node 1."""
    return [PoolDevice(f"0000:3b:{2 + index // 8:02x}.{index % 8}", numa_node=1) for index in range(count)]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short name, as a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def plugin() -> DevicePlugin:
    """The plugin of the pool; nothing is offered yet."""
    return DevicePlugin(RESOURCE, Service())
