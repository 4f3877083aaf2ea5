"""Interfaces, VFs, addresses and routes by rtnetlink, in the network namespace of the thread that opens the client."""

import errno
import logging
import socket
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from sriovdp.errors import KernelError
from sriovdp.kernel.busy import OnWait, retry_while_busy
from sriovdp.kernel.rtnl import address as addresses
from sriovdp.kernel.rtnl import bridge, codec, tuning, vf
from sriovdp.kernel.rtnl import link as links
from sriovdp.kernel.rtnl import route as routes
from sriovdp.kernel.rtnl.address import Address
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.rtnl.requests import Requests, What
from sriovdp.kernel.rtnl.route import Route
from sriovdp.kernel.rtnl.vf import Guids
from sriovdp.model import VfSettings

logger = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds; a VF that is being reset is busy for a while, and a pod's runtime waits for us


class Netlink(AbstractContextManager["Netlink"]):
    """One rtnetlink socket. To be used by one thread. All calls raise KernelError; a change waits for a busy device."""

    def __init__(self, patience: float = _PATIENCE, on_wait: OnWait = logger.info) -> None:
        """A change waits for `patience` seconds at most; `on_wait` gets what it waits for."""
        self._requests = Requests()
        self._patience = patience
        self._on_wait = on_wait

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._requests.close()

    def links(self) -> list[Link]:
        """All interfaces of this namespace."""
        answers = self._requests.ask(links.GETLINK, codec.DUMP, links.encode_list(), "listing the interfaces")
        return [links.read_link(message) for message in answers]

    def find(self, key: str | int) -> Link | None:
        """The interface of that name, altname or index in this namespace, if there is one."""
        message = self._get(key, links.SKIP_STATS)
        return links.read_link(message) if message else None

    def find_with_tuning(self, key: str | int) -> tuple[Link, dict[str, str]] | None:
        """An interface of this namespace and how it is tuned as far as rtnetlink reports it, in one request."""
        message = self._get(key, links.SKIP_STATS)
        return (links.read_link(message), tuning.read_link_tuning(message)) if message else None

    def set_tuning(self, ifindex: int, changes: tuning.Tuning) -> None:
        """Change the tuning of an interface, in one request: what `tuning.select_restorable` gave."""
        what = lambda: f"setting {_list(changes)} of {_name(ifindex)}"  # noqa: E731
        self._change(links.NEWLINK, tuning.encode_tuning(ifindex, changes), what)

    def remove_link(self, ifindex: int) -> None:
        """Remove a virtual interface, and with it all that is stacked on it."""
        self._change(links.DELLINK, links.encode_link(ifindex), lambda: f"removing {_name(ifindex)}")

    def find_by_parent(self, parents: Collection[str], name: str = "") -> Link | None:
        """The interface in this namespace that belongs to one of these devices (IFLA_PARENT_DEV_NAME, Linux 5.14).

        `name` is where to look first.
        """
        link = self.find(name) if name else None
        if link and link.parent in parents:
            return link
        return next((link for link in self.links() if link.parent in parents), None)

    def set_link(self, ifindex: int, what: str, **attributes: Any) -> None:
        """Change attributes of an interface in one request: `state`, `mtu`, `address`, `ifname`, `net_ns_fd`, flags.

        Raises KernelError beginning with `what`.
        """
        self._change(links.NEWLINK, links.encode_changes(ifindex, **attributes), what)

    def set_flags(self, ifindex: int, what: str, *, promisc: bool | None = None, allmulti: bool | None = None) -> None:
        """Set an interface promiscuous, or to take all multicast, or not; None leaves it."""
        wanted = {links.IFF_PROMISC: promisc, links.IFF_ALLMULTI: allmulti}
        mask = sum(bit for bit, value in wanted.items() if value is not None)
        if mask:
            self.set_link(ifindex, what, flags=sum(bit for bit, value in wanted.items() if value), change=mask)

    def port_vlans(self, ifindex: int) -> dict[int, int]:
        """VLANs of a port of a bridge, each with its flags as `rtnl.bridge` has them."""
        what = f"listing the VLANs of {_name(ifindex)}"
        return bridge.read_vlans(self._requests.ask(links.GETLINK, codec.DUMP, bridge.encode_query(), what), ifindex)

    def change_port_vlans(self, ifindex: int, *, remove: Mapping[int, int], add: Mapping[int, int]) -> None:
        """Remove VLANs from a port of a bridge, and add others."""
        for kind, vlans in ((links.DELLINK, remove), (bridge.SETLINK, add)):
            if vlans:
                body = bridge.encode_vlans(ifindex, vlans)
                self._change(kind, body, lambda: f"setting the VLANs of {_name(ifindex)}")

    def add_altname(self, ifindex: int, altname: str) -> None:
        """Give an interface an alternative name."""
        body = links.encode_altname(ifindex, altname)
        flags = codec.CREATE | codec.EXCL | codec.APPEND  # as iproute2
        self._change(links.NEWLINKPROP, body, lambda: f"adding altname {altname} to {_name(ifindex)}", flags)

    def remove_altname(self, ifindex: int, altname: str) -> None:
        """Remove an alternative name of an interface."""
        body = links.encode_altname(ifindex, altname)
        self._change(links.DELLINKPROP, body, lambda: f"removing altname {altname} of {_name(ifindex)}")

    def find_with_vf(self, key: str | int, index: int) -> tuple[Link, VfSettings | None, int | None] | None:
        """A PF, the settings of one of its VFs with GUIDs, and how many VFs the kernel lists, in one request.

        No other VF is read. One that the kernel leaves out, like one in reset, has None. The number is None of a PF
        whose driver has no settings of VFs, and 0 of one that lists none of them.
        """
        message, places = self._get_with_vfs(key)
        if not message:
            return None
        settings = (vf.read_with_guids(message, start, end) for number, start, end in places or () if number == index)
        return links.read_link(message), next(settings, None), None if places is None else len(places)

    def vf_settings(self, pf_ifindex: int) -> dict[int, VfSettings] | None:
        """Settings of a PF's VFs, GUIDs too, by VF index; None when its driver has none, whatever VF it is.

        The kernel leaves out a VF that its driver cannot read now, like one in reset. Empty when there is no such PF.
        """
        message, places = self._get_with_vfs(pf_ifindex)
        if places is None:
            return None if message else {}
        return {number: vf.read_with_guids(message, start, end) for number, start, end in places}

    def guids(self, pf_ifindex: int) -> dict[int, Guids]:
        """GUIDs of a PF's VFs, by VF index; VFs whose driver does not report them are left out."""
        message, places = self._get_with_vfs(pf_ifindex)
        read = ((number, vf.read_guids(message, start, end)) for number, start, end in places or ())
        return {number: guids for number, guids in read if guids}

    def set_vf(self, pf_ifindex: int, index: int, changes: Mapping[str, Any]) -> None:
        """Change settings of one VF, in one request. `changes` has the names and values of VfSettings.

        VLAN and QoS go together, as do the two rates: pass both. The kernel sets one after the other, and stops at the
        one that the PF's driver refuses.
        """
        body = links.encode_link(pf_ifindex) + vf.encode_settings(index, changes)
        self._change(links.NEWLINK, body, lambda: f"setting {_list(changes)} of {_name(pf_ifindex)} VF {index}")

    def set_guids(self, pf_ifindex: int, index: int, guid: str, port_guid: str = "") -> None:
        """Set the node GUID of one VF, and its port GUID to the same where no other is given."""
        for name, value, part in vf.encode_guids(index, (guid, port_guid or guid)):
            what = f"setting the {name} GUID of {_name(pf_ifindex)} VF {index} to {value}"
            self._change(links.NEWLINK, links.encode_link(pf_ifindex) + part, what)

    def addresses(self, ifindex: int) -> tuple[str, ...]:
        """The addresses of an interface in CIDR form, of both families."""
        return tuple(address.text for address in self._list_addresses(ifindex))

    def pending_addresses(self, ifindex: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """IPv6 addresses whose duplicate address detection still runs, and those that it found at another host."""
        found = [(address.text.partition("/")[0], address) for address in self._list_addresses(ifindex)]
        pending = tuple(text for text, address in found if address.tentative)
        return pending, tuple(text for text, address in found if address.duplicate)

    def add_address(self, ifindex: int, address: str, *, dad: bool = True) -> None:
        """Give an interface an address in CIDR form, like `10.0.0.2/24` or `fd00::2/64`, the latter with DAD or not."""
        body = addresses.encode_address(ifindex, address, dad=dad)
        flags = codec.CREATE | codec.EXCL
        self._change(addresses.NEWADDR, body, lambda: f"adding address {address} to {_name(ifindex)}", flags)

    def add_route(self, ifindex: int, destination: str, gateway: str | None, **more: Any) -> None:
        """Add a route by an interface, in front of others with the same destination and priority.

        That is what netlink.RouteAddEcmp does, by which the pods of sriov-cni get a default route before that of eth0.
        In IPv6 the kernel makes one route with several next hops of them. `more` may be `priority`, `table`, `scope`,
        and `metrics` with `mtu` and `advmss`.
        """
        body = routes.encode_route(ifindex, destination, gateway, **more)
        what = f"adding route {destination} to {_name(ifindex)}"
        self._change(routes.NEWROUTE, body, lambda: what, codec.CREATE)

    def routes(self, ifindex: int) -> list[Route]:
        """The routes by an interface, of all tables."""
        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            what = f"listing the routes of {_name(ifindex)}"
            answers = self._requests.ask(routes.GETROUTE, codec.DUMP, routes.encode_query(family), what)
            found += [route for route in map(routes.read_route, answers) if route and ifindex in route.interfaces]
        return found

    def _list_addresses(self, ifindex: int) -> list[Address]:
        answers = self._requests.ask(
            addresses.GETADDR,
            codec.DUMP,
            addresses.encode_query(),
            lambda: f"listing the addresses of {_name(ifindex)}",
        )
        found = map(addresses.read_address, answers)
        return [address for address in found if address and address.ifindex == ifindex]

    def _get(self, key: str | int, mask: int) -> bytes:
        """What the kernel reports of an interface; nothing when there is none."""
        try:
            answers = self._requests.ask(
                links.GETLINK, 0, links.encode_query(key, mask), lambda: f"reading {_name(key)}"
            )
        except KernelError as error:
            if error.errno == errno.ENODEV:
                return b""
            raise
        return answers[0] if answers else b""

    def _get_with_vfs(self, key: str | int) -> tuple[bytes, list[tuple[int, int, int]] | None]:
        """As `_get`, with index, start and end of each VF; None without a list of VFs."""
        message = self._get(key, links.WITH_VFS)
        try:
            return message, vf.list_vfs(message, links.HEAD_SIZE)
        except KernelError as error:
            raise KernelError(f"reading the VFs of {_name(key)} failed: {error.message}") from error

    def _change(self, kind: int, body: bytes, what: What, flags: int = 0) -> None:
        request = lambda: self._requests.ask(kind, flags | codec.ACK, body, what)  # noqa: E731
        retry_while_busy(request, self._patience, self._on_wait)


def _list(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changes.items())


def _name(key: str | int) -> str:
    """An interface's name, for an error."""
    try:
        return key if isinstance(key, str) else socket.if_indextoname(key)
    except OSError:
        return f"interface {key}"
