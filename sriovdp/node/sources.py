"""What sysfs does not say of a node's functions: from the running kernel, or from what was recorded with a tree."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sriovdp.kernel.devlink import list_ddp_profiles
from sriovdp.kernel.eswitch import Eswitches
from sriovdp.kernel.modules import list_drivers, list_loadable
from sriovdp.kernel.netdevs import Port, list_ports, list_virtio
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.routes import is_of_host, list_default_routes
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.sysfs import Folder, Sysfs, read_text
from sriovdp.model import Eswitch, NetDevice, Node
from sriovdp.node.recording import Facts, read_facts
from sriovdp.node.slow_lists import Settings, SlowLists

LIVE_ROOT = Path("/sys")
_DDP_DRIVERS = frozenset({"ice"})  # Documentation/networking/devlink/ice.rst; no other driver reports it
_IFF_UP, _IFF_SLAVE = 0x1, 0x800
_LOWER = "lower_"
_BOND_MEMBER = "bonding_slave/perm_hwaddr"  # drivers/net/bonding/bond_sysfs_slave.c


@dataclass(frozen=True, slots=True)
class Source:
    """Answers about netdevs and PFs: `find` and `link_type` get a folder below `net/`, `ports` one of a function.

    `link_type` is an ARPHRD_* of linux/if_arp.h. `has_uppers` is about a netdev's name: false when no other is on top
    of it, true when the tree must be asked. `settings` gets a PF and how many VFs it has.
    """

    ports: Callable[[Folder], Sequence[Port]]
    find: Callable[[Folder], NetDevice | None]
    link_type: Callable[[Folder], int | None]
    settings: Callable[[str, NetDevice, int], Settings]
    has_address: Callable[[NetDevice], bool]
    eswitch: Callable[[str], Eswitch | None]
    has_uppers: Callable[[str], bool]
    routes: frozenset[str]
    ddp: Mapping[str, str]


def open_live(stack: ExitStack, sysfs: Sysfs, lists: SlowLists | None = None) -> Source:
    """Ask the kernel, or `lists` for settings of VFs; `stack` closes the sockets. Raises KernelError."""
    netlink, eswitches = stack.enter_context(Netlink()), stack.enter_context(Eswitches())
    links = {link.name: link for link in netlink.links()}
    devices = {name: _describe(link) for name, link in links.items()}

    def read_settings(address: str, netdev: NetDevice, vfs: int) -> Settings:
        read = partial(netlink.vf_settings, netdev.ifindex)
        return lists.ask(address, netdev.name, vfs, read) if lists else read()

    return Source(
        ports=_Ports(list(links.values())).list,
        find=lambda folder: devices.get(folder.name),
        link_type=lambda folder: links[folder.name].hardware if folder.name in links else None,
        settings=read_settings,
        has_address=lambda netdev: is_of_host(netlink.addresses(netdev.ifindex)),
        eswitch=eswitches.find,
        has_uppers=_list_stacked(sysfs, links.values()).__contains__,
        routes=list_default_routes(),
        ddp=list_ddp(sysfs),
    )


def open_recorded(facts: Facts) -> Source:
    """Ask the tree and what was recorded with it."""
    return Source(
        ports=list_ports,
        find=lambda folder: read_netdev(folder, facts.permanent_macs.get(folder.name, "")),
        link_type=lambda folder: folder.number("type"),
        settings=lambda address, _, __: facts.settings.get(address, None if facts.is_recorded else {}),
        has_address=lambda netdev: netdev.name in facts.addressed,
        eswitch=facts.eswitches.get,
        has_uppers=lambda _: True,
        routes=facts.default_routes,
        ddp=facts.ddp,
    )


def collect_facts(sysfs: Sysfs, node: Node) -> Facts:
    """What sysfs does not have for a snapshot: to be recorded with it. Raises KernelError."""
    if sysfs.root != LIVE_ROOT:
        return read_facts(sysfs.root)
    with Netlink() as netlink:
        netdevs = [pf.netdev for pf in node.pfs if pf.netdev]
        addressed = frozenset(n.name for n in netdevs if is_of_host(netlink.addresses(n.ifindex)))
    return Facts(
        settings={
            pf.address: {vf.index: vf.settings for vf in pf.vfs if vf.settings}
            for pf in node.pfs
            if pf.netdev and pf.vfs and pf.sets_vfs
        },
        permanent_macs={n.name: n.permanent_mac for n in netdevs if n.permanent_mac},
        default_routes=list_default_routes(),
        addressed=addressed,
        ddp=list_ddp(sysfs),
        eswitches={pf.address: pf.eswitch for pf in node.pfs if pf.eswitch},
        loadable=list_loadable(),
    )


def list_known_drivers(sysfs: Sysfs) -> frozenset[str]:
    """Drivers that a VF could be bound to on this node: those that are there, and those that can be loaded."""
    loadable = list_loadable() if sysfs.root == LIVE_ROOT else read_facts(sysfs.root).loadable
    return list_drivers(sysfs.root) | loadable


def list_ddp(sysfs: Sysfs) -> Mapping[str, str]:
    """DDP profiles by PCI address. Asks devlink, which takes its time, only where a driver is there that would know."""
    return list_ddp_profiles() if list_drivers(sysfs.root) & _DDP_DRIVERS else {}


def _list_stacked(sysfs: Sysfs, links: Collection[Link]) -> frozenset[str]:
    """Names of all netdevs that have another one on top.

    Most say so: a bond or bridge is their master, and a VLAN or macvlan names the one below it. Virtual ones that name
    none, like a vxlan (drivers/net/vxlan/vxlan_core.c), list theirs in sysfs.
    """
    names = {link.ifindex: link.name for link in links}
    found = {names.get(link.lower, "") for link in links} | {link.name for link in links if link.master}
    net = Folder(str(sysfs.root / "class/net"))
    for link in links:
        if not link.parent and not link.has_lower:
            found |= {entry.removeprefix(_LOWER) for entry in net.folder(link.name).names if entry.startswith(_LOWER)}
    return frozenset(found)


class _Ports:
    """Netdevs by the device below them, from the list of all links: a node with 1,024 VFs has no time to read files."""

    def __init__(self, links: Sequence[Link]) -> None:
        self._by_parent: dict[str, list[Link]] = {}
        for link in sorted(links, key=lambda link: link.name):
            if link.parent:
                self._by_parent.setdefault(link.parent, []).append(link)

    def list(self, function: Folder) -> Sequence[Port]:
        """As `netdevs.list_ports`. Linux before 5.14 reports no parent: read the folders there."""
        if not self._by_parent:
            return list_ports(function)
        if found := self._by_parent.get(function.name):
            return [Port(function.folder(f"net/{link.name}"), link.port) for link in found]
        parts = list_virtio(function)
        return [
            Port(function.folder(f"{part}/net/{link.name}"), link.port)
            for part in parts
            for link in self._by_parent.get(part, ())
        ]


def _describe(link: Link) -> NetDevice:
    """A netdev. A driver that reports no permanent MAC may be in a bond, which remembers the one from before."""
    is_member = bool(link.flags & _IFF_SLAVE) and not link.permanent_mac
    before = read_text(f"{LIVE_ROOT}/class/net/{link.name}/{_BOND_MEMBER}") if is_member else ""
    return NetDevice(
        name=link.name,
        ifindex=link.ifindex,
        mac=link.mac,
        mtu=link.mtu,
        up=link.up,
        carrier=link.carrier,
        permanent_mac=link.permanent_mac or before or "",
        altnames=link.altnames,
    )


def read_netdev(folder: Folder, permanent_mac: str = "") -> NetDevice | None:
    """A netdev as its sysfs attributes say; `carrier` cannot be read while the interface is down."""
    ifindex = folder.number("ifindex")
    if ifindex is None:
        return None
    running = folder.text("operstate") == "up"
    flags = folder.number("flags")
    up = running if flags is None else bool(flags & _IFF_UP)
    carrier = folder.number("carrier")
    return NetDevice(
        name=folder.name,
        ifindex=ifindex,
        mac=folder.text("address") or "",
        mtu=folder.number("mtu") or 0,
        up=up,
        carrier=(running if carrier is None else bool(carrier)) if up else None,
        permanent_mac=permanent_mac,
    )
