"""Upstream's language: every field and form of sriov-network-device-plugin, and its samples, on recorded nodes."""

import json
from pathlib import Path
from typing import Any

import pytest

from sriovdp.config.file import load, parse
from sriovdp.errors import ConfigError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.node.inventory import take_snapshot
from sriovdp.pools.assignment import assign
from tests.recordings.nodes import build

EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trees of the recorded nodes that the samples are about."""
    folder = tmp_path_factory.mktemp("nodes")
    names = ("connectx", "e810", "x710", "accelerator", "guest")
    return {name: build(name, folder / name) for name in names}


def select(selectors: Any, root: Path, **fields: Any) -> list[str]:
    """IDs that a pool with these selectors gets, less the domain."""
    text = json.dumps({"resourceList": [{"resourceName": "a", "selectors": selectors, **fields}]})
    node = take_snapshot(Sysfs(root))
    (offers,) = assign(parse(text, "x").pools, node)
    return [id_.removeprefix("0000:") for id_ in offers]


X710_VFS = [f"3b:02.{n}" for n in range(6)]  # VF 6 has no driver, and PF 1, which has no VFs, is 3b:00.1
CX_LEGACY = ["3b:00.2", "3b:00.3", "3b:00.4"]
CX_SWITCHDEV = ["3b:01.2", "3b:01.3", "3b:01.4", "3b:01.5"]
CX_IB = ["5e:00.1", "5e:00.2"]


@pytest.mark.parametrize(
    ("node", "selector", "expected"),
    [
        ("x710", {}, [*X710_VFS, "3b:00.1"]),
        ("x710", {"vendors": ["8086"]}, [*X710_VFS, "3b:00.1"]),
        ("x710", {"vendors": ["15b3", "8086"], "devices": ["154c"]}, X710_VFS),
        ("x710", {"vendors": ["15b3"]}, []),
        ("x710", {"vendors": []}, [*X710_VFS, "3b:00.1"]),
        ("x710", {"vendors": None, "isRdma": False, "vdpaType": ""}, [*X710_VFS, "3b:00.1"]),
        ("x710", {"devices": ["1572"]}, ["3b:00.1"]),
        ("x710", {"drivers": ["iavf"]}, ["3b:02.0", "3b:02.1"]),
        ("x710", {"drivers": ["vfio-pci", "igb_uio"]}, X710_VFS[2:]),
        ("x710", {"pciAddresses": ["0000:3b:02.3", "0000:3b:02.1", "0000:3b:02.6"]}, ["3b:02.1", "3b:02.3"]),
        ("x710", {"pciAddresses": ["0000:3b:00.0"]}, []),
        ("x710", {"acpiIndexes": ["2"]}, ["3b:00.1"]),
        ("x710", {"acpiIndexes": ["1", "7"]}, []),
        ("x710", {"pfNames": ["ens1f0"]}, X710_VFS),
        ("x710", {"pfNames": ["ens1f0#0,2-3"]}, ["3b:02.0", "3b:02.2", "3b:02.3"]),
        ("x710", {"pfNames": ["ens1f0#0-1", "ens1f0#4"]}, ["3b:02.0", "3b:02.1", "3b:02.4"]),
        ("x710", {"pfNames": ["ENS1F0", "ens1f", "ens1f1#0"]}, []),
        ("x710", {"pfNames": ["ens1f1"]}, ["3b:00.1"]),  # the PF itself, as before v3.5
        ("x710", {"rootDevices": ["0000:3b:00.0"]}, X710_VFS),
        ("x710", {"rootDevices": ["0000:3b:00.0#1-2", "0000:3b:00.0#5-9"]}, ["3b:02.1", "3b:02.2", "3b:02.5"]),
        ("x710", {"rootDevices": ["0000:3b:00.1"]}, []),
        ("x710", {"linkTypes": ["ether"]}, [*X710_VFS, "3b:00.1"]),
        ("x710", {"linkTypes": ["infiniband"]}, []),
        ("x710", {"needVhostNet": True, "drivers": ["vfio-pci"]}, X710_VFS[2:5]),
        ("x710", [{"drivers": ["igb_uio"]}, {"pfNames": ["ens1f0#0-1"]}], ["3b:02.0", "3b:02.1", "3b:02.5"]),
        ("e810", {"ddpProfiles": ["ICE COMMS Package"]}, [f"17:01.{n}" for n in range(8)]),
        ("e810", {"ddpProfiles": ["ICE OS Default Package"]}, ["17:11.0", "17:11.1"]),
        ("e810", {"ddpProfiles": ["other"]}, []),
        ("x710", {"ddpProfiles": ["ICE COMMS Package"]}, []),
        ("connectx", {"linkTypes": ["infiniband"]}, CX_IB),
        ("connectx", {"linkTypes": ["ether", "infiniband"]}, [*CX_LEGACY, *CX_SWITCHDEV, *CX_IB]),
        ("connectx", {"pKeys": ["0x8001"]}, ["5e:00.1"]),
        ("connectx", {"pKeys": ["0x8001", "0xffff"]}, CX_IB),
        ("connectx", {"isRdma": True}, ["3b:00.2", "3b:00.3", *CX_IB]),
        ("connectx", {"isRdma": False}, [*CX_LEGACY, *CX_SWITCHDEV, *CX_IB]),
        ("connectx", {"vdpaType": "vhost"}, ["3b:01.4"]),
        ("connectx", {"vdpaType": "virtio"}, ["3b:01.5"]),
        ("connectx", {"pfNames": ["ens1f1np1#0-1"]}, CX_SWITCHDEV[:2]),
        ("guest", {"vendors": ["8086"]}, ["06:00.0", "07:00.0"]),
        ("guest", {}, ["06:00.0", "07:00.0"]),
        ("guest", {"acpiIndexes": ["101"]}, ["06:00.0"]),
        ("guest", {"pfNames": ["ens101"]}, ["06:00.0"]),
        ("guest", {"pfNames": ["ens101#0"]}, []),
        ("accelerator", {}, []),
    ],
)
def test_selector(nodes: dict[str, Path], node: str, selector: Any, expected: list[str]) -> None:
    """Each field and form selects what upstream's does: values are alternatives, all fields of a selector must hold."""
    assert select(selector, nodes[node]) == expected


