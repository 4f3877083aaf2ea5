"""What the drivers of PFs can do with their VFs: one table, read from the sources of Linux 6.12, with the places.

It gives warnings and hints a reason. It refuses nothing: a vendor's own driver, another version or firmware may do more
or less, and the kernel's answer counts. Paths are below `drivers/net/ethernet/` unless they begin with another folder.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

SETTINGS = ("mac", "vlan", "qos", "vlan_proto", "min_tx_rate", "max_tx_rate", "spoofchk", "trust", "link_state")
"""Names of VfSettings, as they are set through a PF. `vlan_proto` means that 802.1ad is taken too."""


@dataclass(frozen=True, slots=True)
class Quirk:
    """A habit of a driver that people meet: what it concerns (names of SETTINGS, `vfs`, `driver`), and its source."""

    about: tuple[str, ...]
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Abilities:
    """One PF driver. `settings` is what it sets of a VF, `counters` whether it reports counters of VFs.

    `reports` is False when it cannot be asked what it has set (no ndo_get_vf_config). `source` has its operations. With
    `may_list_none` it may refuse that of all VFs, always. `bifurcated`: DPDK uses a VF through the kernel's driver
    (DPDK, doc/guides/linux_gsg/linux_drivers.rst). `ports`: a VF may have a netdev for each port of the NIC.
    """

    driver: str
    source: str
    settings: frozenset[str]
    counters: bool = False
    reports: bool = True
    may_list_none: bool = False
    most_vfs: int | None = None
    bifurcated: bool = False
    ports: bool = False
    quirks: tuple[Quirk, ...] = ()

    def list_lacking(self, names: Collection[str]) -> list[str]:
        """Which of these settings it does not take."""
        return [name for name in names if name in SETTINGS and name not in self.settings]

    def list_quirks(self, names: Collection[str]) -> Iterator[Quirk]:
        """Its habits that concern one of these."""
        return (quirk for quirk in self.quirks if not set(names).isdisjoint(quirk.about))


_ALL = frozenset(SETTINGS)
_NO_AD = _ALL - {"vlan_proto"}
_NO_MIN = _NO_AD - {"min_tx_rate"}
_NONE: frozenset[str] = frozenset()
_RATES = ("min_tx_rate", "max_tx_rate")

_TABLE = (
    Abilities(
        "igb",
        "intel/igb/igb_main.c, igb_netdev_ops",
        _NO_MIN - {"link_state"},
        most_vfs=7,
        quirks=(
            Quirk(
                ("mac",),
                "a VF takes an admin MAC over when its driver is bound",
                "intel/igb/igb_main.c, igb_ndo_set_vf_mac",
            ),
            Quirk(_RATES, "rates need the PF's link, and an 82576", "intel/igb/igb_main.c, igb_ndo_set_vf_bw"),
            Quirk(
                ("vfs",),
                "the PF loses its link for seconds when VFs are made",
                "intel/igb/igb_main.c, igb_enable_sriov",
            ),
        ),
    ),
    Abilities(
        "ixgbe",
        "intel/ixgbe/ixgbe_main.c, ixgbe_netdev_ops",
        _NO_MIN,
        counters=True,
        most_vfs=63,
        quirks=(
            Quirk(_RATES, "rates need a link of 10 Gbit/s", "intel/ixgbe/ixgbe_sriov.c, ixgbe_ndo_set_vf_bw"),
            Quirk(("vfs",), "no VFs with an XDP program on the PF", "intel/ixgbe/ixgbe_sriov.c, __ixgbe_enable_sriov"),
        ),
    ),
    Abilities(
        "i40e",
        "intel/i40e/i40e_main.c, i40e_netdev_ops",
        _NO_MIN,
        counters=True,
        quirks=(
            Quirk(
                SETTINGS, "a VF in reset answers EAGAIN", "intel/i40e/i40e_virtchnl_pf.c, i40e_check_vf_init_timeout"
            ),
            Quirk(("trust",), "no trust in MFP mode", "intel/i40e/i40e_virtchnl_pf.c, i40e_ndo_set_vf_trust"),
        ),
    ),
    Abilities(
        "ice",
        "intel/ice/ice_main.c, ice_netdev_ops",
        _ALL,
        counters=True,
        most_vfs=256,
        quirks=(
            Quirk(
                ("vlan_proto",),
                "802.1ad in double VLAN mode only",
                "intel/ice/ice_sriov.c, ice_is_supported_port_vlan_proto",
            ),
            Quirk(("trust",), "no trust in switchdev mode", "intel/ice/ice_sriov.c, ice_set_vf_trust"),
            Quirk(
                ("min_tx_rate",),
                "the sum of minimum rates is the link's speed at most",
                "intel/ice/ice_sriov.c, ice_set_vf_bw",
            ),
            Quirk(("vfs",), "no VFs in safe mode, without a DDP package", "intel/ice/ice_sriov.c, ice_sriov_configure"),
        ),
    ),
    Abilities("idpf", "intel/idpf/idpf_lib.c, idpf_netdev_ops", _NONE, reports=False),
    Abilities(
        "fm10k",
        "intel/fm10k/fm10k_netdev.c, fm10k_netdev_ops",
        frozenset({"mac", "vlan", "max_tx_rate"}),
        counters=True,
        quirks=(
            Quirk(
                ("min_tx_rate",),
                "a minimum rate is accepted and ignored",
                "intel/fm10k/fm10k_iov.c, fm10k_ndo_set_vf_bw",
            ),
            Quirk(("qos",), "a port VLAN with a priority is refused", "intel/fm10k/fm10k_iov.c, fm10k_ndo_set_vf_vlan"),
        ),
    ),
    Abilities(
        "mlx4_core",
        "mellanox/mlx4/en_netdev.c, mlx4_netdev_ops_master",
        _ALL - {"min_tx_rate", "trust"},
        counters=True,
        bifurcated=True,
        ports=True,
        quirks=(
            Quirk(
                ("mac",),
                "a VF takes an admin MAC over when its driver is bound",
                "mellanox/mlx4/cmd.c, mlx4_set_vf_mac",
            ),
            Quirk(("max_tx_rate",), "a rate holds with a port VLAN only", "mellanox/mlx4/cmd.c, mlx4_set_vf_rate"),
            Quirk(("spoofchk",), "no spoofchk without a MAC", "mellanox/mlx4/cmd.c, mlx4_set_vf_spoofchk"),
        ),
    ),
    Abilities(
        "mlx5_core",
        "mellanox/mlx5/core/en_main.c, mlx5e_netdev_ops",
        _NO_AD,
        counters=True,
        bifurcated=True,
        may_list_none=True,  # mellanox/mlx5/core/eswitch.c, mlx5_eswitch_get_vport
        quirks=(
            Quirk(
                ("vlan", "trust", "spoofchk"),
                "in switchdev mode a representor's bridge or tc does it",
                "mellanox/mlx5/core/esw/legacy.c, mlx5_eswitch_set_vport_trust",
            ),
            Quirk(
                SETTINGS,
                "EPERM where the e-switch is another's, as on the host of a DPU",
                "mellanox/mlx5/core/eswitch.c, mlx5_eswitch_get_vport",
            ),
            Quirk(
                ("vfs",),
                "the firmware says how many VFs there can be (SRIOV_EN, NUM_OF_VFS)",
                "mellanox/mlx5/core/sriov.c",
            ),
        ),
    ),
    Abilities(
        "bnxt_en",
        "broadcom/bnxt/bnxt.c, bnxt_netdev_ops",
        _ALL,
        quirks=(
            Quirk(
                ("vfs",),
                "sriov_numvfs does nothing while the PF is down, and reports success",
                "broadcom/bnxt/bnxt_sriov.c, bnxt_sriov_configure",
            ),
            Quirk(_RATES, "rates need the PF's link", "broadcom/bnxt/bnxt_sriov.c, bnxt_set_vf_bw"),
            Quirk(("vlan_proto",), "802.1ad with newer firmware only", "broadcom/bnxt/bnxt_sriov.c, bnxt_set_vf_vlan"),
        ),
    ),
    Abilities(
        "bnx2x",
        "broadcom/bnx2x/bnx2x_main.c, bnx2x_netdev_ops",
        frozenset({"mac", "vlan", "qos", "spoofchk", "link_state"}),
    ),
    Abilities(
        "enic",
        "cisco/enic/enic_main.c, enic_netdev_ops",
        frozenset({"mac"}),
        reports=False,
        quirks=(
            Quirk(
                ("vfs",),
                "the adapter's firmware makes the VFs when the PF is probed",
                "cisco/enic/enic_main.c, enic_probe",
            ),
        ),
    ),
    Abilities(
        "be2net",
        "emulex/benet/be_main.c, be_netdev_ops",
        _NO_MIN - {"trust"},
        quirks=(
            Quirk(
                ("max_tx_rate",), "100 Mbit/s at least, with a link only", "emulex/benet/be_main.c, be_set_vf_tx_rate"
            ),
        ),
    ),
    Abilities("qede", "qlogic/qede/qede_main.c, qede_netdev_ops", _NO_AD - {"qos"}),
    Abilities("qlcnic", "qlogic/qlcnic/qlcnic_main.c, qlcnic_netdev_ops", _NO_AD - {"trust", "link_state"}),
    Abilities(
        "cxgb4",
        "chelsio/cxgb4/cxgb4_main.c, cxgb4_mgmt_netdev_ops",
        frozenset({"mac", "vlan", "max_tx_rate", "link_state"}),
        ports=True,
        quirks=(
            Quirk(
                SETTINGS,
                "settings go to the netdev mgmtpfN,M of PF 0 to 3, which is there once there are VFs",
                "chelsio/cxgb4/cxgb4_main.c, cxgb4_iov_configure",
            ),
        ),
    ),
    Abilities(
        "LiquidIO",
        "cavium/liquidio/lio_main.c, lionetdevops",
        frozenset({"mac", "vlan", "qos", "spoofchk", "trust", "link_state"}),
        counters=True,
    ),
    Abilities("octeon_ep", "marvell/octeon_ep/octep_main.c, octep_netdev_ops", _NONE, reports=False),
    Abilities(
        "rvu_nicpf",
        "marvell/octeontx2/nic/otx2_pf.c, otx2_netdev_ops",
        frozenset({"mac", "vlan", "trust"}),
        quirks=(
            Quirk(("mac", "vlan"), "EAGAIN while the PF is down", "marvell/octeontx2/nic/otx2_pf.c, otx2_set_vf_mac"),
        ),
    ),
    Abilities(
        "nfp",
        "netronome/nfp/nfp_net_common.c, nfp_nfd3_netdev_ops",
        _ALL,
        quirks=(
            Quirk(SETTINGS, "the firmware says what it takes", "netronome/nfp/nfp_net_sriov.c, nfp_net_sriov_check"),
        ),
    ),
    Abilities("hns3", "hisilicon/hns3/hns3_enet.c, hns3_nic_netdev_ops", _NO_MIN),
    Abilities(
        "hinic",
        "huawei/hinic/hinic_main.c, hinic_netdev_ops",
        _NO_AD,
        quirks=(
            Quirk(_RATES, "rates need the PF's link", "huawei/hinic/hinic_sriov.c, hinic_ndo_set_vf_bw"),
            Quirk(("spoofchk",), "with newer firmware only", "huawei/hinic/hinic_sriov.c, hinic_ndo_set_vf_spoofchk"),
        ),
    ),
    Abilities("sfc", "sfc/efx.c, efx_netdev_ops", frozenset({"mac", "vlan", "qos", "spoofchk", "link_state"})),
    Abilities(
        "ionic",
        "pensando/ionic/ionic_lif.c, ionic_netdev_ops",
        _NO_MIN - {"qos"},
        counters=True,
        quirks=(Quirk(SETTINGS, "EBUSY while the firmware is reset", "pensando/ionic/ionic_lif.c, ionic_set_vf_mac"),),
    ),
    Abilities("pds_core", "amd/pds_core/main.c, pdsc_sriov_configure", _NONE, reports=False),
    Abilities(
        "funeth",
        "fungible/funeth/funeth_main.c, fun_netdev_ops",
        frozenset({"mac", "vlan", "qos", "vlan_proto", "max_tx_rate"}),
    ),
    Abilities(
        "fsl_enetc",
        "freescale/enetc/enetc_pf.c, enetc_ndev_ops",
        frozenset({"mac", "vlan", "qos", "spoofchk"}),
        reports=False,
    ),
    Abilities("ena", "amazon/ena/ena_netdev.c, ena_pci_driver", _NONE, reports=False),
    Abilities(
        "virtio-pci",
        "drivers/virtio/virtio_pci_common.c, virtio_pci_sriov_configure",
        _NONE,
        reports=False,
        quirks=(Quirk(("driver",), "the netdev is below the function's virtioN", "drivers/virtio/virtio.c"),),
    ),
    Abilities(
        "hv_netvsc",
        "drivers/net/hyperv/netvsc_drv.c, netvsc_vf_join",
        _NONE,
        reports=False,
        quirks=(
            Quirk(
                ("driver",),
                "a VM sees the VF alone, and a synthetic netdev on top of it with the same MAC: the host needs both",
                "drivers/net/hyperv/netvsc_drv.c, netvsc_register_vf",
            ),
        ),
    ),
)

TABLE = {one.driver: one for one in _TABLE}
"""All drivers of the table, by their names in `/sys/bus/pci/drivers`."""


def may_list_none(driver: str | None) -> bool:
    """Whether a PF driver that lists none of its VFs may do so always; of one that is not known, it may."""
    found = TABLE.get(driver or "")
    return found is None or found.may_list_none


BIFURCATED = frozenset(one.driver for one in _TABLE if one.bifurcated)


def list_wanted(values: Mapping[str, object]) -> list[str]:
    """Names of settings that ask a driver for something: not what is off, zero, or what every driver has."""
    return [name for name, value in values.items() if value and (name, value) != ("vlan_proto", "802.1Q")]


def list_doubts(driver: str | None, names: Collection[str]) -> Iterator[str]:
    """What of these settings a PF driver may not take, a sentence each with the source; none for an unknown driver."""
    found = TABLE.get(driver or "")
    if found is None:
        return
    if lacking := found.list_lacking(names):
        yield f"by its source {driver} does not take {', '.join(lacking)} ({found.source}, Linux 6.12)"
    for quirk in found.list_quirks(set(names) - set(lacking)):
        yield f"with {driver} {quirk.text} ({quirk.source})"
