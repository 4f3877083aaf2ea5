"""Grants: what was given is remembered, changes are reported, and a lost record keeps no container from starting."""

from dataclasses import replace
from pathlib import Path

import pytest

from sriovdp.model import NetDevice, Node, PhysicalFunction
from sriovdp.pools.allocation import find_access
from sriovdp.pools.grants import Grant, Grants
from tests.nodes import PF, FakeHost, make_pool, offer

POOL = make_pool("0000:3b:02.1", "0000:3b:02.3")


def make_grant(device: str = "0000:3b:02.1") -> Grant:
    """What giving this device of the node gives."""
    found = offer(POOL)[device]
    return Grant.of(found, find_access(POOL, found, FakeHost()))


def test_a_grant_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Nodes and mounts included; of another resource, or of a device never given, there is none."""
    grants = Grants(tmp_path / "grants")
    given = [make_grant(), make_grant("0000:3b:02.3")]
    assert given[0].nodes
    assert given[1].mounts
    grants.write(POOL.resource, given)
    assert [grants.find(POOL.resource, grant.device) for grant in given] == given
    assert grants.find("intel.com/other", given[0].device) is None
    assert grants.find(POOL.resource, "0000:3b:02.7") is None
    grants.remove_others(POOL.resource, {given[1].device})
    assert [grants.find(POOL.resource, grant.device) for grant in given] == [None, given[1]]
    grants.remove_others("intel.com/never", set())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 99}', '{"version": 1, "resource": "intel.com/sriov"}']
)
def test_a_record_that_can_not_be_read_is_none(tmp_path: Path, text: str) -> None:
    """Power may have failed while it was written: then only what is there now can be looked at."""
    grants = Grants(tmp_path)
    grants.write(POOL.resource, [make_grant()])
    [path] = tmp_path.glob("*/*.json")
    path.write_text(text)
    assert grants.find(POOL.resource, "0000:3b:02.1") is None


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({}, []),
        ({"part": "VF 1 of 0000:5e:00.0"}, ["it was VF 1 of 0000:3b:00.0 and is VF 1 of 0000:5e:00.0"]),
        ({"driver": "iavf"}, ["its driver was vfio-pci and is iavf"]),
        ({"driver": None}, ["its driver was vfio-pci and is none"]),
        (
            {"nodes": (("/dev/vfio/vfio", "/dev/vfio/vfio"), ("/dev/vfio/7", "/dev/vfio/7"))},
            ["the container has node /dev/vfio/101, and needs /dev/vfio/7"],
        ),
        ({"mounts": (("/etc/new", "/etc/new"),)}, []),
    ],
)
def test_what_changed_is_reported(changes: dict[str, object], reported: list[str]) -> None:
    """A sentence for each thing a container can no longer rely on; what came on top is no harm."""
    before = make_grant()
    assert before.differences(replace(before, **changes)) == reported  # type: ignore[arg-type]


def test_another_function_at_the_address_is_not_the_one_that_was_given(tmp_path: Path) -> None:
    """In a virtual machine a function has no PF: after a change of NICs the one at its address has another MAC.

    It is remembered after its pod, as a DHCP client of the machine may address it then.
    """
    pool = make_pool("0000:3b:00.0")
    netdev = NetDevice("ens5", 3, "52:54:00:00:00:05", 1500, up=True, carrier=True)
    node = Node((PhysicalFunction(PF, "15b3", "1016", "mlx5_core", 0, netdev),), ())
    grants, given = Grants(tmp_path / "grants"), []
    for mac in (netdev.mac, "52:54:00:00:00:06"):
        pf = replace(node.pfs[0], netdev=replace(netdev, mac=mac))
        found = offer(pool, Node((pf,), ()))[PF]
        given.append(Grant.of(found, find_access(pool, found, FakeHost())))
    before, after = given
    assert before.differences(before) == []
    assert before.differences(after) == [f"its MAC was {before.mac} and is {after.mac}: it is another function"]
    assert before.differences(replace(after, mac=None)) == []  # a pod has its netdev
    grants.write(pool.resource, [before])
    grants.write(POOL.resource, [make_grant()])
    grants.remove_others(pool.resource, ())
    assert grants.list_returned(pool.resource) == {PF: "52:54:00:00:00:05"}
    assert grants.find(POOL.resource, "0000:3b:02.1") is None