@pytest.mark.parametrize(
    ("node", "device_type", "selector", "expected"),
    [
        ("accelerator", "accelerator", {}, ["b1:00.0", "b2:00.0", "b2:00.1"]),
        ("accelerator", "accelerator", {"devices": ["0d5d"]}, ["b2:00.0", "b2:00.1"]),
        ("accelerator", "accelerator", {"vendors": ["8086"], "drivers": ["pci-pf-stub"]}, ["b1:00.0"]),
        ("accelerator", "accelerator", {"pciAddresses": ["0000:b2:00.1"]}, ["b2:00.1"]),
        ("accelerator", "accelerator", {"acpiIndexes": ["1"]}, []),
        ("x710", "accelerator", {}, []),
        ("connectx", "auxNetDevice", {"auxTypes": ["sf"]}, ["mlx5_core.sf.4"]),
        ("connectx", "auxNetDevice", {"auxTypes": ["sf"], "devices": ["101d"]}, ["mlx5_core.sf.4"]),
        ("connectx", "auxNetDevice", {"auxTypes": ["sf"], "drivers": ["mlx5_core"]}, ["mlx5_core.sf.4"]),
        ("connectx", "auxNetDevice", {"auxTypes": ["sf"], "drivers": ["vfio-pci"]}, []),
        ("connectx", "auxNetDevice", {"auxTypes": ["sf"], "pfNames": ["ens1f1np1#80-88"]}, ["mlx5_core.sf.4"]),
        ("connectx", "auxNetDevice", {"auxTypes": ["sf"], "pfNames": ["ens1f1np1#4"]}, []),
        ("connectx", "auxNetDevice", {"auxTypes": ["sf"], "rootDevices": ["0000:3b:00.1"]}, ["mlx5_core.sf.4"]),
        ("connectx", "auxNetDevice", {"auxTypes": ["sf"], "isRdma": True}, []),
        ("connectx", "auxNetDevice", {"auxTypes": ["sf"], "linkTypes": ["ether"]}, ["mlx5_core.sf.4"]),
    ],
)
def test_device_type(nodes: dict[str, Path], node: str, device_type: str, selector: Any, expected: list[str]) -> None:
    """Accelerators are of PCI class 0x12; a subfunction goes by its name, its number, and the ids of its PF."""
    assert select(selector, nodes[node], deviceType=device_type) == expected


