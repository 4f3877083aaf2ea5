"""Checks of PFs: link, bond, MTU, e-switch, and what their drivers can do of what the config wants."""

from collections.abc import Iterator

from sriovdp.config.values import VfConfig
from sriovdp.doctor.check import Finding, SkipError, check, fail, ok, warn
from sriovdp.doctor.examined import Examined, name_pf, name_vf_of
from sriovdp.kernel.abilities import TABLE, list_wanted
from sriovdp.model import PhysicalFunction
from sriovdp.node.recording import read_facts

_PACKAGE = "/lib/firmware/intel/ice/ddp/"
_SETTINGS = ("vlan", "qos", "vlan_proto", "min_tx_rate", "max_tx_rate", "spoofchk", "trust", "link_state")
_DEAF_WHEN_DOWN = {
    "bnxt_en": "sriov_numvfs does nothing and reports success",  # broadcom/bnxt/bnxt_sriov.c, bnxt_sriov_configure
    "rvu_nicpf": "MAC and VLAN of VFs cannot be set",  # marvell/octeontx2/nic/otx2_pf.c, otx2_set_vf_mac
}
_RATES_NEED_LINK = frozenset({"igb", "ixgbe", "bnxt_en", "be2net", "hinic", "cxgb4"})


@check("pf-driver", "pf", "intel/ice/ice_sriov.c, ice_sriov_configure; drivers/vfio/pci/vfio_pci.c")
def check_driver(examined: Examined) -> Iterator[Finding]:
    """The driver of each PF can make VFs now: it has its firmware package, and is not vfio-pci."""
    recorded = examined.view.is_live or read_facts(examined.view.sysfs).is_recorded
    for pf in examined.sriov_pfs():
        if pf.driver == "ice" and recorded and not pf.traits.ddp_profile:
            package = "" if examined.view.names(_PACKAGE, "pkg") else f": {_PACKAGE}ice.pkg is missing"
            yield fail(
                f"{name_pf(pf)}: ice runs in safe mode, without a DDP package{package}: it makes no VFs",
                "install linux-firmware (firmware-misc-nonfree), in the initramfs too, and reboot",
            )
        elif pf.driver == "vfio-pci" and not pf.vfs:
            yield fail(f"{name_pf(pf)}: the PF is on vfio-pci, which makes no VFs", "bind it to its own driver")


@check("pf-link", "pf", "broadcom/bnxt/bnxt_sriov.c, bnxt_sriov_configure; Documentation/networking/operstates.rst")
def check_link(examined: Examined) -> Iterator[Finding]:
    """PFs with VFs are up and have a link."""
    if not any(pf.netdev for pf in examined.sriov_pfs()):
        raise SkipError("no PF with VFs has a netdev here")
    wanted = {pf.address for pf, entry in examined.entries() if entry.num_vfs != 0}
    for pf in examined.sriov_pfs():
        if pf.netdev is None or not (pf.vfs or pf.address in wanted):
            continue
        deaf = _DEAF_WHEN_DOWN.get(pf.driver or "")
        if not pf.netdev.up:
            why = f": {deaf} with {pf.driver}" if deaf else ": its VFs have no link"
            yield fail(f"{name_pf(pf)}: the PF is down{why}", f"`ip link set {pf.netdev.name} up`")
        elif pf.netdev.carrier is False:
            yield fail(
                f"{name_pf(pf)}: the PF has no carrier: its VFs have no link",
                f"check cable, transceiver and switch port: `ethtool {pf.netdev.name}`",
            )


@check("pf-in-bond", "pf", "Documentation/networking/device_drivers/ethernet/intel/ice.rst, Link Aggregation")
def check_bond(examined: Examined) -> Iterator[Finding]:
    """No PF is in a bond that keeps it from having VFs, and none that the host needs is to be changed."""
    for pf in examined.sriov_pfs():
        if not pf.netdev:
            continue
        folder = f"/sys/class/net/{pf.netdev.name}"
        uppers = [name.removeprefix("upper_") for name in examined.view.names(folder, "^upper_")]
        bonds = [upper for upper in uppers if examined.view.has(f"/sys/class/net/{upper}/bonding") or "bond" in upper]
        if bonds and pf.driver == "ice":
            yield fail(
                f"{name_pf(pf)}: it is in {bonds[0]}: ice has no VFs in a bond", f"`ip link set {pf.name} nomaster`"
            )
        elif uppers:
            yield ok(f"{name_pf(pf)}: {', '.join(uppers)} on top of it")
    for pf, entry in examined.entries():
        is_changed = entry.num_vfs != 0 and not entry.externally_managed and not pf.vfs
        if pf.traits.host_use and is_changed and not entry.allow_host_uplink:
            yield fail(
                f"{name_pf(pf)}: {pf.traits.host_use}: it is not changed",
                "choose another PF, or write allowHostUplink: true if its link may be lost for seconds",
            )


