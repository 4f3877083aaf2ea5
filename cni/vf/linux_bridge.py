"""A representor as a port of a Linux bridge, with the VLANs that pass there."""

from pathlib import Path

from cni.protocol.bridging import Bridging
from cni.protocol.spec import INVALID_CONFIG
from cni.vf.settings import Vf
from sriovdp.errors import CniError, VerifyError
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.bridge import UNTAGGED_PVID
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.sysfs import Sysfs, read_text
from sriovdp.vlans import VlanIds


def is_bridge(sysfs: Sysfs, name: str) -> bool:
    """Whether this node has a Linux bridge of that name."""
    return Path(sysfs.root, "class/net", name, "bridge").is_dir()


def check_bridge(sysfs: Sysfs, vf: Vf, wanted: Bridging) -> None:
    """Raise CniError when the bridge would not keep VLANs apart."""
    if _is_blind(sysfs, wanted):
        raise CniError(
            INVALID_CONFIG,
            f"{vf}: the bridge {wanted.bridge} does not filter VLANs, so vlan and trunk would keep no pods apart",
            hint=f"ip link set dev {wanted.bridge} type bridge vlan_filtering 1",
        )


def join_bridge(netlink: Netlink, representor: Link, wanted: Bridging) -> None:
    """Make a representor that is down a port of the bridge. Raises KernelError, VerifyError."""
    what = f"putting the representor {representor.name} into the bridge {wanted.bridge}"
    bridge = netlink.find(wanted.bridge)
    if bridge is None or bridge.name != wanted.bridge:
        raise VerifyError(f"{what} failed: the bridge vanished", hint="make it again")
    netlink.set_link(representor.ifindex, what, master=bridge.ifindex)
    if wanted.vlans:
        _set_vlans(netlink, representor, wanted)


def leave_bridge(netlink: Netlink, representor: Link) -> None:
    """Take a representor out of the bridge that it is in. Raises KernelError."""
    if representor.master:
        what = f"taking the representor {representor.name} out of its bridge"
        netlink.set_link(representor.ifindex, what, master=0)


def _is_blind(sysfs: Sysfs, wanted: Bridging) -> bool:
    """Whether VLANs are wanted that the bridge does not look at."""
    path = f"{sysfs.root}/class/net/{wanted.bridge}/bridge/vlan_filtering"
    return bool(wanted.vlans) and read_text(path) != "1"


def compare_port(sysfs: Sysfs, netlink: Netlink, representor: Link, wanted: Bridging) -> list[str]:
    """What is not as `join_bridge` made it, a sentence each."""
    bridge = netlink.find(wanted.bridge)
    if bridge is None or representor.master != bridge.ifindex:
        return [f"its representor {representor.name} is not in the bridge {wanted.bridge}"]
    if _is_blind(sysfs, wanted):
        return [f"the bridge {wanted.bridge} of its representor does not filter VLANs any more"]
    vlans, expected = netlink.port_vlans(representor.ifindex), _list_flags(wanted)
    if not expected or vlans == expected:
        return []
    return [f"VLANs of its representor {representor.name} are {_write(vlans)}, {_write(expected)} were set"]


def _list_flags(wanted: Bridging) -> dict[int, int]:
    """Each VLAN that passes with its flags; none for what the bridge gives."""
    flags = dict.fromkeys(wanted.trunk, 0)
    return flags if wanted.vlan is None else flags | {wanted.vlan: UNTAGGED_PVID}


def _set_vlans(netlink: Netlink, representor: Link, wanted: Bridging) -> None:
    """A new port has the VLAN that its bridge gives to all (default_pvid)."""
    now, expected = netlink.port_vlans(representor.ifindex), _list_flags(wanted)
    surplus = {vid: flags for vid, flags in now.items() if expected.get(vid) != flags}
    missing = {vid: flags for vid, flags in expected.items() if now.get(vid) != flags}
    netlink.change_port_vlans(representor.ifindex, remove=surplus, add=missing)
    if (now := netlink.port_vlans(representor.ifindex)) != expected:
        raise VerifyError(
            f"VLANs of the representor {representor.name} are {_write(now)} although {_write(expected)} were set"
        )


def _write(vlans: dict[int, int]) -> str:
    untagged = [f"{vid} untagged" for vid, flags in sorted(vlans.items()) if flags == UNTAGGED_PVID]
    tagged = str(VlanIds.of(vid for vid, flags in vlans.items() if flags != UNTAGGED_PVID))
    return ", ".join(filter(None, (*untagged, tagged))) or "none"
