"""Plan: which steps lead from a node to its config."""

import re
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sriovdp.config.macs import MacPolicy
from sriovdp.config.ranges import VfIndices
from sriovdp.config.values import Config, PfConfig, PfSelect, VfConfig
from sriovdp.errors import DeviceError
from sriovdp.model import NetDevice, Node, PciAddress, PhysicalFunction, Traits, VfSettings, VirtualFunction
from sriovdp.provision.plan import Leftovers, plan
from sriovdp.provision.settings import make_stable_guid, make_stable_mac

PF_MAC = "52:54:00:aa:00:01"
PF_NETDEV = NetDevice("enp1s0", 2, PF_MAC, 1500, up=True, carrier=True)
PF = PhysicalFunction(PciAddress("0000:01:00.0"), "8086", "10c9", "igb", 0, PF_NETDEV, 7)
STABLE = [make_stable_mac(PF_MAC, index) for index in range(7)]
ZERO = "00:00:00:00:00:00"
MAC = "02:00:00:00:00:55"


def make_node(*vfs: tuple[str | None, str], pf: PhysicalFunction = PF, netdev_mac: str | None = None) -> Node:
    """A node with one PF and VFs of (driver, admin MAC); a VF on igbvf has a netdev that is down."""
    return Node((replace(pf, vfs=tuple(_make_vf(index, *vf, netdev_mac) for index, vf in enumerate(vfs))),))


def _make_vf(index: int, driver: str | None, mac: str, netdev_mac: str | None) -> VirtualFunction:
    device = NetDevice(f"v{index}", 10 + index, netdev_mac or mac, 1500, up=False, carrier=None)
    return VirtualFunction(
        PciAddress(f"0000:01:10.{index}"),
        PF.address,
        index,
        "8086",
        "10ca",
        driver,
        netdev=device if driver == "igbvf" else None,
        settings=VfSettings(mac),
    )


def make_config(num_vfs: int | Literal["max"], *vfs: tuple[str, str, MacPolicy]) -> Config:
    """A config for the PF with ranges of (indices, driver, mac)."""
    ranges = tuple(VfConfig(VfIndices.parse(indices), driver, mac) for indices, driver, mac in vfs)
    return Config((PfConfig(PfSelect(pf_names=("enp1s0",)), num_vfs, ranges),))


def list_steps(config: Config, node: Node, attached: tuple[str, ...] = ()) -> list[str]:
    """The steps, less the PF's name."""
    return [str(step).removeprefix("enp1s0").removeprefix(": ").strip() for step in plan(config, node, attached).steps]


