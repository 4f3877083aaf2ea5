"""Stable MACs of VFs whose PFs have one MAC, as a bond gives one to all its members."""

from dataclasses import replace

from sriovdp.config.file import parse
from sriovdp.model import NetDevice, Node, PciAddress, PhysicalFunction, VfSettings, VirtualFunction
from sriovdp.provision.plan import plan
from sriovdp.provision.settings import make_stable_mac
from sriovdp.provision.steps import SetAdminMac

BOND_MAC = "b4:96:91:00:00:10"


def make_bonded(name: str, number: int, mac: str, *vf_macs: str) -> PhysicalFunction:
    """A PF whose netdev has a MAC now, and another one of its own."""
    netdev = NetDevice(name, 2 + number, mac, 1500, up=True, carrier=True, permanent_mac=f"b4:96:91:00:00:1{number}")
    address = PciAddress(f"0000:3b:00.{number}")
    vfs = tuple(
        VirtualFunction(
            PciAddress(f"0000:3b:1{number}.{index}"),
            address,
            index,
            "8086",
            "1889",
            "iavf",
            settings=VfSettings(vf_mac),
            netdev=NetDevice(f"{name}v{index}", 100 + 10 * number + index, vf_mac, 1500, up=False, carrier=None),
        )
        for index, vf_mac in enumerate(vf_macs)
    )
    return PhysicalFunction(address, "8086", "1592", "ice", netdev=netdev, total_vfs=8, vfs=vfs)


def bonded(mac_0: str, mac_1: str, macs: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())) -> Node:
    """Two PFs of one bond, or of what will be one."""
    return Node((make_bonded("ens1f0", 0, mac_0, *macs[0]), make_bonded("ens1f1", 1, mac_1, *macs[1])))


TWO = parse("physicalFunctions: [{select: {vendors: ['8086']}, numVfs: 2}]", "test")


def test_vfs_of_bonded_pfs_have_macs_of_their_own() -> None:
    """From the permanent MACs, so that the plan is the same before and after the bond is up."""
    up = plan(TWO, bonded(BOND_MAC, BOND_MAC)).steps
    assert up == plan(TWO, bonded(BOND_MAC, "b4:96:91:00:00:11")).steps
    macs = [step.wanted for step in up if isinstance(step, SetAdminMac)]
    assert macs == [make_stable_mac(f"b4:96:91:00:00:1{pf}", index) for pf in (0, 1) for index in (0, 1)]
    assert len(set(macs)) == 4


def test_stable_macs_that_were_made_stay_until_the_vf_is_new() -> None:
    """From the bond's MAC while the bond is up, and by the record when it is not; twins are named."""
    made = tuple(make_stable_mac(BOND_MAC, index) for index in range(2))
    up = plan(TWO, bonded(BOND_MAC, BOND_MAC, (made, made)))
    assert up.steps == ()
    assert [text for text in up.warnings if f"ens1f1 VF 0 (0000:3b:11.0) has the MAC {made[0]} of ens1f0 VF 0" in text]
    down = bonded(BOND_MAC, "b4:96:91:00:00:11", (made, made))
    record = {PciAddress("0000:3b:00.1"): dict(enumerate(made))}
    assert plan(TWO, down, made=record).steps == ()
    foreign = ("02:00:00:00:00:07", made[1])
    steps = plan(TWO, bonded(BOND_MAC, BOND_MAC, (made, foreign))).steps
    assert [step.index for step in steps if isinstance(step, SetAdminMac)] == [0]
    more = parse("physicalFunctions: [{select: {vendors: ['8086']}, numVfs: 3}]", "test")
    macs = [step.wanted for step in plan(more, down, made=record).steps if isinstance(step, SetAdminMac)]
    assert len(set(macs)) == 6


def test_pfs_with_one_mac_are_told_apart_where_no_permanent_one_is_known() -> None:
    """As in a team whose driver does not report it; VFs that are there keep theirs."""

    def forget(node: Node) -> Node:
        pfs = (replace(pf, netdev=replace(pf.netdev, permanent_mac="")) for pf in node.pfs if pf.netdev)
        return Node(tuple(pfs))

    macs = [s.wanted for s in plan(TWO, forget(bonded(BOND_MAC, BOND_MAC))).steps if isinstance(s, SetAdminMac)]
    assert len(set(macs)) == 4
    made = tuple(make_stable_mac(BOND_MAC, index) for index in range(2))
    assert plan(TWO, forget(bonded(BOND_MAC, BOND_MAC, (made, made)))).steps == ()
