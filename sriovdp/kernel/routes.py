"""What this host itself needs its interfaces for: default routes, its own addresses, interfaces stacked on them."""

import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path

from sriovdp.kernel.sysfs import Folder, read_text

_IPV6_ANY = "0" * 32
_UPPER = "upper_"
_MAX_STACK = 8  # MAX_NEST_DEV of linux/netdevice.h


def list_default_routes(proc_net: Path = Path("/proc/net")) -> frozenset[str]:
    """Interfaces with a default route, v4 or v6, in the main table of this process's network namespace."""
    v4 = [line.split() for line in (read_text(proc_net / "route") or "").splitlines()[1:]]
    v6 = [line.split() for line in (read_text(proc_net / "ipv6_route") or "").splitlines()]
    names = {fields[0] for fields in v4 if fields[1] == fields[7] == "00000000"}
    names |= {fields[-1] for fields in v6 if fields[0] == _IPV6_ANY and fields[1] == "00"}
    return frozenset(names - {"lo"})


def list_stack(net: Folder, name: str, depth: int = 0) -> Iterator[str]:
    """The interface itself and all that are stacked on it: bonds, bridges, VLANs. `net` is `class/net` of sysfs."""
    yield name
    if depth < _MAX_STACK:
        uppers = (entry.removeprefix(_UPPER) for entry in net.folder(name).names if entry.startswith(_UPPER))
        for upper in sorted(uppers):
            yield from list_stack(net, upper, depth + 1)


def is_of_host(addresses: Iterable[str]) -> bool:
    """Whether one of these addresses (CIDR) is more than link-local, which the kernel gives an interface by itself."""
    return any(not ipaddress.ip_interface(address).is_link_local for address in addresses)