FRESH = [
    "create 2 VFs",
    f"VF 0: set admin MAC {STABLE[0]}",
    "VF 1: bind to vfio-pci",
    "VF 0: bind to its kernel driver",
]
CASES = {
    "from nothing: number, MACs, drivers that need no link of the PF, the others": (
        make_config(2, ("1", "vfio-pci", "keep")),
        make_node(),
        FRESH,
    ),
    "as it should be": (make_config(1), make_node(("igbvf", STABLE[0])), []),
    "kernel is any driver that is not for user space": (make_config(1), make_node(("iavf", STABLE[0])), []),
    "another driver, the right MAC": (
        make_config(1, ("0", "vfio-pci", "stable")),
        make_node(("igbvf", STABLE[0])),
        ["VF 0 (0000:01:10.0): bind to vfio-pci"],
    ),
    "no driver": (
        make_config(1),
        make_node((None, STABLE[0])),
        ["VF 0 (0000:01:10.0): bind to its kernel driver"],
    ),
    "vfio-pci when it should be in the kernel": (
        make_config(1),
        make_node(("vfio-pci", STABLE[0])),
        ["VF 0 (0000:01:10.0): bind to its kernel driver"],
    ),
    "a new MAC needs a kernel driver to be bound again": (
        make_config(1),
        make_node(("igbvf", ZERO)),
        [f"VF 0 (0000:01:10.0): set admin MAC {STABLE[0]}", "VF 0 (0000:01:10.0): bind to igbvf again"],
    ),
    "a new MAC needs no new binding of vfio-pci": (
        make_config(1, ("0", "vfio-pci", "stable")),
        make_node(("vfio-pci", ZERO)),
        [f"VF 0 (0000:01:10.0): set admin MAC {STABLE[0]}"],
    ),
    "the MAC was set, then power was lost before the driver was bound again": (
        make_config(1),
        make_node(("igbvf", STABLE[0]), netdev_mac="02:00:00:00:00:99"),
        ["VF 0 (0000:01:10.0): bind to igbvf again"],
    ),
    "keep keeps even a MAC of zeros": (make_config(1, ("0", "kernel", "keep")), make_node(("igbvf", ZERO)), []),
    "another number: all VFs go first": (
        make_config(2, ("0-1", "kernel", "keep")),
        make_node(("vfio-pci", ZERO)),
        ["remove its 1 VF and create 2 VFs", "VF 0: bind to its kernel driver", "VF 1: bind to its kernel driver"],
    ),
    "no VFs any more": (make_config(0), make_node(("igbvf", ZERO)), ["remove its 1 VF"]),
    "a PF that is down is set up first": (
        make_config(1, ("0", "igb_uio", "keep")),
        make_node(pf=replace(PF, netdev=NetDevice("enp1s0", 2, PF_MAC, 1500, up=False, carrier=None))),
        ["set the link up", "create 1 VF", "VF 0: bind to igb_uio"],
    ),
    "a PF that is not in the config is left alone": (Config(), make_node(("vfio-pci", ZERO)), []),
}


@pytest.mark.parametrize(("config", "node", "steps"), CASES.values(), ids=CASES.keys())
def test_plan(config: Config, node: Node, steps: list[str]) -> None:
    """The steps are these, in this order, and each has its reason."""
    assert list_steps(config, node) == steps
    todo = plan(config, node)
    assert todo.is_empty == (not steps)
    assert all(step.reason for step in todo.steps)


def test_a_mac_of_an_attached_vf_is_the_pods_business() -> None:
    """An agent that starts again while a pod has its own MAC plans nothing; a wrong driver is still reported."""
    node = make_node(("igbvf", "02:11:22:33:44:55"))
    assert list_steps(make_config(1), node, ("0000:01:10.0",)) == []
    dpdk = make_config(1, ("0", "vfio-pci", "stable"))
    assert list_steps(dpdk, node, ("0000:01:10.0",)) == ["VF 0 (0000:01:10.0): bind to vfio-pci"]


def test_a_netdev_that_is_up_keeps_its_own_mac() -> None:
    """Somebody on the host uses the VF: the difference between netdev and admin MAC is no reason to unbind it."""
    node = make_node(("igbvf", STABLE[0]), netdev_mac="02:00:00:00:00:99")
    (vf,) = node.pfs[0].vfs
    assert vf.netdev
    used = replace(vf, netdev=replace(vf.netdev, up=True))
    assert list_steps(make_config(1), Node((replace(PF, vfs=(used,)),))) == []


def test_max_is_all_that_the_nic_has() -> None:
    """The word max becomes total_vfs."""
    assert list_steps(make_config("max"), make_node())[0] == "create 7 VFs"