@check("pf-xdp", "pf", "intel/ixgbe/ixgbe_sriov.c, __ixgbe_enable_sriov")
def check_xdp(examined: Examined) -> Iterator[Finding]:
    """No XDP program on a PF keeps ixgbe from making VFs."""
    ours = {pf.netdev.name: pf for pf in examined.sriov_pfs() if pf.netdev and pf.driver == "ixgbe"}
    if not ours:
        raise SkipError("no PF is on ixgbe")
    for name in examined.view.ask("xdp", _list_xdp):
        if name in ours and not ours[name].vfs:
            yield fail(
                f"{name_pf(ours[name])}: it has an XDP program: ixgbe makes no VFs", f"`ip link set {name} xdp off`"
            )


def _list_xdp() -> Iterator[str]:
    from pyroute2 import IPRoute  # noqa: PLC0415 - slow to import

    with IPRoute() as route:
        for link in route.get_links():
            xdp = link.get_attr("IFLA_XDP")
            if xdp is not None and xdp.get_attr("IFLA_XDP_ATTACHED"):
                yield str(link.get_attr("IFLA_IFNAME"))


@check(
    "mtu", "pf", "intel/ixgbe/ixgbe_sriov.c, ixgbe_set_vf_lpe; Documentation/networking/device_drivers/ethernet/intel"
)
def check_mtu(examined: Examined) -> Iterator[Finding]:
    """No VF has a larger MTU than its PF."""
    for pf in examined.sriov_pfs():
        for vf in pf.vfs:
            if pf.netdev and vf.netdev and vf.netdev.mtu > pf.netdev.mtu:
                yield warn(
                    f"{name_vf_of(pf, vf)}: its MTU is {vf.netdev.mtu}, that of {pf.name} is {pf.netdev.mtu}: large "
                    "frames are dropped",
                    f"`ip link set {pf.name} mtu {vf.netdev.mtu}`, or write mtu into its entry of physicalFunctions",
                )


@check("e-switch", "pf", "Documentation/networking/devlink/devlink-eswitch-attr.rst")
def check_eswitch(examined: Examined) -> Iterator[Finding]:
    """The mode of each e-switch is what the config wants, and fits the settings of the VFs."""
    for pf, entry in examined.entries():
        mode = pf.eswitch.mode if pf.eswitch else "switchdev" if pf.switchdev else None
        if entry.eswitch_mode and mode and mode != entry.eswitch_mode:
            yield warn(
                f"{name_pf(pf)}: its e-switch is in {mode} mode, the config wants {entry.eswitch_mode}",
                "`sriovdp apply`",
            )
        if (entry.eswitch_mode or mode) == "switchdev":
            ranges = [vfs for vfs in entry.vfs if vfs.trust or vfs.vlan or vfs.spoofchk]
            if ranges and pf.driver in {"mlx5_core", "ice"}:
                yield warn(
                    f"{name_pf(pf)}: in switchdev mode {pf.driver} takes no VLAN, trust or spoofchk of a VF",
                    "set VLANs on the representors, or write eSwitchMode: legacy",
                )
    for pf in examined.sriov_pfs():
        lost = [vf.index for vf in pf.vfs if pf.switchdev and not vf.representor]
        if lost:
            yield warn(
                f"{name_pf(pf)}: VF {', '.join(map(str, lost[:9]))} has no representor here", "`devlink port show`"
            )


@check("vf-settings", "pf", "the table of drivers in docs/nics.md")
def check_settings(examined: Examined) -> Iterator[Finding]:
    """The drivers of the PFs take what the config wants of VFs."""
    examined.settle()
    for pf, wish in examined.wishes():
        driver = TABLE.get(pf.driver or "")
        names = list_wanted({name: getattr(wish, name, None) for name in _SETTINGS})
        if driver and (lacking := driver.list_lacking(names)):
            yield warn(
                f"{name_pf(pf)}: {driver.driver} takes no {', '.join(lacking)} of a VF ({driver.source}, Linux 6.12)",
                f"remove {', '.join(lacking)} from its range {wish.indices} in the config",
            )
        yield from _check_rates(pf, wish)


def _check_rates(pf: PhysicalFunction, wish: VfConfig) -> Iterator[Finding]:
    has_rates = bool(wish.min_tx_rate or wish.max_tx_rate)
    if has_rates and pf.driver in _RATES_NEED_LINK and pf.netdev and not pf.netdev.carrier:
        yield warn(
            f"{name_pf(pf)}: {pf.driver} takes rates of VFs with a link only, and there is none", "connect its cable"
        )


@check("driver-habits", "pf", "the table of habits in docs/nics.md")
def check_habits(examined: Examined) -> Iterator[Finding]:
    """What is known of the drivers of these PFs."""
    for name in sorted({pf.driver for pf in examined.sriov_pfs() if pf.driver}):
        if (driver := TABLE.get(name)) is None:
            yield ok(f"{name}: nothing is known of this driver: the kernel is asked")
        else:
            yield from (ok(f"{name}: {quirk.text} ({quirk.source})") for quirk in driver.quirks)


CHECKS = (
    check_driver,
    check_link,
    check_bond,
    check_xdp,
    check_mtu,
    check_eswitch,
    check_settings,
    check_habits,
)
