"""GUIDs of InfiniBand VFs: which one a network may ask for, setting it through the PF, and giving the old one back.

A driver takes a VF's GUID over when it is bound (mlx5: «the GUID is valid after the VF is bound again»), so it is bound
again where the netdev has another one.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace

from cni.protocol.netconf import NetConf
from cni.protocol.spec import DEVICE_FAILURE, DEVICE_IN_USE, INVALID_CONFIG
from cni.vf.settings import Vf, bind_again, find_netdev
from sriovdp.errors import CniError, KernelError, VerifyError
from sriovdp.kernel import drivers
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import VfSettings
from sriovdp.state.journal import Attachment, Original

logger = logging.getLogger(__name__)

_GUID = 3 * 8 - 1  # characters of a GUID, and of the end of IPoIB's address that has it
_ZEROS, _ONES = ":".join(["00"] * 8), ":".join(["ff"] * 8)
# what ib-sriov-cni takes for none: new VFs have zeros, and ones are what it gives back in their place
_NONE = frozenset({"", _ZEROS, _ONES})


def read_guid(address: str | None) -> str:
    """The GUID in the address of an InfiniBand interface (RFC 4391, section 9.1.1)."""
    return address[-_GUID:] if address and is_infiniband(address) else ""


def is_infiniband(address: str | None) -> bool:
    """Whether it is an address of IPoIB, by its length: that of Ethernet has 6 bytes."""
    return address is not None and len(address) > _GUID


def check_fit(conf: NetConf, vf: Vf, original: Original) -> None:
    """Raise CniError when a network and a VF are not of one kind, or the VF would have no GUID."""
    if not vf.infiniband:
        if conf.infiniband or conf.guid:
            wrong, hint = (
                ("type is ib-sriov", 'set "type": "sriov"') if conf.infiniband else ("guid is given", "leave guid out")
            )
            raise CniError(
                INVALID_CONFIG, f"{vf}: {wrong}, but it is no InfiniBand VF", hint=f"{hint}, or use another resource"
            )
        return
    if conf.mac:
        raise CniError(
            INVALID_CONFIG,
            f"{vf}: mac is {conf.mac}, but it is an InfiniBand VF",
            hint="leave mac out; an InfiniBand interface is known by its GUID, which `guid` sets",
        )
    if conf.ipam == "dhcp":
        hint = "use another IPAM plugin; the plugin dhcp has Ethernet only"
        raise CniError(INVALID_CONFIG, f'{vf}: ipam.type is "dhcp", but it is an InfiniBand VF', hint=hint)
    if conf.guid:
        _check_settable(vf)
    elif conf.infiniband and original.name is not None and read_guid(original.mac) in _NONE:
        raise CniError(
            DEVICE_FAILURE,
            f"{vf}: it has no GUID, so no subnet manager lets it in",
            hint="`sriovdp apply` gives each VF one, and so does the key `guid`",
        )


def _check_settable(vf: Vf) -> None:
    if vf.settings is None:
        why, hint = vf.explain(), "leave guid out for a VF whose PF another driver or host owns"
    elif vf.settings.node_guid is None:
        why, hint = "its driver does not report GUIDs", "leave guid out; this driver looks after them by itself"
    else:
        return
    raise CniError(DEVICE_FAILURE, f"{vf}: its GUID cannot be set: {why}", hint=hint)


def refuse_twin(sysfs: Sysfs, netlink: Netlink, vf: Vf, guid: str, attachments: Iterable[Attachment]) -> None:
    """Raise CniError when another port of this node has the GUID, or gets it back after a pod: no fabric has it twice.

    To be called with a lock of the GUID, as another ADD may be about to set it.
    """
    if owner := _find_twin(sysfs, netlink, vf, guid) or _find_debt(vf, guid, attachments):
        raise CniError(
            DEVICE_IN_USE,
            f"{vf}: guid is {guid}, but {owner}",
            hint="give each pod a GUID of its own, or wait until the other one is released",
        )


def _find_twin(sysfs: Sysfs, netlink: Netlink, vf: Vf, guid: str) -> str:
    for link in netlink.links():
        if not link.infiniband:
            continue
        if link.guid == guid and link.parent != vf.address:
            return f"{link.name} has it"
        if not (sysfs.root / "class/net" / link.name / "device/sriov_totalvfs").exists():
            continue
        for index, guids in netlink.guids(link.ifindex).items():
            if guid in guids and (link.ifindex, index) != (vf.pf_ifindex, vf.index):
                return f"{link.name} VF {index} has it"
    return ""


def _find_debt(vf: Vf, guid: str, attachments: Iterable[Attachment]) -> str:
    for other in attachments:
        settings = other.original.settings
        if other.device != vf.address and not other.released and settings and guid in _list_guids(settings):
            return f"{other.device} gets it back after {other.owner}"
    return ""


def _list_guids(settings: VfSettings) -> tuple[str | None, str | None]:
    return settings.node_guid, settings.port_guid


def set_guid(netlink: Netlink, vf: Vf, guid: str) -> None:
    """Set node and port GUID of a VF on its PF. Raises KernelError."""
    if vf.pf_ifindex is None or vf.index is None or vf.settings is None:
        return
    if _list_guids(vf.settings) != (guid, guid):
        netlink.set_guids(vf.pf_ifindex, vf.index, guid)


def take_guid(sysfs: Sysfs, netlink: Netlink, vf: Vf, guid: str) -> bool:
    """Let the VF's netdev on the host have the GUID that its PF holds. Gives whether the driver was bound again.

    Raises VerifyError when it has another one even then.
    """
    device = find_netdev(sysfs, netlink, vf.address)
    if device is not None and device.guid == guid:
        return False
    driver = drivers.current_driver(sysfs, vf.address) or ""
    logger.info("%s: binding %s again, which takes GUID %s over", vf, driver, guid)
    bind_again(sysfs, vf.address, driver)
    device = find_netdev(sysfs, netlink, vf.address)
    if device is None or device.guid != guid:
        now = device.guid if device else "none"
        raise VerifyError(f"{vf}: the GUID of its interface is {now} although {guid} was set on the PF")
    return True


def restore_guids(netlink: Netlink, vf: Vf, original: Original) -> bool:
    """Give a VF its old GUIDs back on the PF. Gives whether another one was set. Raises KernelError."""
    was, now = original.settings, vf.settings
    if was is None or now is None or vf.pf_ifindex is None or vf.index is None:
        return False
    node, port = _list_guids(was)
    if node is None or port is None or (_agree(node, now.node_guid) and _agree(port, now.port_guid)):
        return False
    try:
        netlink.set_guids(vf.pf_ifindex, vf.index, node, port)
    except KernelError as error:
        if {node, port} != {_ZEROS}:
            raise
        logger.info("%s: %s; setting all ones, as ib-sriov-cni does", vf, error)
        netlink.set_guids(vf.pf_ifindex, vf.index, _ONES)
    return True


def has_guid_of(address: str | None, original: Original) -> bool:
    """Whether an InfiniBand interface has the GUID of before; the rest of its address may change with each bind."""
    return is_infiniband(original.mac) and _agree(read_guid(original.mac), read_guid(address))


def agree_in_all(settings: VfSettings | None, original: VfSettings | None) -> bool:
    """Whether both are the same, where GUIDs of zeros and of ones are none."""
    if settings is None or original is None:
        return False
    pairs = zip(_list_guids(original), _list_guids(settings), strict=True)
    as_before = replace(settings, node_guid=original.node_guid, port_guid=original.port_guid)
    return as_before == original and all(_agree(was, now) for was, now in pairs)


def _agree(was: str | None, now: str | None) -> bool:
    """`was` is None where it is not recorded."""
    return was is None or was == now or (was in _NONE and now in _NONE)
