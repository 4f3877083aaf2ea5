"""Apply: refusals before any change, order of changes, journal, verification. The kernel here is a scripted tree."""

import errno
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sriovdp.config.file import parse
from sriovdp.config.values import Config
from sriovdp.errors import DeviceError, InUseError, JournalError, KernelError, VerifyError
from sriovdp.kernel.sysfs import read_text
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision import change, usage
from sriovdp.provision.apply import apply
from sriovdp.provision.settings import make_stable_mac
from sriovdp.state.journal import Attachment, Journal, Original, read_boot_id
from sriovdp.state.provisioned import PfState, claim_provisioning
from tests.fakes.sysfs import PF, PF_MAC, Netlink, Tree, connect, vf_address


def make_config(num_vfs: int, vfs: dict[str, str] | None = None) -> Config:
    """A config for all PFs, with a driver for each range."""
    ranges = [{"range": indices, "driver": driver} for indices, driver in (vfs or {}).items()]
    entry = {"select": {"vendors": ["8086"]}, "numVfs": num_vfs, **({"vfs": ranges} if ranges else {})}
    return parse(json.dumps({"physicalFunctions": [entry]}), "test")


MIXED = make_config(4, {"0-1": "kernel", "2": "vfio-pci", "3": "igb_uio"})


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A tree with one PF without VFs, which the product takes for this machine's."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf()
    return tree


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    return Journal(tmp_path / "journal")


def attach(journal: Journal, device: str, *, released: bool = False) -> None:
    """A pod gets a VF."""
    record: dict[str, Any] = {"netns": "/run/netns/x", "netns_dev": 1, "netns_ino": 2, "boot_id": read_boot_id()}
    args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=red"
    original = Original("igbvf", None)
    journal.write_attachment(
        Attachment("c1", "net1", "net", device, "kernel", original, args=args, released=released, **record)
    )


def test_a_node_is_brought_to_its_config_and_stays(tree: Tree, journal: Journal) -> None:
    """All drivers and MACs are as wanted, the netdevs have their admin MACs, and a second apply writes nothing."""
    reported: list[str] = []
    apply(MIXED, tree.sysfs, journal, reported.append)
    vfs = take_snapshot(tree.sysfs).pfs[0].vfs
    assert [vf.driver for vf in vfs] == ["igbvf", "igbvf", "vfio-pci", "igb_uio"]
    assert [vf.settings.mac for vf in vfs if vf.settings] == [make_stable_mac(PF_MAC, index) for index in range(4)]
    assert [vf.netdev.mac for vf in vfs if vf.netdev] == [make_stable_mac(PF_MAC, index) for index in range(2)]
    assert (reported[0], reported.count("enp1s0: has carrier")) == ("enp1s0: create 4 VFs", 1)
    assert reported[-1] == "done: 9 steps, read back and verified"
    written = len(tree.log)
    again: list[str] = []
    assert apply(MIXED, tree.sysfs, journal, again.append).steps == ()
    assert again == ["nothing to do: the node is as the config says"]
    assert len(tree.log) == written


def test_no_driver_is_bound_before_the_mac_is_set(tree: Tree, journal: Journal) -> None:
    """Autoprobe is off from before the VFs are created until all are bound, then as it was; MAC comes before driver."""
    apply(make_config(2), tree.sysfs, journal)
    kept = [entry for entry in tree.log if entry[0] != "driver_override"]
    assert kept == [
        ("sriov_drivers_autoprobe", "0"),
        ("sriov_numvfs", "2"),
        ("vf0", f"mac {make_stable_mac(PF_MAC, 0)}"),
        ("vf1", f"mac {make_stable_mac(PF_MAC, 1)}"),
        ("drivers_probe", vf_address(PF, 0)),
        ("drivers_probe", vf_address(PF, 1)),
        ("sriov_drivers_autoprobe", "1"),
    ]


def test_another_number_goes_through_zero(tree: Tree, journal: Journal) -> None:
    """The kernel answers EBUSY when a number is changed that is not 0."""
    apply(make_config(2), tree.sysfs, journal)
    tree.log.clear()
    apply(make_config(3), tree.sysfs, journal)
    assert [text for name, text in tree.log if name == "sriov_numvfs"] == ["0", "3"]


def test_a_pf_that_is_down_is_set_up_first(tree: Tree, journal: Journal) -> None:
    """Its VFs would find no link."""
    flags = tree.pci(PF) / "net/enp1s0/flags"
    flags.write_text("0x1002")
    apply(make_config(1), tree.sysfs, journal)
    assert flags.read_text() == "0x1003"