@pytest.mark.parametrize(
    ("num_vfs", "total", "message"),
    [
        (
            64,
            7,
            r"enp1s0 \(0000:01:00.0\): splitting into 64 VFs failed: it can have at most 7; write numVfs: 7 or max",
        ),
        (1, 0, "its driver igb offers no SR-IOV; switch SR-IOV on in the machine's and the NIC's firmware"),
        ("max", 0, "offers no SR-IOV"),
    ],
)
def test_more_vfs_than_the_nic_has_is_an_error(num_vfs: int, total: int, message: str) -> None:
    """The error names the PF, the limit, and the firmware; another PF is planned all the same."""
    other = replace(PF, address=PciAddress("0000:02:00.0"), netdev=replace(PF_NETDEV, name="enp2s0", mac=MAC))
    entries = (*make_config(num_vfs).physical_functions, PfConfig(PfSelect(pf_names=("enp2s0",)), 1))
    todo = plan(Config(entries), Node((replace(PF, total_vfs=total), other)))
    assert todo.faults.keys() == {PF.address}
    assert re.search(message, todo.faults[PF.address])
    assert todo.pfs.keys() == {other.address}
    assert not plan(make_config(num_vfs), Node((replace(PF, total_vfs=total),))).is_empty


def test_what_the_config_says_in_vain_is_a_warning() -> None:
    """An entry without PF, an entry whose PF is taken, a range beyond max, a PF without netdev."""
    nowhere = PfConfig(PfSelect(vendors=("15b3",), devices=("101d", "1017")), 4)
    all_intel = PfConfig(PfSelect(vendors=("8086",)), "max", (VfConfig(VfIndices.parse("6-8")),))
    again = PfConfig(PfSelect(pci_addresses=(PF.address,)), 0)
    config = Config((nowhere, all_intel, again))
    assert plan(config, make_node()).warnings == (
        "enp1s0 has no VF 8 of range 6-8: it gets 7 VFs",
        "physicalFunctions[0] (vendors 15b3, devices 101d or 1017): no PF of this node matches",
        "physicalFunctions[2] (pciAddresses 0000:01:00.0): an earlier entry has every PF that it matches",
    )
    nameless = plan(Config((replace(all_intel, num_vfs=1, vfs=()),)), Node((replace(PF, netdev=None),)))
    assert "the PF has no netdev here" in nameless.warnings[0]
    assert [step.action for step in nameless.steps] == ["set_num_vfs", "bind_driver"]


def test_a_stable_mac_is_this_one() -> None:
    """Nodes in service depend on these very bytes; the spelling of the PF's MAC does not matter."""
    assert make_stable_mac("52:54:00:aa:00:01", 0) == make_stable_mac("52:54:00:AA:00:01", 0) == "ee:e1:d4:39:88:2a"


@given(st.binary(min_size=6, max_size=6), st.integers(0, 255))
def test_a_stable_mac_is_local_and_unicast(pf_mac: bytes, index: int) -> None:
    """For any PF and index: bit 1 of the first byte is set, bit 0 is not; the neighbour has another one."""
    mac = make_stable_mac(pf_mac.hex(":"), index)
    assert int(mac[:2], 16) & 3 == 2
    assert len(mac.split(":")) == 6
    assert mac != make_stable_mac(pf_mac.hex(":"), index + 1)


def test_vfs_of_others_are_only_dressed() -> None:
    """Externally managed: no number, no MTU and no link of the PF is changed, and too few VFs are reported."""
    (entry,) = make_config(3, ("0-2", "vfio-pci", "keep")).physical_functions
    down = replace(PF, netdev=NetDevice("enp1s0", 2, PF_MAC, 1500, up=False, carrier=None))
    config = Config((replace(entry, externally_managed=True, mtu=9000),))
    node = make_node(("igbvf", STABLE[0]), pf=down)
    assert list_steps(config, node) == ["VF 0 (0000:01:10.0): bind to vfio-pci"]
    assert plan(config, node).warnings == (
        "enp1s0 has 1 VFs, numVfs is 3, and externallyManaged leaves it to others to create them",
    )


