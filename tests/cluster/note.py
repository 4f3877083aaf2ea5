"""The pod of the application note, as its section 4.3 shows it from inside and on the PF."""

import re
import subprocess

_MAC = r"([0-9A-F]{2}:){5}[0-9A-F]{2}"

# section 4.3, item 1, with addresses and counters that are of that pod left open; {} is where a value is compared
_EXPECTED = {
    "eth0": [
        rf"eth0\s+Link encap:Ethernet\s+HWaddr {_MAC}",
        r"inet addr:192\.168\.42\.\d+\s+Bcast:\S+\s+Mask:255\.255\.255\.0",
        r"inet6 addr: fe80::\S+/64\s+Scope:Link",
        r"UP BROADCAST RUNNING MULTICAST\s+MTU:1500\s+Metric:1",
    ],
    "lo": [
        r"lo\s+Link encap:Local Loopback",
        r"inet addr:127\.0\.0\.1\s+Mask:255\.0\.0\.0",
        r"inet6 addr: ::1/128\s+Scope:Host",
        r"UP LOOPBACK RUNNING\s+MTU:65536\s+Metric:1",
    ],
    "net0": [
        rf"net0\s+Link encap:Ethernet\s+HWaddr {_MAC}",
        r"inet addr:10\.56\.217\.17[1-9]\s+Bcast:\S+\s+Mask:255\.255\.255\.0",
        r"inet6 addr: fe80::\S+/64\s+Scope:Link",
        r"UP BROADCAST RUNNING MULTICAST\s+MTU:1500\s+Metric:1",
    ],
    "north": [
        rf"north\s+Link encap:Ethernet\s+HWaddr {_MAC}",
        r"inet6 addr: fe80::\S+/64\s+Scope:Link",
        r"UP BROADCAST RUNNING MULTICAST\s+MTU:1500\s+Metric:1",
    ],
}


def check_pod(shown: str) -> None:
    """Item 1: what `ifconfig` shows in the pod, line by line, and nothing else."""
    blocks = {block.split()[0]: block for block in shown.split("\n\n") if block.strip()}
    assert blocks.keys() == _EXPECTED.keys()
    for name, lines in _EXPECTED.items():
        for line in lines:
            assert re.search(line, blocks[name]), f"{line} is not in\n{blocks[name]}"
        assert ("inet addr" in blocks[name]) == (name != "north")


def check_pf(netdev: str, vfs: int, tagged: int) -> None:
    """Item 2: what `ip link show` prints of the PF: so many VFs, and the VLAN on the one that is `north`."""
    listed = subprocess.run(["ip", "link", "show", netdev], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"vf (\d+) .*", listed) == [str(index) for index in range(vfs)], listed
    assert re.findall(r"vf (\d+) .*vlan 210,", listed) == [str(tagged)], listed
