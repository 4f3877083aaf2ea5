"""Everything that the usual tools print of an interface, to compare it with what they printed before."""

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

Run = Callable[[Sequence[str]], str]
"""Runs a command, on the host or in a sandbox, and gives what it printed."""

_COMMANDS = (
    "ip -d -j link show dev {}",
    "ip -d -j address show dev {}",
    "ip -j maddress show dev {}",
    "ip -j neighbour show dev {}",
    "ip -j route show table all dev {}",
    "tc -j qdisc show dev {}",
    "tc -j filter show dev {} ingress",
    "tc -j filter show dev {} egress",
    "bridge -j fdb show dev {}",
    "bpftool -j net show dev {}",
    *(f"ethtool {option} {{}}" for option in ["-i", "-k", "-g", "-l", "-c", "-a", "-x", "-n", "-T", "-m"]),
    "ethtool {}",
    "ethtool --show-priv-flags {}",
    "ethtool --show-eee {}",
)
_FIXED = {
    "ifindex",
    "link_index",
    "operstate",
    "qdisc",
    "index",
    "ino",
    "tentative",
    "optimistic",
}  # another netdev, or up and down
_TREES = (
    "/sys/class/net/{}",
    "/proc/sys/net/ipv4/conf/{}",
    "/proc/sys/net/ipv6/conf/{}",
    "/proc/sys/net/ipv4/neigh/{}",
)
_COUNTERS = re.compile(
    r"carrier|statistics|ifindex|iflink|operstate|uevent|power/|inflight|limit$|stall_|dev_id|speed|duplex|name_assign"
)


def look_closely(name: str, run: Run) -> dict[str, Any]:
    """What each command and each file says of an interface, without what differs each time."""
    found: dict[str, Any] = {}
    for command in _COMMANDS:
        printed = run(command.format(name).split()).replace(name, "NETDEV")
        found[command] = _drop(json.loads(printed)) if printed.startswith(("[", "{")) else printed
    for tree in _TREES:
        listed = run(["sh", "-c", f"cd {tree.format(name)} && grep -r . . 2>/dev/null | sort"]).replace(name, "NETDEV")
        found[tree] = [line for line in listed.splitlines() if not _COUNTERS.search(line.partition(":")[0])]
    return found


def run_here(command: Sequence[str]) -> str:
    """Run a command on the host."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def list_differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is not the same, for a person: the lines and values of one side only."""
    found = []
    for key in before:
        old, new = (_flatten(look[key]) for look in (before, after))
        if old != new:
            found.append(f"{key}: {sorted(old - new)} became {sorted(new - old)}")
    return found


def _flatten(value: Any) -> set[str]:
    if isinstance(value, str):
        return set(value.splitlines())
    if isinstance(value, dict):
        return {f"{key}={inner}" for key, inner in value.items()}
    return {text for inner in value for text in (_flatten(inner) if isinstance(inner, dict) else {str(inner)})}


def _drop(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop(inner) for key, inner in value.items() if key not in _FIXED}
    return [_drop(inner) for inner in value] if isinstance(value, list) else value