def test_no_carrier_is_reported_and_no_reason_to_stop(
    tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PF without a cable gets its VFs too."""
    monkeypatch.setattr(change, "_CARRIER_TIMEOUT", 0.0)
    (tree.pci(PF) / "net/enp1s0/carrier").write_text("0")
    reported: list[str] = []
    apply(make_config(1), tree.sysfs, journal, reported.append)
    assert "enp1s0: no carrier after 0 s, going on without" in reported
    assert reported[-1].startswith("done")


def test_a_changed_mac_reaches_the_netdev(tree: Tree, journal: Journal) -> None:
    """A VF that igbvf already has is bound again after its admin MAC was set, which igb does not hand down."""
    tree.write(tree.pci(PF) / "sriov_numvfs", "1")  # with autoprobe on
    apply(make_config(1), tree.sysfs, journal)
    netdev = take_snapshot(tree.sysfs).pfs[0].vfs[0].netdev
    assert netdev
    assert netdev.mac == make_stable_mac(PF_MAC, 0)


def test_the_intent_is_in_the_journal_before_the_first_change(
    tree: Tree, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that refuses the VFs finds the record with the old state, and the PF gets its old VF back."""
    tree.write(tree.pci(PF) / "sriov_numvfs", "1")

    def refuse(path: Path, text: str) -> None:
        record = json.loads((tmp_path / f"journal/pf-{PF}.json").read_text())
        assert (record["phase"], record["before"]["autoprobe"]) == ("changing", True)
        assert record["original"]["vfs"][0]["driver"] == "igbvf"
        if (path.name, text) == ("sriov_numvfs", "2"):
            raise KernelError("writing failed", errno=errno.ENOMEM)
        tree.write(path, text)

    monkeypatch.setattr(change, "write_text", refuse)
    before = PfState.of(take_snapshot(tree.sysfs).pfs[0])
    with pytest.raises(KernelError, match=r"ENOMEM.*enp1s0 was brought back to what it was before; .*pci=realloc"):
        apply(make_config(2), tree.sysfs, journal)
    assert PfState.of(take_snapshot(tree.sysfs).pfs[0]) == before
    assert not (tmp_path / f"journal/pf-{PF}.json").exists(), "nothing is left to reset"


@pytest.mark.parametrize("made", ["0", "2"])
def test_a_driver_that_makes_fewer_vfs_is_found_at_once(
    tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    """A write of sriov_numvfs may succeed and make fewer VFs, or none; no setting is tried on one that is missing."""

    def make_fewer(path: Path, text: str) -> None:
        tree.write(path, made if (path.name, text) == ("sriov_numvfs", "3") else text)

    monkeypatch.setattr(change, "write_text", make_fewer)
    said = f"create 3 VFs failed: the driver of enp1s0 accepted sriov_numvfs 3, but there are {made} VFs"
    with pytest.raises(VerifyError, match=said):
        apply(make_config(3), tree.sysfs, journal)
    assert (tree.pci(PF) / "sriov_numvfs").read_text() == "0\n"


def test_only_missing_memory_is_answered_with_realloc(
    tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that is busy needs no other kernel command line."""

    def refuse(path: Path, text: str) -> None:
        if (path.name, text) == ("sriov_numvfs", "3"):
            raise KernelError("writing failed", errno=errno.EBUSY)
        tree.write(path, text)

    monkeypatch.setattr(change, "write_text", refuse)
    with pytest.raises(KernelError, match="EBUSY") as caught:
        apply(make_config(3), tree.sysfs, journal)
    assert "dmesg" in caught.value.hint
    assert "realloc" not in caught.value.hint


def test_a_journal_that_can_not_be_written_stops_before_any_change(tree: Tree, tmp_path: Path) -> None:
    """Write ahead or do nothing."""
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError):
        apply(MIXED, tree.sysfs, Journal(tmp_path / "file/journal"))
    assert tree.log == []


def test_what_the_kernel_did_not_do_is_an_error(tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NIC that takes a MAC and forgets it: the error lists what differs."""
    monkeypatch.setattr(Netlink, "set_vf", lambda *_: None)
    with pytest.raises(VerifyError, match=r"enp1s0 VF 0 .*: set admin MAC"):
        apply(make_config(1), tree.sysfs, journal)


def expect_refusal(tree: Tree, journal: Journal, config: Config, reason: str) -> None:
    """Apply refuses with this reason and has written nothing."""
    tree.log.clear()
    with pytest.raises(InUseError, match=reason):
        apply(config, tree.sysfs, journal)
    assert tree.log == []


def test_a_pods_vf_is_not_touched(tree: Tree, journal: Journal) -> None:
    """Neither another driver nor another number of VFs; the pod is named. Released, it is no obstacle."""
    apply(MIXED, tree.sysfs, journal)
    attach(journal, vf_address(PF, 1))
    who = r"VF 1 \(0000:01:10.2\) is used by pod default/red \(net1\)"
    expect_refusal(tree, journal, make_config(4, {"0": "kernel", "1-3": "vfio-pci"}), who)
    expect_refusal(tree, journal, make_config(0), rf"{who}; in the way of: enp1s0: remove its 4 VFs")
    attach(journal, vf_address(PF, 1), released=True)
    apply(make_config(0), tree.sysfs, journal)
    assert take_snapshot(tree.sysfs).pfs[0].vfs == ()


def test_another_vf_can_be_changed_while_a_pod_has_one(tree: Tree, journal: Journal) -> None:
    """The pod's VF has the pod's MAC, which is no difference to the config."""
    apply(MIXED, tree.sysfs, journal)
    attach(journal, vf_address(PF, 0))
    Netlink(tree).set_vf(2, 0, {"mac": "02:11:22:33:44:55"})
    apply(make_config(4, {"0": "kernel", "1-2": "vfio-pci", "3": "igb_uio"}), tree.sysfs, journal)
    vfs = take_snapshot(tree.sysfs).pfs[0].vfs
    assert [vf.driver for vf in vfs] == ["igbvf", "vfio-pci", "vfio-pci", "igb_uio"]
    assert vfs[0].settings
    assert vfs[0].settings.mac == "02:11:22:33:44:55"


def test_a_netdev_in_another_namespace_is_not_touched(tree: Tree, journal: Journal) -> None:
    """The VF is bound to its kernel driver, but its netdev is not here: a container of somebody else has it."""
    apply(MIXED, tree.sysfs, journal)
    (tree.pci(vf_address(PF, 0)) / "net/v0110f0").rename(tree.root / "elsewhere")
    expect_refusal(tree, journal, make_config(0), "VF 0 .* is used by another network namespace")


def test_an_open_vfio_group_is_not_touched(tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that a program has open belongs to it."""
    apply(MIXED, tree.sysfs, journal)
    held = vf_address(PF, 2)
    monkeypatch.setattr(usage, "find_holder", lambda _, vf: "process 7 (testpmd)" if vf == held else None)
    expect_refusal(tree, journal, make_config(0), r"VF 2 \(0000:01:10.4\) is used by process 7 \(testpmd\)")


def test_the_hosts_uplink_keeps_its_vfs(tree: Tree, journal: Journal) -> None:
    """With VFs on it, a PF below the bond that has the default route is not reset, unless the config allows it."""
    apply(make_config(2), tree.sysfs, journal)
    (tree.pci(PF) / "net/enp1s0/upper_eth9").mkdir()
    expect_refusal(tree, journal, make_config(1), "the host needs enp1s0 .*default route.*allowHostUplink")
    (entry,) = make_config(1).physical_functions
    apply(Config((replace(entry, allow_host_uplink=True),)), tree.sysfs, journal)
    assert len(take_snapshot(tree.sysfs).pfs[0].vfs) == 1


def test_a_vf_with_the_hosts_bond_on_it_keeps_its_driver(tree: Tree, journal: Journal) -> None:
    """The host uses a VF itself."""
    apply(make_config(2), tree.sysfs, journal)
    (tree.pci(vf_address(PF, 0)) / "net/v0110f0/upper_eth9").mkdir()
    expect_refusal(tree, journal, make_config(2, {"0": "vfio-pci"}), "the host: v0110f0 carries the default route")


PF2 = "0000:02:00.0"


def test_pfs_are_changed_apart(tree: Tree, journal: Journal) -> None:
    """One with a pod on it keeps what it has and is named; the other is done. All or nothing is one word away."""
    tree.add_pf(PF2, "enp2s0")
    apply(make_config(2), tree.sysfs, journal)
    attach(journal, vf_address(PF, 1))
    tree.log.clear()
    with pytest.raises(
        InUseError, match=r"nothing was changed:\n  enp1s0 VF 1 \(0000:01:10.2\) is used by pod default/red"
    ):
        apply(make_config(3), tree.sysfs, journal, all_or_nothing=True)
    assert tree.log == []
    with pytest.raises(
        InUseError, match=r"keep what they have; 7 steps done:\n  enp1s0 VF 1 \(0000:01:10.2\) is used by"
    ):
        apply(make_config(3), tree.sysfs, journal)
    assert [len(pf.vfs) for pf in take_snapshot(tree.sysfs).pfs] == [2, 3]


def test_who_the_kubelet_names_keeps_its_vf(tree: Tree, journal: Journal) -> None:
    """What PodResources says counts like the journal."""
    apply(make_config(2), tree.sysfs, journal)
    with pytest.raises(InUseError, match="used by pod a/b"):
        apply(make_config(3), tree.sysfs, journal, allocated=lambda: {vf_address(PF, 0): "pod a/b"})


def test_one_pf_fails_and_is_brought_back_and_the_other_is_done(
    tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second PF had one VF on vfio-pci with an MTU and a MAC of its own: all of that is there again."""
    tree.add_pf(PF2, "enp2s0")
    config = make_config(1, {"0": "vfio-pci"})
    apply(config, tree.sysfs, journal)
    before = take_snapshot(tree.sysfs).pfs[1]
    bind = tree.bind

    def refuse(address: str, driver: str) -> None:
        if address == vf_address(PF2, 2):
            raise KernelError("writing failed", errno=errno.EIO)
        bind(address, driver)

    monkeypatch.setattr(tree, "bind", refuse)
    reported: list[str] = []
    with pytest.raises(
        KernelError, match=r"enp2s0 VF 2: bind .* failed: .*EIO.*; enp2s0 was brought back to what it was"
    ):
        apply(make_config(3, {"0-2": "vfio-pci"}), tree.sysfs, journal, reported.append)
    first, second = take_snapshot(tree.sysfs).pfs
    assert [vf.driver for vf in first.vfs] == ["vfio-pci"] * 3
    assert PfState.of(second) == PfState.of(before)
    assert "enp2s0: undoing" in reported
    assert read_text(tree.pci(PF2) / "sriov_drivers_autoprobe") == "1"


def test_two_pfs_that_fail_are_both_told(tree: Tree, journal: Journal) -> None:
    """A driver that this machine does not have: nothing was changed at all."""
    tree.add_pf(PF2, "enp2s0")
    with pytest.raises(
        DeviceError, match=r"2 of 2 PFs failed:\n .*no_such.*enp1s0 is as it was.*\n.*enp2s0 is as it was"
    ):
        apply(make_config(1, {"0": "no_such_driver"}), tree.sysfs, journal)
    assert tree.log == []


def test_vfio_without_an_iommu_is_refused_before_anything_is_created(tree: Tree, journal: Journal) -> None:
    """The machine says that none is at work, and vfio was asked to go without; only the config's word counts."""
    (tree.root / "class/iommu").mkdir()
    asked = tree.root / "module/vfio/parameters/enable_unsafe_noiommu_mode"
    asked.parent.mkdir(parents=True)
    asked.write_text("Y")
    config = make_config(1, {"0": "vfio-pci"})
    with pytest.raises(DeviceError, match=r"no IOMMU group; enp1s0 is as it was before; switch the IOMMU on") as caught:
        apply(config, tree.sysfs, journal)
    assert "write noiommu: true into its range" in caught.value.hint
    assert tree.log == []
    (entry,) = config.physical_functions
    allowed = replace(entry, vfs=(replace(entry.vfs[0], noiommu=True),))
    apply(Config((allowed,)), tree.sysfs, journal)
    assert take_snapshot(tree.sysfs).pfs[0].vfs[0].driver == "vfio-pci"


def test_rates_and_given_macs_are_set_and_stay(tree: Tree, journal: Journal) -> None:
    """A rate is set after the PF's link is back, as igb wants it; a second apply has nothing to do."""
    text = """
physicalFunctions:
- select: {vendors: ["8086"]}
  numVfs: 3
  vfs:
  - {range: "0-1", driver: kernel, mac: ["02:00:00:00:AA:00", "02:00:00:00:aa:01"], maxTxRate: 500}
  - {range: "2", driver: vfio-pci, mac: {2: "02:00:00:00:aa:02"}, minTxRate: 0}
"""
    reported: list[str] = []
    apply(parse(text, "x"), tree.sysfs, journal, reported.append)
    found = [
        (vf.settings.mac[-2:], vf.settings.max_tx_rate) for vf in take_snapshot(tree.sysfs).pfs[0].vfs if vf.settings
    ]
    assert found == [("00", 500), ("01", 500), ("02", 0)]
    carrier, rate = reported.index("enp1s0: has carrier"), reported.index("enp1s0 VF 0: set min rate 0, max rate 500")
    assert (
        reported.index("enp1s0 VF 2: bind to vfio-pci")
        < rate
        < carrier
        < reported.index("enp1s0 VF 0: bind to its kernel driver")
    )
    assert apply(parse(text, "x"), tree.sysfs, journal).steps == ()
    changed = apply(parse(text.replace("AA:00", "bb:00").replace("500", "300"), "x"), tree.sysfs, journal).steps
    assert [str(step).partition(": ")[2] for step in changed] == [
        "set admin MAC 02:00:00:00:bb:00",
        "set min rate 0, max rate 300",
        "set min rate 0, max rate 300",
        "bind to igbvf again",
    ]


def test_a_step_that_hangs_is_reported(tree: Tree, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel keeps the write of sriov_numvfs for itself; what is waited for is reported until it comes back."""
    monkeypatch.setattr(change, "_SILENCE", 0.01)
    reported: list[str] = []
    let_go = threading.Event()

    def report(text: str) -> None:
        reported.append(text)
        if "not done after" in text:
            let_go.set()

    def write(path: Path, text: str) -> None:
        assert path.name != "sriov_numvfs" or let_go.wait(30)
        tree.write(path, text)

    monkeypatch.setattr(change, "write_text", write)
    apply(make_config(2), tree.sysfs, journal, report)
    assert any(line.startswith("enp1s0: create 2 VFs: not done after 0 s; a call that hangs") for line in reported)
    assert reported[-1].startswith("done")


def test_only_one_apply_is_at_work(tree: Tree, journal: Journal) -> None:
    """A second one is refused, not queued."""
    with claim_provisioning(journal), pytest.raises(InUseError, match="another apply or reset is at work"):
        apply(MIXED, tree.sysfs, journal)


def test_mtu_and_settings_come_with_the_vfs_and_are_verified(tree: Tree, journal: Journal) -> None:
    """The PF's MTU is raised first; VFs on their kernel driver get it; trust, spoofchk and VLAN are set once."""
    (entry,) = make_config(2, {"0": "kernel", "1": "vfio-pci"}).physical_functions
    vfs = tuple(replace(vf, trust=True, spoofchk=True, vlan=7) for vf in entry.vfs)
    config = Config((replace(entry, mtu=9000, vfs=vfs),))
    apply(config, tree.sysfs, journal)
    (pf,) = take_snapshot(tree.sysfs).pfs
    assert pf.netdev
    assert pf.netdev.mtu == 9000
    assert [vf.netdev.mtu if vf.netdev else None for vf in pf.vfs] == [9000, None]
    assert [(vf.settings.trust, vf.settings.vlan) for vf in pf.vfs if vf.settings] == [(True, 7)] * 2
    assert tree.log[0] == ("enp1s0", "mtu 9000")
    assert ("vf0", "spoofchk True") not in tree.log, "a new VF has it"
    assert apply(config, tree.sysfs, journal).steps == ()
    lower = Config((replace(entry, mtu=1500, vfs=vfs),))
    assert [str(step) for step in apply(lower, tree.sysfs, journal).steps] == [
        "enp1s0 VF 0 (0000:01:10.0): set MTU 1500"
    ]


def test_a_vf_can_be_left_without_a_driver(tree: Tree, journal: Journal) -> None:
    """`none` unbinds, and a new VF is not bound to anything."""
    apply(make_config(2, {"0": "none", "1": "vfio-pci"}), tree.sysfs, journal)
    apply(make_config(2, {"0-1": "none"}), tree.sysfs, journal)
    assert [vf.driver for vf in take_snapshot(tree.sysfs).pfs[0].vfs] == [None, None]


def test_the_macs_that_were_made_are_in_the_record(tree: Tree, journal: Journal) -> None:
    """So that they stay, whatever becomes of the PF's own MAC until the VFs are created again."""
    apply(make_config(2), tree.sysfs, journal)
    tree.permanent_macs["enp1s0"] = "02:00:00:00:00:77"
    before = len(tree.log)
    assert apply(make_config(2), tree.sysfs, journal).steps == ()
    assert len(tree.log) == before
    apply(make_config(3), tree.sysfs, journal)
    (pf,) = take_snapshot(tree.sysfs).pfs
    macs = [make_stable_mac("02:00:00:00:00:77", index) for index in range(3)]
    assert [vf.settings.mac for vf in pf.vfs if vf.settings] == macs
