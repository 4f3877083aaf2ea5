"""CDI specs: valid by the published schema, whole or not there, and gone when their pool is."""

import json
import stat
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sriovdp.config.values import ExtraMount, Pool, Selector
from sriovdp.errors import SriovdpError
from sriovdp.model import DeviceNode, Mount
from sriovdp.pools.allocation import Access, find_access
from sriovdp.pools.cdi import CdiSpecs, name_device, write_spec
from tests.nodes import FakeHost, make_pool, offer

SCHEMA = json.loads((Path(__file__).parent / "cdi_schema.json").read_text())

POOLS = [
    make_pool(*(f"0000:3b:02.{n}" for n in range(8)), name="all", mounts=(ExtraMount("/etc/dpdk", "/etc/dpdk"),)),
    make_pool("0000:3b:02.0", name="netdev"),
    make_pool("0000:3b:02.5", name="rdma", selector={"is_rdma": True}),
    Pool("fec_2", (Selector(),), device_type="accelerator", prefix="my-corp.com"),
    Pool("sf", (Selector(),), device_type="auxNetDevice"),
]


def find_accesses(pool: Pool) -> dict[str, Access]:
    """What the devices of the pool take to be used."""
    return {id_: find_access(pool, found, FakeHost()) for id_, found in offer(pool).items()}


def read(path: Path) -> dict[str, Any]:
    """A spec that is on disk."""
    spec: dict[str, Any] = json.loads(path.read_text())
    return spec


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.name)
def test_spec_is_valid_and_names_every_device(pool: Pool) -> None:
    """Each kind of device, those that need no device node included, has edits that are not empty."""
    accesses = find_accesses(pool)
    spec = write_spec(pool, accesses)
    jsonschema.validate(spec, SCHEMA)
    assert accesses
    assert [f"{spec['kind']}={device['name']}" for device in spec["devices"]] == [
        name_device(pool, i) for i in accesses
    ]


def test_schema_finds_faults() -> None:
    """The schema that specs are held against does refuse: empty edits, relative paths, wrong names, no devices."""
    good = write_spec(POOLS[0], find_accesses(POOLS[0]))
    faults: tuple[dict[str, Any], ...] = (
        {"kind": "4com.io/net-pci"},
        {"devices": []},
        {"devices": [{"name": "a", "containerEdits": {}}]},
        {"devices": [{"name": "a", "containerEdits": {"deviceNodes": [{"path": "dev/x"}]}}]},
        {"devices": [{"name": "a", "containerEdits": {"mounts": [{"hostPath": "/x"}]}}]},
    )
    for fault in faults:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(good | fault, SCHEMA)


def test_edits_of_a_device() -> None:
    """Paths on the host and in the container are not swapped, and each mount says whether it can be written."""
    access = Access(
        {},
        (DeviceNode("/dev/vfio/noiommu-7", "/dev/vfio/7"),),
        (Mount("/etc/dpdk", "/dpdk"), Mount("/sys/devices/config", "/sys/config", read_only=False)),
    )
    [device] = write_spec(POOLS[1], {"0000:3b:02.1": access})["devices"]
    assert device == {
        "name": "0000:3b:02.1",
        "containerEdits": {
            "env": ["SRIOVDP_DEVICE_0000_3B_02_1=0000:3b:02.1"],
            "deviceNodes": [{"path": "/dev/vfio/7", "hostPath": "/dev/vfio/noiommu-7", "permissions": "rw"}],
            "mounts": [
                {"hostPath": "/etc/dpdk", "containerPath": "/dpdk", "options": ["ro", "nosuid", "nodev", "bind"]},
                {
                    "hostPath": "/sys/devices/config",
                    "containerPath": "/sys/config",
                    "options": ["rw", "nosuid", "nodev", "bind"],
                },
            ],
        },
    }


def test_files_come_change_and_go(tmp_path: Path) -> None:
    """One file for each pool, readable by the runtime; rewritten only when it changes; gone with the last device."""
    specs = CdiSpecs(tmp_path / "cdi")
    for pool in POOLS:
        specs.write(pool, find_accesses(pool))
    paths = sorted(tmp_path.glob("cdi/*"))
    assert len(paths) == len(POOLS)
    assert all(path.suffix == ".json" and stat.S_IMODE(path.stat().st_mode) == 0o644 for path in paths)
    file = tmp_path / "cdi/sriovdp-intel.com-net-pci-netdev.json"
    before = file.stat().st_ino
    specs.write(POOLS[1], find_accesses(POOLS[1]))
    assert file.stat().st_ino == before
    specs.write(POOLS[1], {"0000:3b:02.0": Access({}, (DeviceNode("/dev/x", "/dev/x"),))})
    assert read(file)["devices"][0]["containerEdits"]["deviceNodes"][0]["path"] == "/dev/x"
    specs.write(POOLS[1], {})
    assert not file.exists()
    specs.write(POOLS[1], {})


def test_without_cdi_a_spec_only_ends(tmp_path: Path) -> None:
    """None is made, and one that is there is kept true until it is not used any more."""
    specs, before = CdiSpecs(tmp_path, enabled=False), CdiSpecs(tmp_path)
    specs.write(POOLS[1], find_accesses(POOLS[1]))
    assert list(tmp_path.iterdir()) == []
    before.write(POOLS[1], find_accesses(POOLS[1]))
    before.remove_unused(POOLS[1])
    specs.write(POOLS[1], {"0000:3b:02.0": Access({}, (DeviceNode("/dev/x", "/dev/x"),))})
    [file] = tmp_path.iterdir()
    assert read(file)["devices"][0]["containerEdits"]["deviceNodes"][0]["path"] == "/dev/x"
    specs.remove_unused(POOLS[1])
    assert list(tmp_path.iterdir()) == []


def test_stale_files_are_removed_and_others_stay(tmp_path: Path) -> None:
    """Ours of an earlier config go, and what upstream's plugin left for the same pool; nothing else does."""
    specs = CdiSpecs(tmp_path)
    old = make_pool("0000:3b:02.0", name="old")
    for pool in (old, POOLS[1]):
        specs.write(pool, find_accesses(pool))
    names = ("nvidia.yaml", "sriov-dp-intel.com-net-pci-other.yaml", "sriov-dp-intel.com-net-pci-netdev.yaml")
    for name in names:
        (tmp_path / name).touch()
    specs.remove_others([POOLS[1]])
    specs.write(POOLS[1], find_accesses(POOLS[1]))
    assert {path.name for path in tmp_path.iterdir()} == {"sriovdp-intel.com-net-pci-netdev.json", *names[:2]}


def test_what_can_not_be_is_reported(tmp_path: Path) -> None:
    """A vendor that CDI does not allow, and a folder that cannot be written."""
    with pytest.raises(SriovdpError, match=r"4com\.io.*begins with a letter"):
        name_device(make_pool(prefix="4com.io"), "0000:3b:02.0")
    (tmp_path / "file").touch()
    with pytest.raises(SriovdpError, match="cannot be written"):
        CdiSpecs(tmp_path / "file").write(POOLS[1], find_accesses(POOLS[1]))
