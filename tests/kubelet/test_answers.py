"""Golden files: the kubelet's answer for every kind of device, as it goes over the wire.

Each file in golden/ was held field by field against sriov-network-device-plugin 40b6f507 (pkg/resources/pool_stub.go,
pkg/infoprovider); `differs` in it says where ours differs, and why.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from sriovdp.config.values import ExtraMount, ExtraNode, Pool, Selector
from sriovdp.kubelet.plugin import write_answer
from sriovdp.pools.allocation import allocate, find_access
from sriovdp.pools.cdi import name_device
from tests.nodes import ACCELERATOR, SF, FakeHost, make_pool, offer

GOLDEN = Path(__file__).parent / "golden"

POOLS: dict[str, Pool] = {
    "kernel": make_pool("0000:3b:02.0", "0000:3b:02.5"),
    "vfio": make_pool("0000:3b:02.1"),
    "noiommu": make_pool("0000:3b:02.2"),
    "igb_uio": make_pool("0000:3b:02.3"),
    "uio_pci_generic": make_pool("0000:3b:02.4"),
    "rdma": make_pool("0000:3b:02.5", selector={"is_rdma": True}),
    "vhost_vdpa": make_pool("0000:3b:02.6", selector={"vdpa_type": "vhost"}),
    "virtio_vdpa": make_pool("0000:3b:02.7", selector={"vdpa_type": "virtio"}),
    "vhost_net": make_pool("0000:3b:02.0", "0000:3b:02.1", selector={"need_vhost_net": True}),
    "accelerator": Pool("fec", (Selector(),), device_type="accelerator"),
    "subfunction": Pool("sf", (Selector(aux_types=("sf",), is_rdma=True),), device_type="auxNetDevice"),
    "additional_info": make_pool(
        "0000:3b:02.0",
        "0000:3b:02.1",
        additional_info={"*": {"token": "a", "zone": "1"}, "0000:3b:02.1": {"token": "b"}},
    ),
    "hyphen": make_pool("0000:3b:02.0", name="mlnx-fast", prefix="my-corp.com"),
    "extras": make_pool(
        "0000:3b:02.1",
        "0000:3b:02.2",
        device_nodes=(ExtraNode("/dev/cxi*", "/dev/cxi*", "rwm"), ExtraNode("/dev/hpet", "/dev/timer", "r")),
        mounts=(ExtraMount("/etc/dpdk", "/etc/dpdk"), ExtraMount("/var/run/dpdk", "/run/dpdk", read_only=False)),
        env={"DPDK_LCORES": "0-3"},
    ),
}


def answer(pool: Pool) -> dict[str, Any]:
    """The answer for one container that gets all devices of the pool."""
    host = FakeHost()
    allocation = allocate(pool, {id_: find_access(pool, found, host) for id_, found in offer(pool).items()})
    message = MessageToDict(write_answer(allocation), preserving_proto_field_name=True)
    for name in message["envs"]:
        if name.endswith("_INFO"):
            message["envs"][name] = json.loads(message["envs"][name])
    return message


@pytest.mark.parametrize("case", POOLS)
def test_answer_is_the_golden_one(case: str) -> None:
    """Every key, path, permission and their order."""
    golden = json.loads((GOLDEN / f"{case}.json").read_text())
    golden.pop("differs", None)
    assert answer(POOLS[case]) == golden


def test_every_golden_file_is_used() -> None:
    """No file is left that nothing is held against."""
    assert {path.stem for path in GOLDEN.iterdir()} == POOLS.keys()


def test_info_is_upstreams_text_to_the_letter() -> None:
    """Programs parse it by more than JSON: keys are sorted, and there is no white space."""
    pool = POOLS["vfio"]
    envs = allocate(pool, {id_: find_access(pool, found, FakeHost()) for id_, found in offer(pool).items()}).envs
    assert envs["PCIDEVICE_INTEL_COM_SRIOV_INFO"] == (
        '{"0000:3b:02.1":{"generic":{"deviceID":"0000:3b:02.1"},'
        '"vfio":{"dev-mount":"/dev/vfio/101","mount":"/dev/vfio/vfio"}}}'
    )


def test_names_of_cdi_devices_are_upstreams() -> None:
    """The kind says what a pool is of, so that what upstream's checkpoints name is found."""
    names = [name_device(POOLS[case], id_) for case, id_ in (("vfio", "0000:3b:02.1"), ("subfunction", SF.name))]
    names.append(name_device(POOLS["accelerator"], ACCELERATOR.address))
    assert names == [
        "intel.com/net-pci=0000:3b:02.1",
        "intel.com/net-sf=mlx5_core.sf.4",
        "intel.com/net-accel=0000:5e:00.0",
    ]
