"""A pool of VFs and its plugin, for a kubelet below tmp_path."""

from collections.abc import Sequence

import pytest

from sriovdp.errors import DeviceError
from sriovdp.kubelet.plugin import DevicePlugin
from sriovdp.model import Allocation, DeviceNode, PoolDevice

RESOURCE = "intel.com/sriov_dpdk"

STUCK = "0000:af:1f.7"
"""A VF that no container can be given: `give` fails for it."""


def give(ids: Sequence[str]) -> Allocation:
    """What a container gets for VFs on vfio-pci: their addresses, and a device node for each."""
    if STUCK in ids:
        raise DeviceError(f"{STUCK} is not bound to vfio-pci", hint="`sriovdp apply` binds it")
    groups = [DeviceNode(f"/dev/vfio/noiommu-{id_[-4:]}", f"/dev/vfio/{id_[-4:]}") for id_ in ids]
    container = DeviceNode("/dev/vfio/vfio", "/dev/vfio/vfio", "rwm")
    return Allocation({"PCIDEVICE_INTEL_COM_SRIOV_DPDK": ",".join(ids)}, (container, *groups))


def vfs(count: int) -> list[PoolDevice]:
    """The first VFs of a PF, sorted by address, all on NUMA node 1."""
    return [PoolDevice(f"0000:3b:{2 + index // 8:02x}.{index % 8}", numa_node=1) for index in range(count)]


@pytest.fixture
def plugin() -> DevicePlugin:
    """The plugin of the pool; nothing is offered yet."""
    return DevicePlugin(RESOURCE, give)