@pytest.mark.parametrize(
    ("device_type", "selectors", "fault"),
    [
        ("netDevice", [], "must have at least one entry"),
        ("netDevice", {"vendors": ["0x8086"]}, "write '8086'"),
        ("netDevice", {"vendors": ["15B3"]}, "write '15b3'"),
        ("netDevice", {"vendors": "8086"}, "must be a list"),
        ("netDevice", {"drivers": ["vfio_pci"]}, "did you mean 'vfio-pci'?"),
        ("netDevice", {"pciAddresses": ["3b:02"]}, "no PCI address"),
        ("netDevice", {"acpiIndexes": ["0x1"]}, "an ACPI index is a number"),
        ("netDevice", {"pfNames": ["ens1f0#0-2,x,5"]}, "'x' is no VF index"),
        ("netDevice", {"rootDevices": ["0000:3b:00.0#7-3"]}, "reversed; write 3-7"),
        ("netDevice", {"rootDevices": ["ens1f0"]}, "no PCI address"),
        ("netDevice", {"linkTypes": ["ETH"]}, "did you mean 'ether'?"),
        ("netDevice", {"linkTypes": ["IB"]}, "did you mean 'infiniband'?"),
        ("netDevice", {"ddpProfiles": [""]}, "must be the name of a DDP package"),
        ("netDevice", {"pKeys": ["ffff"]}, "a partition key is 0x and 4 hex digits"),
        ("netDevice", {"isRdma": "true"}, "isRdma: must be true or false, not 'true'"),
        ("netDevice", {"vdpaType": "vhosts"}, "did you mean 'vhost'?"),
        ("netDevice", {"isRdma": True, "vdpaType": "vhost"}, "given for RDMA or as vDPA"),
        ("netDevice", [{"isRdma": True}, {"isRdma": True, "vdpaType": "vhost"}], "selectors[1].vdpaType: a device is"),
        ("auxNetDevice", {}, "a selector of an auxNetDevice pool needs auxTypes: [sf]"),
        ("auxNetDevice", [{"auxTypes": ["sf"]}, {"auxTypes": []}], "selectors[1]: a selector of an auxNetDevice pool"),
        ("auxNetDevice", {"auxTypes": ["eth"]}, "'eth': allowed here: sf"),
    ],
)
def test_invalid_selector(device_type: str, selectors: Any, fault: str) -> None:
    """What upstream refuses, crashes on, or takes for nothing in silence is one fault with its place."""
    pool = {"resourceName": "a", "deviceType": device_type, "selectors": selectors}
    with pytest.raises(ConfigError) as caught:
        parse(json.dumps({"resourceList": [pool]}), "x")
    (told,) = caught.value.faults
    assert fault in told
    assert told.startswith("line 1: resourceList[0].selectors")


def test_rdma_and_vdpa_in_different_selectors_are_fine(nodes: dict[str, Path]) -> None:
    """Only one selector cannot want both."""
    selected = select([{"isRdma": True}, {"vdpaType": "vhost"}], nodes["connectx"])
    assert selected == ["3b:00.2", "3b:00.3", "3b:01.4", *CX_IB]