def test_a_bifurcated_driver_keeps_its_vfs() -> None:
    """DPDK works through mlx5_core: its VFs stay in the kernel, and the plan says why."""
    mellanox = replace(PF, driver="mlx5_core", vendor="15b3")
    config = make_config(1, ("0", "vfio-pci", "keep"))
    node = make_node(("mlx5_core", ZERO), pf=mellanox)
    netdev = NetDevice("v0", 10, ZERO, 1500, up=False, carrier=None)
    node = Node((replace(node.pfs[0], vfs=(replace(node.pfs[0].vfs[0], netdev=netdev),)),))
    assert list_steps(config, node) == []
    assert "mlx5_core is bifurcated, DPDK uses a VF through it" in plan(config, node).warnings[0]
    assert list_steps(config, make_node(pf=mellanox)) == ["create 1 VF", "VF 0: bind to its kernel driver"]


def test_given_macs_are_for_one_pf() -> None:
    """The same MAC on two PFs would be two stations of one name."""
    other = replace(PF, address=PciAddress("0000:02:00.0"))
    vfs = (VfConfig(VfIndices.parse("0"), mac={0: MAC}),)
    config = Config((PfConfig(PfSelect(vendors=("8086",)), 1, vfs),))
    assert str(plan(config, Node((PF,))).steps[1]) == f"enp1s0 VF 0: set admin MAC {MAC}"
    with pytest.raises(
        DeviceError, match=r"would have the same MACs: one entry .* selects both; write an entry for each"
    ):
        plan(config, Node((PF, other)))


IB = replace(
    PF,
    vendor="15b3",
    driver="mlx5_core",
    traits=Traits(link_type="infiniband", guid="08:c0:eb:03:00:a1:b2:c4"),
)


def test_an_infiniband_vf_gets_a_guid_and_no_mac() -> None:
    """A new VF before its driver; a bound one without GUID, whose driver is bound again; one with a GUID keeps it."""
    config = make_config(1)
    guid = make_stable_guid("08:C0:EB:03:00:A1:B2:C4", 0)
    assert list_steps(config, make_node(pf=IB)) == [
        "create 1 VF",
        f"VF 0: set GUID {guid}",
        "VF 0: bind to its kernel driver",
    ]
    node = make_node(("igbvf", ZERO), pf=IB)
    (vf,) = node.pfs[0].vfs

    def look(node_guid: str | None) -> list[str]:
        settings = VfSettings(ZERO, node_guid=node_guid, port_guid=node_guid and guid)
        return list_steps(config, Node((replace(IB, vfs=(replace(vf, settings=settings),)),)))

    place = "VF 0 (0000:01:10.0)"
    assert look("00:00:00:00:00:00:00:00") == [f"{place}: set GUID {guid}", f"{place}: bind to igbvf again"]
    assert look("02:11:22:33:44:55:66:77") == []
    assert look(None) == [], "its driver looks after GUIDs"
    given = Config((replace(config.physical_functions[0], vfs=(VfConfig(VfIndices.parse("0"), mac={0: MAC}),)),))
    assert plan(given, node).warnings == (
        "enp1s0 is InfiniBand: its VFs get GUIDs, the MACs of the config have no effect",
    )


def test_a_stable_guid_is_this_one() -> None:
    """Subnet managers know nodes by these very bytes; it is local, of one station, and the neighbour's is another."""
    guids = [make_stable_guid("08:c0:eb:03:00:a1:b2:c4", index) for index in range(64)]
    assert guids[0] == "3e:ad:91:9d:4b:0b:8a:30"
    assert len(set(guids)) == 64
    assert {int(guid[:2], 16) & 3 for guid in guids} == {2}


