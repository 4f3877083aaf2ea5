"""Which interfaces carry the host's default route, directly or through a bond, bridge or VLAN on top of them."""

from pathlib import Path

from sriovdp.kernel.sysfs import list_names, read_text

_IPV6_ANY = "0" * 32


def default_route_devices(proc_net: Path = Path("/proc/net")) -> frozenset[str]:
    """Interfaces with a default route, v4 or v6, in the main table of this process's network namespace."""
    v4 = [line.split() for line in (read_text(proc_net / "route") or "").splitlines()[1:]]
    v6 = [line.split() for line in (read_text(proc_net / "ipv6_route") or "").splitlines()]
    names = {fields[0] for fields in v4 if fields[1] == fields[7] == "00000000"}
    names |= {fields[-1] for fields in v6 if fields[0] == _IPV6_ANY and fields[1] == "00"}
    return frozenset(names - {"lo"})


def carries_route(net: Path, name: str, routes: frozenset[str]) -> bool:
    """Whether an interface, or one stacked on it, is among `routes`. `net` is the folder of all interfaces."""
    uppers = [entry.removeprefix("upper_") for entry in list_names(net / name) if entry.startswith("upper_")]
    return name in routes or any(carries_route(net, upper, routes) for upper in uppers)
