"""Links, VF settings, addresses and routes by rtnetlink, in the network namespace of the calling thread."""

import errno
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from sriovdp.errors import KernelError
from sriovdp.model import NetDevice, VfSettings

_IFF_UP = 0x1
_RTEXT_FILTER_VF = 1  # linux/rtnetlink.h; without it the kernel leaves the VF list out
_RTEXT_FILTER_SKIP_STATS = 8  # VF counters would make the list overflow its 64 KiB at 222 VFs
_LINK_STATES = ("auto", "enable", "disable")  # IFLA_VF_LINK_STATE_* of linux/if_link.h, by number
_PROTOCOLS = {0x8100: "802.1Q", 0x88A8: "802.1ad"}
_DUMP_ATTEMPTS = 5  # as containernetworking/plugins pkg/netlinksafe: a changing table interrupts a dump


@contextmanager
def _explain(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise KernelError(
            f"{what} failed: {error.args[1] if len(error.args) > 1 else error}", errno=error.code
        ) from error


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
        for _ in range(_DUMP_ATTEMPTS):
            try:
                return tuple(_read_device(link) for link in self._route.get_links())
            except NetlinkDumpInterrupted:
                continue
        raise KernelError("listing the network interfaces was interrupted by changes too often", errno=errno.EINTR)

    def find(self, name: str) -> NetDevice | None:
        """The interface of that name in this namespace, if there is one."""
        link = self._get(ifname=name)
        return _read_device(link) if link else None

    def find_by_pci(self, address: str) -> NetDevice | None:
        """The interface in this namespace that belongs to a PCI function (IFLA_PARENT_DEV_NAME, Linux 5.14)."""
        for link in self._route.get_links():
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
        return {info.get("IFLA_VF_MAC")["vf"]: _read_settings(info) for info in infos}

    def set_vf(self, pf_ifindex: int, index: int, changes: Mapping[str, Any]) -> None:
        """Change settings of one VF, in one request. `changes` has the names and values of VfSettings.

        VLAN and QoS go together, as do the two rates: pass both. Raises KernelError when the PF's driver refuses.
        """
        said = ", ".join(f"{name} {value}" for name, value in changes.items())
        with _explain(f"setting {said} of VF {index}"):
            self._route.link("set", index=pf_ifindex, vf={"vf": index} | _encode_settings(changes))

    def set_link(self, ifindex: int, what: str, **attributes: Any) -> None:
        """Change attributes of an interface in one request: `state`, `mtu`, `address`, `ifname`, `net_ns_fd`.

        Raises KernelError beginning with `what`.
        """
        with _explain(what):
            self._route.link("set", index=ifindex, **attributes)

    def add_address(self, ifindex: int, address: str) -> None:
        """Give an interface an address in CIDR form, like `10.0.0.2/24` or `fd00::2/64`."""
        with _explain(f"adding address {address}"):
            local, _, prefix = address.partition("/")
            self._route.addr("add", index=ifindex, address=local, prefixlen=int(prefix))

    def addresses(self, ifindex: int) -> tuple[str, ...]:
        """The addresses of an interface in CIDR form."""
        found = self._route.get_addr(index=ifindex)
        return tuple(f"{entry.get('IFA_ADDRESS')}/{entry['prefixlen']}" for entry in found)

    def add_route(self, ifindex: int, destination: str, gateway: str | None) -> None:
        """Add a route by an interface. NLM_F_APPEND: the same destination twice becomes multipath, as CNI asks."""
        with _explain(f"adding route {destination}"):
            hop = {"gateway": gateway} if gateway else {"scope": 253}  # 253: RT_SCOPE_LINK
            family = socket.AF_INET6 if ":" in destination else socket.AF_INET
            self._route.route("append", dst=destination, oif=ifindex, family=family, **hop)

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


def _read_settings(info: Any) -> VfSettings:
    vlan = info.get("IFLA_VF_VLAN") or {"vlan": 0, "qos": 0}
    tagged = info.get("IFLA_VF_VLAN_LIST")
    entry = tagged.get("IFLA_VF_VLAN_INFO") if tagged else None
    rate = info.get("IFLA_VF_RATE") or {"min_tx_rate": 0, "max_tx_rate": 0}
    state = info.get("IFLA_VF_LINK_STATE")
    return VfSettings(
        mac=info.get("IFLA_VF_MAC")["mac"],
        vlan=vlan["vlan"],
        qos=vlan["qos"],
        vlan_proto=_PROTOCOLS.get(entry["proto"], "802.1Q") if entry else "802.1Q",
        spoofchk=_read_switch(info.get("IFLA_VF_SPOOFCHK"), "spoofchk"),
        trust=_read_switch(info.get("IFLA_VF_TRUST"), "trust"),
        link_state=_LINK_STATES[state["link_state"]] if state and state["link_state"] < len(_LINK_STATES) else None,
        min_tx_rate=rate["min_tx_rate"],
        max_tx_rate=rate["max_tx_rate"],
    )


def _read_switch(attribute: Any | None, name: str) -> bool | None:
    """The kernel fills in -1 (all bits) where the driver does not tell."""
    return None if attribute is None or attribute[name] not in (0, 1) else bool(attribute[name])


def _encode_settings(changes: Mapping[str, Any]) -> dict[str, Any]:
    encoded: dict[str, Any] = {}
    if "mac" in changes:
        encoded["mac"] = changes["mac"]
    if "vlan" in changes:
        encoded["vlan"] = {"vlan": changes["vlan"], "qos": changes["qos"]}
    if "max_tx_rate" in changes:
        encoded["rate"] = {"min_tx_rate": changes["min_tx_rate"], "max_tx_rate": changes["max_tx_rate"]}
    if "link_state" in changes:
        encoded["link_state"] = _LINK_STATES.index(changes["link_state"])
    for switch in ("spoofchk", "trust"):
        if switch in changes:
            encoded[switch] = int(changes[switch])
    return encoded