@pytest.mark.parametrize(
    ("sample", "node", "expected"),
    [
        ("operator_node", "e810", {"intel.com/sriovnics": [*(f"17:01.{n}" for n in range(5)), "17:11.0", "17:11.1"]}),
        (
            "rdma_and_dpdk",
            "x710",
            {
                "intel.com/intel_sriov_netdevice": ["3b:02.0", "3b:02.1"],
                "intel.com/intel_sriov_dpdk": ["3b:02.2", "3b:02.3", "3b:02.4"],
            },
        ),
        (
            "rdma_and_dpdk",
            "connectx",
            {"mellanox.com/mlnx_sriov_rdma": ["3b:00.2", "3b:00.3"], "intel.com/infiniband_rdma_netdevs": ["5e:00.1"]},
        ),
        ("rdma_and_dpdk", "accelerator", {"intel.com/acc": ["b2:00.0", "b2:00.1"]}),
        (
            "ddp",
            "e810",
            {
                "intel.com/e800_default": ["17:11.0", "17:11.1"],
                "intel.com/e800_comms": [f"17:01.{n}" for n in range(8)],
            },
        ),
        (
            "vdpa_and_subfunctions",
            "connectx",
            {
                "intel.com/vdpa_mlx_virtio": ["3b:01.5"],
                "intel.com/vdpa_mlx_vhost": ["3b:01.4"],
                "nvidia.com/cx6dx_vf": [*CX_LEGACY, "3b:01.2", "3b:01.3"],
                "nvidia.com/cx6dx_sf": ["mlx5_core.sf.4"],
            },
        ),
        (
            "virtual_machine",
            "guest",
            {"intel.com/intelnics_radio_downlink": ["07:00.0"], "intel.com/intelnics_radio_uplink": ["06:00.0"]},
        ),
        ("all_nics", "connectx", {"dpdk.org/nic": ["3b:00.2", "3b:00.3", *CX_IB]}),
        ("all_nics", "x710", {"dpdk.org/nic": ["3b:02.2", "3b:02.3", "3b:02.4"]}),
    ],
)
def test_sample(nodes: dict[str, Path], sample: str, node: str, expected: dict[str, list[str]]) -> None:
    """The samples of upstream's documentation, with the ids of our nodes, give each pool what they say it gets."""
    config = load(EXAMPLES / f"{sample}.json")
    assigned = assign(config.pools, take_snapshot(Sysfs(nodes[node])))
    pools = zip(config.pools, assigned, strict=True)
    got = {pool.resource: [id_.removeprefix("0000:") for id_ in offers] for pool, offers in pools if offers}
    assert got == expected


def test_what_the_operator_writes_is_taken_with_warnings() -> None:
    """Go's case-insensitive keys and left-over fields are in real ConfigMaps; each is reported with its place."""
    config = load(EXAMPLES / "operator_node.json")
    assert config.warnings == (
        "line 1: resourceList[0].selectors.IsRdma: read as 'isRdma'",
        "line 1: resourceList[0].selectors.NeedVhostNet: read as 'needVhostNet'",
        "line 1: resourceList[0].SelectorObj: ignored: sriov-network-operator leaves this key behind",
    )


def test_any_case_of_an_upstream_key_means_the_same() -> None:
    """All levels; a fault below a misspelt key still has its line; our own keys are taken so too."""
    text = """{
"RESOURCELIST": [
 {"resourcename": "a", "DeviceType": "netDevice", "Selectors":
   {"VENDORS": ["8086"], "pcIaddresses": ["0000:3b:02.0"]},
  "AdditionalInfo": {"*": {"Key": "v"}}}]}
"""
    plain = parse(
        '{"resourceList": [{"resourceName": "a", "selectors": {"vendors": ["8086"], "pciAddresses": ["0000:3b:02.0"]},'
        '"additionalInfo": {"*": {"Key": "v"}}}]}',
        "x",
    )
    assert parse(text, "x") == plain
    assert len(parse(text, "x").warnings) == 7
    with pytest.raises(ConfigError, match=r"line 4: resourceList\[0\]\.selectors\.vendors\[0\]: 'x': an id is"):
        parse(text.replace("8086", "x"), "x")
    assert parse(text.replace('"DeviceType": "netDevice"', '"Health": []'), "x").pools[0].health == ()


def warn_of(pool: dict[str, Any]) -> list[str]:
    """Warnings of a file with this pool, less line and place."""
    config = parse(json.dumps({"resourceList": [{"resourceName": "a", "selectors": {}} | pool]}), "x")
    assert len(config.pools) == 1
    return [warning.removeprefix("line 1: resourceList[0].") for warning in config.warnings]


