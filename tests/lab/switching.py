"""What the tests of representors and VLANs share."""

import json
from pathlib import Path
from typing import Any

from tests.fakes.runtime import Sandbox
from tests.lab.vnic_cards import Card, run


def representor(card: Card, index: int = 0) -> dict[str, Any]:
    """What `ip` says of the representor of a VF."""
    for path in Path("/sys/class/net").iterdir():
        done = run("cat", str(path / "phys_port_name"))
        if done.stdout.strip() == f"pf0vf{index}" and (path / "device").resolve().name == card.address:
            link: dict[str, Any] = json.loads(run("ip", "-j", "link", "show", "dev", path.name).stdout)[0]
            return link
    raise AssertionError("no representor")


def tag_in(pod: Sandbox, vlan: int, address: str) -> None:
    """Give a pod an interface of its own for frames with a tag."""
    for words in (
        f"link add link net1 name net1.{vlan} type vlan id {vlan}",
        f"address add {address} dev net1.{vlan}",
        f"link set dev net1.{vlan} up",
    ):
        done = pod.run("ip", *words.split())
        assert done.returncode == 0, done.stderr
