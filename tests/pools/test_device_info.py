"""Device-info files: complete, as the specification wants them, and of exactly the devices that pods have."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from sriovdp.config.values import Pool, Selector
from sriovdp.pools.device_info import DeviceInfoFiles, describe
from tests.nodes import PF, make_pool, offer


@pytest.mark.parametrize(
    ("pool", "wanted"),
    [
        (
            make_pool("0000:3b:02.0"),
            {"pci-address": "0000:3b:02.0", "pf-pci-address": PF, "representor-device": "enp59s0_0"},
        ),
        (make_pool("0000:3b:02.5"), {"pci-address": "0000:3b:02.5", "pf-pci-address": PF}),
        (
            make_pool("0000:3b:02.5", selector={"is_rdma": True}),
            {"pci-address": "0000:3b:02.5", "pf-pci-address": PF, "rdma-device": "mlx5_3"},
        ),
        (
            make_pool("0000:3b:02.1", selector={"need_vhost_net": True}),
            {"pci-address": "0000:3b:02.1", "pf-pci-address": PF, "vhost-net": "/dev/vhost-net"},
        ),
        (
            make_pool("0000:3b:02.6", selector={"vdpa_type": "vhost"}),
            {
                "parent-device": "vdpa0",
                "driver": "vhost",
                "path": "/dev/vhost-vdpa-0",
                "pci-address": "0000:3b:02.6",
                "pf-pci-address": PF,
            },
        ),
        (
            make_pool("0000:3b:02.7", selector={"vdpa_type": "virtio"}),
            {"parent-device": "vdpa1", "driver": "virtio", "pci-address": "0000:3b:02.7", "pf-pci-address": PF},
        ),
    ],
)
def test_content(pool: Pool, wanted: dict[str, Any]) -> None:
    """Every key there is something to say for, and none without."""
    [found] = offer(pool).values()
    kind = "vdpa" if pool.selectors[0].vdpa_type else "pci"
    assert describe(pool, found) == {"type": kind, "version": "1.1.0", kind: wanted}


@pytest.mark.parametrize("device_type", ["accelerator", "auxNetDevice"])
def test_what_is_no_pci_netdev_has_none(device_type: Any) -> None:
    """The specification has no type for accelerators and subfunctions."""
    pool = Pool("a", (Selector(),), device_type=device_type)
    assert [describe(pool, found) for found in offer(pool).values()] == [None]


def test_files_follow_the_pods(tmp_path: Path) -> None:
    """Written under the name Multus looks for, once; removed with the pod, and no other pool's file with them."""
    files = DeviceInfoFiles(tmp_path / "devinfo/dp")
    pool, alike = make_pool("0000:3b:02.0", "0000:3b:02.1"), make_pool("0000:3b:02.5", name="sriov-0000")
    for one in (pool, alike):
        for found in offer(one).values():
            files.write(one, found)
    path = tmp_path / "devinfo/dp/intel.com-sriov-0000:3b:02.0-device.json"
    assert json.loads(path.read_text())["pci"]["pci-address"] == "0000:3b:02.0"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    before = path.stat().st_ino
    files.write(pool, offer(pool)["0000:3b:02.0"])
    assert path.stat().st_ino == before
    files.remove_others(pool, {"0000:3b:02.0"})
    assert {path.name for path in path.parent.iterdir()} == {
        "intel.com-sriov-0000:3b:02.0-device.json",
        "intel.com-sriov-0000-0000:3b:02.5-device.json",
    }


def test_a_file_of_another_plugin_is_replaced(tmp_path: Path) -> None:
    """What upstream's plugin wrote for the same device and less completely is made complete, read-only as it is."""
    pool = make_pool("0000:3b:02.0")
    path = tmp_path / "intel.com-sriov-0000:3b:02.0-device.json"
    path.write_text('{"type":"pci"}')
    path.chmod(0o444)
    DeviceInfoFiles(tmp_path).write(pool, offer(pool)["0000:3b:02.0"])
    assert json.loads(path.read_text())["pci"]["pf-pci-address"] == PF
