"""Each check: a well node, and nodes on each of which one thing is broken, which is the first that is named."""

import json
from pathlib import Path

import pytest

from sriovdp.doctor.verdict import CHECKS, Verdict
from tests.doctor.broken_nodes import BROKEN
from tests.doctor.fake_node import PF, VFS, FakeNode, diagnose

_NO_FAULTS = {"driver-habits", "versions", "rdma-mode", "vf-holders"}
"""Checks that only report."""


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    """A well node that is not written yet."""
    return FakeNode(tmp_path / "node")


def show(verdicts: list[Verdict]) -> list[str]:
    """Faults and warnings as lines."""
    return [
        f"{one.status} {v.check.name}: {one.text}"
        for v in verdicts
        for one in v.findings
        if one.status in {"fail", "warn"}
    ]


def find(verdicts: list[Verdict], name: str) -> Verdict:
    """What one check found."""
    return next(verdict for verdict in verdicts if verdict.check.name == name)


def test_a_well_node_has_no_fault(node: FakeNode) -> None:
    """No check warns, and those that have something to look at see it."""
    verdicts = diagnose(node.write())
    assert show(verdicts) == []
    skipped = {verdict.check.name for verdict in verdicts if verdict.status == "skipped"}
    assert skipped == {"pf-xdp", "rdma-mode", "rdma-nodes", "guids", "cdi"}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_node_names_its_fault_first(node: FakeNode, case: str) -> None:
    """What is broken comes first, with what fixes it; no check fails by itself."""
    broken, status, name, text = BROKEN[case]
    broken(node.write())
    verdicts = diagnose(node)
    assert [verdicts[0].check.name, verdicts[0].status] == [name, status], "\n".join(show(verdicts))
    assert text in verdicts[0].findings[0].text
    assert verdicts[0].findings[0].fix
    assert not [line for line in show(verdicts) if f"the check {name}" in line]


def _write_infiniband(node: FakeNode) -> None:
    node.function |= {"vendor": "0x15b3", "device": "0x1017", "driver": "mlx5_core"}
    node.function["netdev"] = {"name": "ens1f0", "type": 32}
    node.function["sriov"]["vfs"] = [
        {"count": 4, "driver": "mlx5_core", "rdma": {"name": "ibp59s0", "part": "mlx5_core.rdma", "driver": "mlx5_ib"}}
    ]
    guid = "00:00:00:00:00:00:00:00"
    node.netlink["vf_settings"][PF] = {str(i): {"mac": "0:0", "node_guid": guid, "port_guid": guid} for i in range(4)}
    node.drivers.append("mlx5_core")


def test_infiniband_without_guids_and_verbs(node: FakeNode) -> None:
    """A zero GUID is a fault, a missing uverbs node a warning, the mode of RDMA is reported."""
    _write_infiniband(node)
    node.write()
    node.put("sys/module/ib_core/parameters/netns_mode", "N")
    verdicts = diagnose(node)
    assert find(verdicts, "guids").findings[0].text == f"ens1f0 VF 0 ({VFS[0]}): its GUID is zero: its port stays down"
    assert "exclusive to a network namespace" in find(verdicts, "rdma-mode").findings[0].text
    assert find(verdicts, "rdma-nodes").status == "ok"
    for path in node.pci(VFS[0]).glob("infiniband_verbs/*/ibdev"):
        path.write_text("none\n")
    (node.pci(VFS[0]) / "infiniband/ibp59s0_1").mkdir(parents=True, exist_ok=True)
    assert find(diagnose(node), "rdma-nodes").status == "warn"


def test_ice_in_safe_mode_and_ixgbe_with_xdp(tmp_path: Path) -> None:
    """What two drivers need to make VFs."""
    ice = FakeNode(tmp_path / "ice")
    ice.function["driver"] = "ice"
    ice.put("lib/firmware/intel/README")
    found = find(diagnose(ice.write()), "pf-driver")
    assert (found.status, "ice.pkg is missing" in found.findings[0].text) == ("fail", True)
    ice.netlink["ddp_profiles"] = {PF: "ICE OS Default Package"}
    (ice.root / "sys/netlink.json").write_text(json.dumps(ice.netlink))
    assert find(diagnose(ice), "pf-driver").status == "ok"
    ixgbe = FakeNode(tmp_path / "ixgbe")
    ixgbe.function["driver"] = "ixgbe"
    ixgbe.function["sriov"]["vfs"] = []
    ixgbe.write().answer("xdp", "ens1f0", "eth9")
    assert (
        find(diagnose(ixgbe), "pf-xdp").findings[0].text == f"ens1f0 ({PF}): it has an XDP program: ixgbe makes no VFs"
    )


def test_checks_that_only_report(node: FakeNode) -> None:
    """Habits of the driver with their source, versions, and who has a VF open."""
    node.write()
    group = (node.pci(VFS[2]) / "iommu_group").readlink().name
    node.answer("holders", f"/dev/vfio/{group} process 77 (testpmd)", "/dev/vfio/99 process 78 (qemu)")
    verdicts = diagnose(node)
    assert (
        "i40e: a VF in reset answers EAGAIN (intel/i40e/i40e_virtchnl_pf.c"
        in find(verdicts, "driver-habits").findings[0].text
    )
    assert [one.text for one in find(verdicts, "vf-holders").findings] == [
        f"ens1f0 VF 2 ({VFS[2]}): process 77 (testpmd) has it open, so it is not changed"
    ]
    assert find(verdicts, "versions").findings[1].text == "Debian GNU/Linux 13 (trixie)"


def test_every_check_is_broken_by_a_case() -> None:
    """A new check needs a case in which it speaks."""
    apart = {"guids", "rdma-nodes", "pf-driver", "pf-xdp"}  # each has a test of its own
    assert {name for _, _, name, _ in BROKEN.values()} | apart | _NO_FAULTS == {check.name for check in CHECKS}
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.source and check.about for check in CHECKS)
