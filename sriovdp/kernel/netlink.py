"""Links, VF settings, addresses and routes by rtnetlink, in the network namespace of the calling thread."""

import errno
import ipaddress
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from sriovdp.errors import KernelError
from sriovdp.kernel.rtnl import Link, Rtnl
from sriovdp.model import NetDevice, VfSettings

_IFF_PROMISC, _IFF_ALLMULTI = 0x100, 0x200  # linux/if.h
_IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x08, 0x40  # linux/if_addr.h
_DUMP_ATTEMPTS = 5  # as containernetworking/plugins pkg/netlinksafe: a changing table interrupts a dump
_BUSY_TIMEOUT = 2.0  # seconds; a VF that is being reset is busy for a while
_BUSY_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Route:
    """A route by one interface; `destination` is a network, `0.0.0.0/0` or `::/0` for the default."""

    destination: str
    gateway: str | None
    table: int


@contextmanager
def _explain(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise KernelError(
            f"{what} failed: {error.args[1] if len(error.args) > 1 else error}", errno=error.code
        ) from error


def _change(request: Callable[[], None]) -> None:
    """Make a change, again and again while the device is busy. Raises KernelError."""
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            request()
            return
        except KernelError as error:
            if error.errno not in {errno.EBUSY, errno.EAGAIN} or time.monotonic() > deadline:
                raise
        time.sleep(_BUSY_PAUSE)


class Netlink(AbstractContextManager["Netlink"]):
    """One rtnetlink socket, bound to the network namespace it was opened in. To be used by one thread.

    What an ADD or DEL asks goes by Rtnl, the rest by pyroute2, whose socket is opened when it is needed.
    """

    def __init__(self) -> None:
        self._lean = Rtnl()

    @cached_property
    def _route(self) -> Any:
        return IPRoute()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lean.close()
        if "_route" in vars(self):
            self._route.close()

    def __enter__(self) -> Self:
        return self

    def devices(self) -> tuple[NetDevice, ...]:
        """All network interfaces of this namespace."""
        return tuple(_describe(link) for link in self._lean.links())

    def find(self, name: str) -> NetDevice | None:
        """The interface of that name in this namespace, if there is one."""
        link = self._lean.find(name)
        return _describe(link) if link else None

    def look(self, name: str) -> Link | None:
        """The interface of that name with its flags and altnames, if there is one."""
        return self._lean.find(name)

    def find_by_pci(self, address: str) -> NetDevice | None:
        """The interface in this namespace that belongs to a PCI function (IFLA_PARENT_DEV_NAME, Linux 5.14)."""
        link = self.look_by_pci(address)
        return _describe(link) if link else None

    def look_by_pci(self, address: str, name: str = "") -> Link | None:
        """As `find_by_pci`, with flags and altnames. `name` is where to look first."""
        link = self._lean.find(name) if name else None
        if link and link.parent == address:
            return link
        return next((link for link in self._lean.links() if link.parent == address), None)

    def altnames(self, ifindex: int) -> tuple[str, ...]:
        """The alternative names of an interface (IFLA_ALT_IFNAME)."""
        link = self._lean.find(ifindex)
        return link.altnames if link else ()

    def remove_altname(self, ifindex: int, altname: str) -> None:
        """Take an alternative name away from an interface."""
        with _explain(f"removing altname {altname}"):
            self._route.link("property_del", index=ifindex, altname=altname)

    def add_altname(self, ifindex: int, altname: str) -> None:
        """Give an interface an alternative name."""
        with _explain(f"adding altname {altname}"):
            self._route.link("property_add", index=ifindex, altname=altname)

    def vf_settings(self, pf_ifindex: int) -> dict[int, VfSettings]:
        """Settings of all VFs of a PF, by VF index."""
        return self._lean.all_vf_settings(pf_ifindex)

    def find_with_vf(self, name: str | int, index: int) -> tuple[Link, VfSettings | None] | None:
        """A PF of that name or ifindex in this namespace, and the settings of one of its VFs, by one request."""
        return self._lean.find_with_vf(name, index)

    def set_vf(self, pf_ifindex: int, index: int, changes: Mapping[str, Any]) -> None:
        """Change settings of one VF, in one request. `changes` has the names and values of VfSettings.

        VLAN and QoS go together, as do the two rates: pass both. Raises KernelError when the PF's driver refuses.
        """
        said = ", ".join(f"{name} {value}" for name, value in changes.items())
        what = f"setting {said} of VF {index}"
        _change(lambda: self._lean.set_vf(pf_ifindex, index, changes, what))

    def set_link(self, ifindex: int, what: str, **attributes: Any) -> None:
        """Change attributes of an interface in one request: `state`, `mtu`, `address`, `ifname`, `net_ns_fd`.

        Raises KernelError beginning with `what`.
        """
        _change(lambda: self._lean.set_link(ifindex, what, **attributes))

    def flags(self, ifindex: int) -> tuple[bool, bool]:
        """Whether somebody set the interface promiscuous, and to take all multicast."""
        link = self._lean.find(ifindex)
        flags = link.flags if link else 0
        return bool(flags & _IFF_PROMISC), bool(flags & _IFF_ALLMULTI)

    def set_flags(self, ifindex: int, what: str, *, promisc: bool | None = None, allmulti: bool | None = None) -> None:
        """Set an interface promiscuous, or to take all multicast, or not; None leaves it. Raises KernelError."""
        wanted = {_IFF_PROMISC: promisc, _IFF_ALLMULTI: allmulti}
        mask = sum(bit for bit, value in wanted.items() if value is not None)
        if mask:
            self.set_link(ifindex, what, flags=sum(bit for bit, value in wanted.items() if value), change=mask)

    def add_address(self, ifindex: int, address: str, *, dad: bool = True) -> None:
        """Give an interface an address in CIDR form, like `10.0.0.2/24` or `fd00::2/64`; the latter without DAD."""
        self._lean.add_address(ifindex, address, dad=dad)

    def pending_addresses(self, ifindex: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """IPv6 addresses whose duplicate address detection still runs, and those that it found taken."""
        found = [(address.text.partition("/")[0], address.flags) for address in self._lean.addresses(ifindex)]
        failed = tuple(address for address, flags in found if flags & _IFA_F_DADFAILED)
        return tuple(a for a, flags in found if flags & _IFA_F_TENTATIVE and a not in failed), failed

    def addresses(self, ifindex: int) -> tuple[str, ...]:
        """The addresses of an interface in CIDR form."""
        return tuple(address.text for address in self._lean.addresses(ifindex))

    def add_route(self, ifindex: int, destination: str, gateway: str | None, **more: Any) -> None:
        """Add a route by an interface. NLM_F_APPEND: the same destination twice becomes multipath, as CNI asks.

        `more` may be `priority`, `table`, `scope`, and `metrics` with `mtu` and `advmss`.
        """
        self._lean.add_route(ifindex, destination, gateway, **more)

    def routes(self, ifindex: int) -> tuple[Route, ...]:
        """The routes by an interface, of all tables."""
        return tuple(
            _read_route(route, family)
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in self._dump(partial(self._route.get_routes, family=family))
            if ifindex in _route_interfaces(route)
        )

    def _dump(self, ask: Callable[[], Any]) -> list[Any]:
        for _ in range(_DUMP_ATTEMPTS):
            try:
                return list(ask())
            except NetlinkDumpInterrupted:
                continue
        raise KernelError("listing was interrupted by changes too often", errno=errno.EINTR)


def _describe(link: Link) -> NetDevice:
    return NetDevice(link.name, link.ifindex, link.mac, link.mtu, link.up, link.carrier)


def _read_route(route: Any, family: int) -> Route:
    bits = 32 if family == socket.AF_INET else 128
    address = route.get("RTA_DST") or ("0.0.0.0" if bits == 32 else "::")  # noqa: PLR2004, S104 - bits of IPv4; a network
    network = ipaddress.ip_network(f"{address}/{route['dst_len']}")
    return Route(str(network), route.get("RTA_GATEWAY"), route.get("RTA_TABLE") or route["table"])


def _route_interfaces(route: Any) -> set[int]:
    """The interfaces of a route, also where it is multipath."""
    return {route.get("RTA_OIF"), *(hop["oif"] for hop in route.get("RTA_MULTIPATH") or [])}
