"""Links, VF settings, addresses and routes by rtnetlink, in the network namespace of the calling thread."""

import errno
import ipaddress
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from sriovdp.errors import KernelError
from sriovdp.kernel.vfinfo import decode_settings, encode_settings
from sriovdp.model import NetDevice, VfSettings

_IFF_UP, _IFF_PROMISC, _IFF_ALLMULTI = 0x1, 0x100, 0x200  # linux/if.h
_IFA_F_NODAD, _IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x02, 0x08, 0x40  # linux/if_addr.h
_RT_SCOPE_LINK = 253
_RTEXT_FILTER_VF = 1  # linux/rtnetlink.h; without it the kernel leaves the VF list out
_RTEXT_FILTER_SKIP_STATS = 8  # VF counters would make the list overflow its 64 KiB at 222 VFs
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


def _change(what: str, request: Callable[[], Any]) -> None:
    """Make a change, again and again while the device is busy. Raises KernelError beginning with `what`."""
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            with _explain(what):
                request()
            return
        except KernelError as error:
            if error.errno not in {errno.EBUSY, errno.EAGAIN} or time.monotonic() > deadline:
                raise
        time.sleep(_BUSY_PAUSE)


class Netlink(AbstractContextManager["Netlink"]):
    """One rtnetlink socket, bound to the network namespace it was opened in. To be used by one thread."""

    def __init__(self) -> None:
        self._route = IPRoute()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._route.close()

    def __enter__(self) -> Self:
        return self

    def devices(self) -> tuple[NetDevice, ...]:
        """All network interfaces of this namespace."""
        return tuple(_read_device(link) for link in self._dump(self._route.get_links))

    def find(self, name: str) -> NetDevice | None:
        """The interface of that name in this namespace, if there is one."""
        link = self._get(ifname=name)
        return _read_device(link) if link else None

    def find_by_pci(self, address: str) -> NetDevice | None:
        """The interface in this namespace that belongs to a PCI function (IFLA_PARENT_DEV_NAME, Linux 5.14)."""
        for link in self._dump(self._route.get_links):
            if link.get("IFLA_PARENT_DEV_NAME") == address:
                return _read_device(link)
        return None

    def altnames(self, ifindex: int) -> tuple[str, ...]:
        """The alternative names of an interface (IFLA_ALT_IFNAME)."""
        link = self._get(index=ifindex)
        properties = link.get("IFLA_PROP_LIST") if link else None
        return tuple(properties.altnames()) if properties else ()

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
        link = self._get(index=pf_ifindex, ext_mask=_RTEXT_FILTER_VF | _RTEXT_FILTER_SKIP_STATS)
        listing = link.get("IFLA_VFINFO_LIST") if link else None
        infos = listing.get_attrs("IFLA_VF_INFO") if listing else []
        return {info.get("IFLA_VF_MAC")["vf"]: decode_settings(info) for info in infos}

    def set_vf(self, pf_ifindex: int, index: int, changes: Mapping[str, Any]) -> None:
        """Change settings of one VF, in one request. `changes` has the names and values of VfSettings.

        VLAN and QoS go together, as do the two rates: pass both. Raises KernelError when the PF's driver refuses.
        """
        said = ", ".join(f"{name} {value}" for name, value in changes.items())
        _change(
            f"setting {said} of VF {index}",
            lambda: self._route.link("set", index=pf_ifindex, vf={"vf": index} | encode_settings(changes)),
        )

    def set_link(self, ifindex: int, what: str, **attributes: Any) -> None:
        """Change attributes of an interface in one request: `state`, `mtu`, `address`, `ifname`, `net_ns_fd`.

        Raises KernelError beginning with `what`.
        """
        _change(what, lambda: self._route.link("set", index=ifindex, **attributes))

    def flags(self, ifindex: int) -> tuple[bool, bool]:
        """Whether somebody set the interface promiscuous, and to take all multicast."""
        link = self._get(index=ifindex)
        flags = link["flags"] if link else 0
        return bool(flags & _IFF_PROMISC), bool(flags & _IFF_ALLMULTI)

    def set_flags(self, ifindex: int, what: str, *, promisc: bool | None = None, allmulti: bool | None = None) -> None:
        """Set an interface promiscuous, or to take all multicast, or not; None leaves it. Raises KernelError."""
        wanted = {_IFF_PROMISC: promisc, _IFF_ALLMULTI: allmulti}
        mask = sum(bit for bit, value in wanted.items() if value is not None)
        if mask:
            self.set_link(ifindex, what, flags=sum(bit for bit, value in wanted.items() if value), change=mask)

    def add_address(self, ifindex: int, address: str, *, dad: bool = True) -> None:
        """Give an interface an address in CIDR form, like `10.0.0.2/24` or `fd00::2/64`; the latter without DAD."""
        local, _, prefix = address.partition("/")
        flags = {} if dad or ":" not in address else {"flags": _IFA_F_NODAD}
        with _explain(f"adding address {address}"):
            self._route.addr("add", index=ifindex, address=local, prefixlen=int(prefix), **flags)

    def pending_addresses(self, ifindex: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """IPv6 addresses whose duplicate address detection still runs, and those that it found taken."""
        found = [(entry.get("IFA_ADDRESS"), entry.get("IFA_FLAGS") or 0) for entry in self._dump_addresses(ifindex)]
        failed = tuple(address for address, flags in found if flags & _IFA_F_DADFAILED)
        return tuple(a for a, flags in found if flags & _IFA_F_TENTATIVE and a not in failed), failed

    def addresses(self, ifindex: int) -> tuple[str, ...]:
        """The addresses of an interface in CIDR form."""
        return tuple(f"{entry.get('IFA_ADDRESS')}/{entry['prefixlen']}" for entry in self._dump_addresses(ifindex))

    def add_route(self, ifindex: int, destination: str, gateway: str | None, **more: Any) -> None:
        """Add a route by an interface. NLM_F_APPEND: the same destination twice becomes multipath, as CNI asks.

        `more` may be `priority`, `table`, `scope`, and `metrics` with `mtu` and `advmss`.
        """
        with _explain(f"adding route {destination}"):
            hop = {"gateway": gateway} if gateway else {"scope": _RT_SCOPE_LINK}
            family = socket.AF_INET6 if ":" in destination else socket.AF_INET
            self._route.route("append", dst=destination, oif=ifindex, family=family, **(hop | more))

    def routes(self, ifindex: int) -> tuple[Route, ...]:
        """The routes by an interface, of all tables."""
        return tuple(
            _read_route(route, family)
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in self._dump(partial(self._route.get_routes, family=family))
            if ifindex in _route_interfaces(route)
        )

    def _dump_addresses(self, ifindex: int) -> list[Any]:
        return self._dump(lambda: self._route.get_addr(index=ifindex))

    def _dump(self, ask: Callable[[], Any]) -> list[Any]:
        for _ in range(_DUMP_ATTEMPTS):
            try:
                return list(ask())
            except NetlinkDumpInterrupted:
                continue
        raise KernelError("listing was interrupted by changes too often", errno=errno.EINTR)

    def _get(self, **key: Any) -> Any | None:
        try:
            return self._route.link("get", **key)[0]
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise KernelError(f"reading interface {next(iter(key.values()))} failed", errno=error.code) from error


def _read_device(link: Any) -> NetDevice:
    up = bool(link["flags"] & _IFF_UP)
    return NetDevice(
        name=link.get("IFLA_IFNAME"),
        ifindex=link["index"],
        mac=link.get("IFLA_ADDRESS") or "",
        mtu=link.get("IFLA_MTU") or 0,
        up=up,
        carrier=bool(link.get("IFLA_CARRIER")) if up else None,
    )


def _read_route(route: Any, family: int) -> Route:
    bits = 32 if family == socket.AF_INET else 128
    address = route.get("RTA_DST") or ("0.0.0.0" if bits == 32 else "::")  # noqa: PLR2004, S104 - bits of IPv4; a network
    network = ipaddress.ip_network(f"{address}/{route['dst_len']}")
    return Route(str(network), route.get("RTA_GATEWAY"), route.get("RTA_TABLE") or route["table"])


def _route_interfaces(route: Any) -> set[int]:
    """The interfaces of a route, also where it is multipath."""
    return {route.get("RTA_OIF"), *(hop["oif"] for hop in route.get("RTA_MULTIPATH") or [])}
