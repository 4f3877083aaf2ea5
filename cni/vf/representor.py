"""The representor of a VF: the netdev on the host that stands for it in switchdev mode, and the bridge it is put into.

What a pod sends comes out of its VF's representor, which passes nothing while it is down (Linux kernel documentation,
networking/representors.rst). The representor is known by its PF and its VF's index, never by its name.
"""

from typing import Literal

from cni.protocol.bridging import Bridging
from cni.protocol.spec import DEVICE_FAILURE, INVALID_CONFIG
from cni.vf import linux_bridge, ovs_bridge
from cni.vf.settings import Vf
from sriovdp.errors import CniError, VerifyError
from sriovdp.kernel import representors
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Attachment, RepresentorState, read_boot_id


def find_representor(sysfs: Sysfs, netlink: Netlink, vf: str) -> Link | None:
    """The netdev that stands for a VF on the host; None in legacy mode. Raises KernelError."""
    name = representors.find_representor(sysfs, vf)
    return netlink.find(name) if name else None


def judge_representor(sysfs: Sysfs, netlink: Netlink, vf: Vf, wanted: Bridging | None) -> RepresentorState | None:
    """How the representor is now, for the journal; None without one. Only ports that were left behind are removed.

    Raises CniError when the network wants it in a bridge, and there is none, or it is in one already; DeviceError.
    """
    representor = find_representor(sysfs, netlink, vf.address)
    if representor is None:
        if wanted is None:
            return None
        raise CniError(
            DEVICE_FAILURE,
            f"{vf}: it has no representor to put into the bridge {wanted.bridge}: its PF is not in switchdev mode",
            hint="set eSwitchMode: switchdev for its PF in the agent's config, or leave the key representor out",
        )
    if wanted is None:
        return RepresentorState(representor.up)
    switch = _choose_switch(sysfs, vf, wanted)
    if switch == "linux":
        linux_bridge.check_bridge(sysfs, vf, wanted)
    is_cleared = switch == "ovs" and ovs_bridge.clear_port(vf, representor.name)
    if is_cleared:
        ovs_bridge.wait_until_free(netlink, representor)
    elif representor.master:
        raise CniError(
            DEVICE_FAILURE,
            f"{vf}: its representor {representor.name} is in another interface already",
            hint=f"take it out: ip link set dev {representor.name} nomaster",
        )
    return RepresentorState(representor.up, wanted.bridge, switch)


def attach_representor(sysfs: Sysfs, netlink: Netlink, attachment: Attachment, wanted: Bridging | None) -> Link | None:
    """Set the representor up, in its bridge if the network names one. It is down until its VLANs are right.

    Raises KernelError, DeviceError.
    """
    representor = find_representor(sysfs, netlink, attachment.device)
    if representor is None:
        return None
    if wanted is not None and attachment.representor is not None:
        what = f"setting the representor {representor.name} down"
        netlink.set_link(representor.ifindex, what, state="down")
        if attachment.representor.switch == "ovs":
            ovs_bridge.join_bridge(netlink, representor, wanted, attachment)
        else:
            linux_bridge.join_bridge(netlink, representor, wanted)
    netlink.set_link(representor.ifindex, f"setting the representor {representor.name} up", state="up")
    return netlink.find(representor.ifindex)


def restore_representor(sysfs: Sysfs, attachment: Attachment) -> None:
    """Take the representor out of its bridge, and set it up or down as it was. Raises KernelError, DeviceError.

    After a reboot it is another one, and only Open vSwitch's database remembers the old one.
    """
    was = attachment.representor
    if was is None:
        return
    if was.switch == "ovs":
        ovs_bridge.leave_bridge(attachment)
    if attachment.boot_id != read_boot_id():
        return
    with Netlink() as netlink:
        representor = find_representor(sysfs, netlink, attachment.device)
        if representor is None:
            return  # the mode was changed, or the VF is gone: there is nothing to restore
        if was.switch == "ovs":
            ovs_bridge.wait_until_free(netlink, representor)
        elif was.bridge:
            linux_bridge.leave_bridge(netlink, representor)
        what = f"setting the representor {representor.name} back"
        netlink.set_link(representor.ifindex, what, state="up" if was.up else "down")
        now = netlink.find(representor.ifindex)
    if now and (now.up != was.up or (was.bridge and now.master)):
        raise VerifyError(f"the representor {now.name} is not as it was", hint="see who else changes it")


def compare_representor(sysfs: Sysfs, attachment: Attachment, wanted: Bridging | None) -> list[str]:
    """What is not as ADD made it, a sentence each. Raises KernelError, DeviceError."""
    if attachment.representor is None:
        return []
    with Netlink() as netlink:
        representor = find_representor(sysfs, netlink, attachment.device)
        if representor is None:
            return ["its representor is gone"]
        found = [] if representor.up else [f"its representor {representor.name} is down"]
        if wanted is None:
            return found
        if attachment.representor.switch == "ovs":
            return found + ovs_bridge.compare_port(representor, wanted, attachment)
        return found + linux_bridge.compare_port(sysfs, netlink, representor, wanted)


def repair_representor(sysfs: Sysfs, netlink: Netlink, attachment: Attachment, wanted: Bridging | None) -> None:
    """Put the representor of a running pod where ADD put it, if it is not there. Raises KernelError, DeviceError."""
    representor = find_representor(sysfs, netlink, attachment.device)
    if representor is None or not compare_representor(sysfs, attachment, wanted):
        return
    if wanted is not None and attachment.representor is not None:
        if attachment.representor.switch == "ovs":
            ovs_bridge.leave_bridge(attachment)
            ovs_bridge.wait_until_free(netlink, representor)
        else:
            linux_bridge.leave_bridge(netlink, representor)
    attach_representor(sysfs, netlink, attachment, wanted)


def _choose_switch(sysfs: Sysfs, vf: Vf, wanted: Bridging) -> Literal["linux", "ovs"]:
    if linux_bridge.is_bridge(sysfs, wanted.bridge):
        return "linux"
    if ovs_bridge.is_bridge(wanted.bridge):
        return "ovs"
    other = "no Open vSwitch bridge either" if ovs_bridge.is_running() else "Open vSwitch does not run"
    raise CniError(
        INVALID_CONFIG,
        f"{vf}: representor.bridge is {wanted.bridge}, and this node has no Linux bridge of that name; {other}",
        hint=f"make it: ip link add {wanted.bridge} type bridge vlan_filtering 1, or ovs-vsctl add-br {wanted.bridge}",
    )
