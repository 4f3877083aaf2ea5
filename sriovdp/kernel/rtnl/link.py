"""Interfaces as rtnetlink reports and changes them (linux/rtnetlink.h, linux/if_link.h)."""

import struct
from dataclasses import dataclass

from sriovdp.kernel.rtnl.codec import U32, encode, encode_text, index_attributes, list_attributes, nest, read_text
from sriovdp.kernel.rtnl.vf import cut_vf_list

NEWLINK, DELLINK, GETLINK, NEWLINKPROP, DELLINKPROP = 16, 17, 18, 108, 109
IFF_PROMISC, IFF_ALLMULTI = 0x100, 0x200
SKIP_STATS = 8  # RTEXT_FILTER_SKIP_STATS; counters would make a VF list overflow its 64 KiB at 222 VFs
WITH_VFS = 1 | SKIP_STATS  # RTEXT_FILTER_VF, without which there is no VF list

_IFF_UP = 0x1
_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _NET_NS_FD, _EXT_MASK, _CARRIER, _LINK_NETNSID = 1, 3, 4, 5, 10, 28, 29, 33, 37
_PHYS_PORT_NAME, _PROP_LIST, _ALT_IFNAME, _PERM_ADDRESS, _PARENT_DEV_NAME = 38, 52, 53, 54, 56
_HEAD = struct.Struct("=BxHiII")  # struct ifinfomsg
_ARPHRD_INFINIBAND = 32  # linux/if_arp.h
HEAD_SIZE = _HEAD.size


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. `parent` names the device below it, for most its PCI address, empty if it has none.

    `carrier` is None while the interface is down. `permanent_mac` is the one that the NIC came with, empty where the
    driver does not report it. `lower` is the ifindex of the interface below it in the same namespace, 0 if there is
    none; `has_lower` is true for one in another namespace too. `master` is the ifindex of its bond or bridge. `port` is
    the NIC's name for it (`phys_port_name`), `hardware` its ARPHRD_* of linux/if_arp.h. `mac` of an InfiniBand
    interface is its address of 20 bytes (RFC 4391, section 9.1.1).
    """

    ifindex: int
    name: str
    mac: str
    mtu: int
    flags: int
    carrier: bool | None
    altnames: tuple[str, ...]
    parent: str
    permanent_mac: str = ""
    lower: int = 0
    has_lower: bool = False
    master: int = 0
    port: str = ""
    hardware: int = 1

    @property
    def infiniband(self) -> bool:
        """Whether it is an InfiniBand interface."""
        return self.hardware == _ARPHRD_INFINIBAND

    @property
    def guid(self) -> str:
        """GUID of an InfiniBand port: the end of its address."""
        return self.mac[-23:] if self.infiniband else ""

    @property
    def up(self) -> bool:
        """Whether it is administratively up."""
        return bool(self.flags & _IFF_UP)

    @property
    def promisc(self) -> bool:
        """Whether somebody set it promiscuous."""
        return bool(self.flags & IFF_PROMISC)

    @property
    def allmulti(self) -> bool:
        """Whether somebody set it to take all multicast."""
        return bool(self.flags & IFF_ALLMULTI)


def read_link(message: bytes) -> Link:
    """An interface from an RTM_NEWLINK. Raises KernelError when its VF list hides what follows it."""
    message = cut_vf_list(message, HEAD_SIZE)
    _, hardware, ifindex, flags, _ = _HEAD.unpack_from(message)
    found = index_attributes(message, HEAD_SIZE)
    altnames = list_attributes(message, *found[_PROP_LIST]) if _PROP_LIST in found else ()
    return Link(
        ifindex=ifindex,
        name=read_text(message, *found[_IFNAME]),
        mac=message[slice(*found.get(_ADDRESS, (0, 0)))].hex(":"),
        mtu=U32.unpack_from(message, found[_MTU][0])[0] if _MTU in found else 0,
        flags=flags,
        carrier=bool(message[found[_CARRIER][0]]) if flags & _IFF_UP and _CARRIER in found else None,
        altnames=tuple(read_text(message, start, end) for kind, start, end in altnames if kind == _ALT_IFNAME),
        parent=read_text(message, *found[_PARENT_DEV_NAME]) if _PARENT_DEV_NAME in found else "",
        permanent_mac=message[slice(*found.get(_PERM_ADDRESS, (0, 0)))].hex(":"),
        lower=U32.unpack_from(message, found[_LINK][0])[0] if _LINK in found and _LINK_NETNSID not in found else 0,
        has_lower=_LINK in found,
        master=U32.unpack_from(message, found[_MASTER][0])[0] if _MASTER in found else 0,
        port=read_text(message, *found[_PHYS_PORT_NAME]) if _PHYS_PORT_NAME in found else "",
        hardware=hardware,
    )


def encode_link(ifindex: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """The head of a message about an interface, 0 for all; of its flags those in `change`."""
    return _HEAD.pack(0, 0, ifindex, flags, change)


def encode_list() -> bytes:
    """Ask for all interfaces, without counters and VFs."""
    return encode_link() + encode(_EXT_MASK, U32.pack(SKIP_STATS))


def encode_query(key: str | int, mask: int) -> bytes:
    """Ask for the interface of a name, altname or index. `mask` is what to report of it beside the usual."""
    head = encode_link(key) if isinstance(key, int) else encode_link() + encode_text(_IFNAME, key)
    return head + encode(_EXT_MASK, U32.pack(mask))


def encode_altname(ifindex: int, altname: str) -> bytes:
    """An alternative name, to be added to an interface or removed."""
    return encode_link(ifindex) + nest(_PROP_LIST, encode_text(_ALT_IFNAME, altname))


def encode_changes(  # noqa: PLR0913 - the attributes of one request
    ifindex: int,
    *,
    state: str | None = None,
    mtu: int | None = None,
    address: str | None = None,
    ifname: str | None = None,
    net_ns_fd: int | None = None,
    master: int | None = None,
    flags: int = 0,
    change: int = 0,
) -> bytes:
    """What to change of an interface, of its flags those in `change`; `state` is `up` or `down`; no `master` is 0."""
    flags |= _IFF_UP if state == "up" else 0
    body = encode_link(ifindex, flags, change | (_IFF_UP if state else 0))
    if net_ns_fd is not None:
        body += encode(_NET_NS_FD, U32.pack(net_ns_fd))
    if ifname is not None:
        body += encode_text(_IFNAME, ifname)
    if master is not None:
        body += encode(_MASTER, U32.pack(master))
    if mtu is not None:
        body += encode(_MTU, U32.pack(mtu))
    if address is not None:
        body += encode(_ADDRESS, bytes.fromhex(address.replace(":", "")))
    return body