IGNORED = "ignored, as by sriov-network-device-plugin"


@pytest.mark.parametrize(
    ("pool", "warnings"),
    [
        ({"isRdma": True}, [f"isRdma: {IGNORED}; put isRdma into the pool's selectors"]),
        ({"IsRdma": True}, [f"IsRdma: {IGNORED}; put isRdma into the pool's selectors"]),
        ({"ISRDMA": False, "needvhostnet": None, "pfNames": []}, []),
        ({"rootDevices": ["03:00.0"]}, [f"rootDevices: {IGNORED}; put rootDevices into the pool's selectors"]),
        ({"sriovMode": True}, [f"sriovMode: {IGNORED} since version 3"]),
        (
            {"SelectorObj": {"a": 1}, "SelectorObjs": None},
            2 * ["ignored: sriov-network-operator leaves this key behind"],
        ),
        ({"_comment": "mine", "//": "x", "description": "y"}, []),
        ({"zebra": 1}, [f"zebra: unknown key, {IGNORED}"]),
        ({"selectors": {"_note": "x"}}, []),
        (
            {"selectors": {"auxTypes": ["sf"]}},
            [f"{IGNORED}: it does nothing for a device of type netDevice"],
        ),
        ({"deviceType": "accelerator", "selectors": [{"pfNames": ["a"], "isRdma": True}]}, 2 * [f"{IGNORED}: it does"]),
        ({"deviceType": "accelerator", "selectors": {"pfNames": [], "isRdma": False}}, []),
        (
            {"deviceType": "auxNetDevice", "selectors": {"auxTypes": ["sf"], "PciAddresses": ["0000:c1:00.0"]}},
            [
                "read as 'pciAddresses'",
                f"{IGNORED}: it does nothing for a device of type auxNetDevice",
            ],
        ),
    ],
)
def test_what_upstream_ignores_is_ignored_with_a_warning(pool: dict[str, Any], warnings: list[str]) -> None:
    """A file that runs there runs here; what says nothing is dropped in silence."""
    found = warn_of(pool)
    assert len(found) == len(warnings)
    assert all(warning in line for warning, line in zip(warnings, found, strict=True))


def test_an_ignored_selector_does_not_select(nodes: dict[str, Path]) -> None:
    """The pool takes what it takes in Go: subfunctions have no PCI address, and the key is not asked."""
    selectors = {"auxTypes": ["sf"], "pciAddresses": ["0000:c1:00.0"]}
    assert select(selectors, nodes["connectx"], deviceType="auxNetDevice") == ["mlx5_core.sf.4"]
    assert select({"auxTypes": ["sf"]}, nodes["x710"]) == [*X710_VFS, "3b:00.1"]


@pytest.mark.parametrize(
    ("pool", "fault"),
    [
        ({"resourceNames": "b"}, "resourceNames: unknown key; did you mean 'resourceName'?"),
        ({"selectors": {"zebra": 1}}, "selectors.zebra: unknown key; allowed here: vendors, devices"),
        (
            {"selectors": None, "rootDevices": ["03:00.0"], "sriovMode": True},
            "rootDevices: this key belongs in the pool's",
        ),
    ],
)
def test_what_would_select_more_than_is_meant_is_a_fault(pool: dict[str, Any], fault: str) -> None:
    """A near miss, a strange selector, and a file of the plugin's version 2."""
    with pytest.raises(ConfigError) as caught:
        warn_of(pool)
    assert any(fault in found for found in caught.value.faults)


@pytest.mark.parametrize(
    "text", ['{"resourceList":null}', '{"resourceList":[]}', '{"ResourceList": ""}', "resourceList:"]
)
def test_a_node_without_pools_runs(text: str) -> None:
    """sriov-network-operator writes this for a node that no policy selects."""
    config = parse(text, "x")
    assert config.pools == ()
    assert config.warnings[-1] == "line 1: resourceList: is empty: no device is offered"