@pytest.mark.parametrize(
    ("wish", "now", "changes"),
    [
        ({"max_tx_rate": 500}, {}, "min rate 0, max rate 500"),
        ({"max_tx_rate": 500}, {"max_tx_rate": 500}, ""),
        ({"max_tx_rate": 500}, {"min_tx_rate": 10}, "min rate 10, max rate 500"),
        ({"min_tx_rate": 10}, {"max_tx_rate": 500}, "min rate 10, max rate 500"),
        ({"min_tx_rate": 0, "max_tx_rate": 0}, {"max_tx_rate": 500}, "min rate 0, max rate 0"),
        ({}, {"max_tx_rate": 500}, ""),
    ],
)
def test_rates_are_set_together(wish: dict[str, int], now: dict[str, int], changes: str) -> None:
    """The kernel takes both; one that the config does not name stays."""
    (entry,) = make_config(1).physical_functions
    vfs = (
        VfConfig(
            VfIndices.parse("0"), mac="keep", min_tx_rate=wish.get("min_tx_rate"), max_tx_rate=wish.get("max_tx_rate")
        ),
    )
    (vf,) = make_node(("igbvf", ZERO)).pfs[0].vfs
    settings = VfSettings(ZERO, min_tx_rate=now.get("min_tx_rate", 0), max_tx_rate=now.get("max_tx_rate", 0))
    node = Node((replace(PF, vfs=(replace(vf, settings=settings),)),))
    reported = [f"VF 0 (0000:01:10.0): set {changes}"] if changes else []
    assert list_steps(Config((replace(entry, vfs=vfs),)), node) == reported


def test_a_vf_without_iommu_that_nobody_allowed_is_reported() -> None:
    """It works, and its user can write to all memory."""
    node = make_node(("vfio-pci", STABLE[0]))
    vf = replace(node.pfs[0].vfs[0], traits=Traits(noiommu=True))
    unsafe = Node((replace(PF, vfs=(vf,)),))
    config = make_config(1, ("0", "vfio-pci", "stable"))
    (reported,) = plan(config, unsafe).warnings
    assert reported == "enp1s0 VF 0 (0000:01:10.0) is on vfio-pci without an IOMMU, and no noiommu: true allows that"
    (entry,) = config.physical_functions
    allowed = Config((replace(entry, vfs=(replace(entry.vfs[0], noiommu=True),)),))
    assert plan(allowed, unsafe).warnings == ()


def test_switchdev_is_reported_with_its_representors() -> None:
    """Whoever looks for VF settings has to know."""
    (vf,) = make_node(("igbvf", STABLE[0])).pfs[0].vfs
    node = Node((replace(PF, switchdev=True, vfs=(replace(vf, representor="enp1s0_0"),)),))
    assert plan(make_config(1), node).warnings == ("enp1s0 is in switchdev mode; representors of its VFs: enp1s0_0",)


def test_what_an_interrupted_apply_left_is_put_right() -> None:
    """Autoprobe as it was and no driver_override, also on a PF that the config does not name any more."""
    node = make_node(("vfio-pci", STABLE[0]), pf=replace(PF, autoprobe=False))
    address = node.pfs[0].vfs[0].address
    left = {PF.address: Leftovers(autoprobe=True, overrides=frozenset({address}))}
    reported = ["enp1s0 VF 0 (0000:01:10.0): clear driver_override", "enp1s0: switch drivers' autoprobe on"]
    assert [str(step) for step in plan(Config(), node, leftovers=left).steps] == reported
    mends = [str(step) for step in plan(make_config(1), node, leftovers=left).steps]
    assert mends == ["enp1s0 VF 0 (0000:01:10.0): bind to its kernel driver", reported[1]]
    assert plan(Config(), make_node(pf=PF), leftovers={PF.address: Leftovers(autoprobe=True)}).is_empty


def test_a_vf_whose_netdev_is_elsewhere_keeps_its_settings() -> None:
    """Somebody's container has it, known to us or not: MAC and trust are its business; a wrong driver is reported."""
    node = make_node(("igbvf", "02:11:22:33:44:55"))
    elsewhere = Node((replace(PF, vfs=(replace(node.pfs[0].vfs[0], netdev=None, is_elsewhere=True),)),))
    assert list_steps(make_config(1), elsewhere) == []
    dpdk = make_config(1, ("0", "vfio-pci", "stable"))
    assert list_steps(dpdk, elsewhere) == ["VF 0 (0000:01:10.0): bind to vfio-pci"]
