"""A representor as a port of an Open vSwitch bridge. A port of ours is known by its external ids, not by its name.

The ids are those of ovs-cni (contNetns, contIface, owner), with the container's id beside them. The database outlives
a reboot: what an ADD puts there is taken out by its release, whatever has become of the representor meanwhile.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cni.protocol.bridging import Bridging
from cni.protocol.spec import DEVICE_IN_USE
from cni.vf import ovsdb
from cni.vf.ovsdb import Ovsdb, Row
from cni.vf.settings import Vf
from sriovdp.errors import CniError, DeviceError, VerifyError
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.link import Link
from sriovdp.state.journal import Attachment
from sriovdp.vlans import VlanIds

logger = logging.getLogger(__name__)

OWNER = "sriovdp"

_OVS_CNI = "ovs-cni.network.kubevirt.io"  # pkg/ovsdb/ovsdb.go of ovs-cni
_PATIENCE = 10.0  # seconds for ovs-vswitchd to do what the database says
_PAUSE = 0.02
_HINT = "start ovs-vswitchd; `ovs-vsctl show` and its log say what it does"


@dataclass(frozen=True, slots=True)
class Port:
    """One port. `uuid` is what the database calls it."""

    uuid: Any
    name: str
    ids: dict[str, str]
    row: Row


def is_running() -> bool:
    """Whether Open vSwitch's database is here to be asked."""
    return ovsdb.SOCKET.is_socket()


def is_bridge(name: str) -> bool:
    """Whether Open vSwitch has a bridge of that name. Raises DeviceError when it cannot be asked."""
    if not is_running():
        return False
    with Ovsdb() as database:
        return bool(database.select("Bridge", [["name", "==", name]]))


def clear_port(vf: Vf, representor: str) -> bool:
    """Remove a port that an attachment left behind, of ours or of ovs-cni's. Gives whether there was one.

    The caller holds the VF's lock. Raises CniError when the port is of somebody who may still use it, DeviceError.
    """
    with Ovsdb() as database:
        ports = _list_ports(database, [["name", "==", representor]])
        for port in ports:
            if not _is_left_behind(port):
                raise CniError(
                    DEVICE_IN_USE,
                    f"{vf}: its representor {representor} is a port of Open vSwitch already{_describe(port)}",
                    hint=f"take it out if nobody needs it: ovs-vsctl del-port {representor}",
                )
            logger.warning(
                "%s: removing the port %s of Open vSwitch, which was left behind%s", vf, port.name, _describe(port)
            )
            _remove(database, port)
    return bool(ports)


def join_bridge(netlink: Netlink, representor: Link, wanted: Bridging, attachment: Attachment) -> None:
    """Make a representor a port of the bridge. Raises DeviceError when Open vSwitch does not take it."""
    what = f"putting the representor {representor.name} into the Open vSwitch bridge {wanted.bridge}"
    interface = {"name": representor.name, "external_ids": ovsdb.write_map({"owner": OWNER})}
    port = {
        "name": representor.name,
        "interfaces": ["named-uuid", "interface"],
        "external_ids": ovsdb.write_map(_list_ids(attachment)),
        **_describe_vlans(wanted),
    }
    with Ovsdb() as database:
        results = database.transact(
            {"op": "insert", "table": "Interface", "row": interface, "uuid-name": "interface"},
            {"op": "insert", "table": "Port", "row": port, "uuid-name": "port"},
            {
                "op": "mutate",
                "table": "Bridge",
                "where": [["name", "==", wanted.bridge]],
                "mutations": [["ports", "insert", ["named-uuid", "port"]]],
            },
        )
        if results[2].get("count") != 1:
            raise VerifyError(
                f"{what} failed: the bridge vanished", hint=f"make it again: ovs-vsctl add-br {wanted.bridge}"
            )
        _wait_for_port(database, netlink, representor, what)


def leave_bridge(attachment: Attachment) -> None:
    """Remove the attachment's ports, whatever they are called and wherever they are. Raises DeviceError."""
    ids = _list_ids(attachment)
    wanted = [
        ["external_ids", "includes", ovsdb.write_map({key: ids[key] for key in ("owner", "contId", "contIface")})]
    ]
    with Ovsdb() as database:
        for port in _list_ports(database, wanted):
            _remove(database, port)


def wait_until_free(netlink: Netlink, representor: Link) -> None:
    """Wait until the kernel's datapath has let a representor go. Raises VerifyError when it does not."""
    deadline = time.monotonic() + _PATIENCE
    while (now := netlink.find(representor.ifindex)) and now.master:
        if time.monotonic() > deadline:
            raise VerifyError(
                f"the representor {now.name} is still in Open vSwitch's datapath",
                hint="restart ovs-vswitchd, which then takes out what its database does not have",
            )
        time.sleep(_PAUSE)


def compare_port(representor: Link, wanted: Bridging, attachment: Attachment) -> list[str]:
    """What is not as `join_bridge` made it, a sentence each. Raises DeviceError."""
    with Ovsdb() as database:
        ports = _list_ports(database, [["name", "==", representor.name]])
        bridges = database.select("Bridge", [["name", "==", wanted.bridge]], "ports")
    members = [member for bridge in bridges for member in ovsdb.list_set(bridge.get("ports"))]
    ours = [port for port in ports if port.uuid in members and port.ids.get("owner") == OWNER]
    if not ours or ours[0].ids.get("contId") != attachment.container_id or not representor.master:
        return [f"its representor {representor.name} is not in the bridge {wanted.bridge}"]
    now, expected = _read_vlans(ours[0].row), _read_vlans(_describe_vlans(wanted))
    return [] if now == expected else [f"VLANs of its representor {representor.name} are {now}, {expected} were set"]


def _list_ids(attachment: Attachment) -> dict[str, str]:
    ids = {"owner": OWNER, "contNetns": attachment.netns, "contIface": attachment.ifname}
    return ids | {"contId": attachment.container_id, "pod": attachment.pod}


def _describe_vlans(wanted: Bridging) -> Row:
    """As ovs-vswitchd.conf.db(5) has it; without all of it the port is a trunk of every VLAN."""
    if wanted.vlan is None:
        return {"vlan_mode": "trunk", "trunks": ovsdb.write_set(list(wanted.trunk))} if wanted.trunk else {}
    if not wanted.trunk:
        return {"vlan_mode": "access", "tag": wanted.vlan}
    trunks = ovsdb.write_set(list(wanted.trunk))
    return {"vlan_mode": "native-untagged", "tag": wanted.vlan, "trunks": trunks}


def _read_vlans(row: Row) -> str:
    mode, tag, trunks = (ovsdb.list_set(row.get(name, ["set", []])) for name in ("vlan_mode", "tag", "trunks"))
    numbers = VlanIds.of(number for number in trunks if isinstance(number, int))
    words = (*(f"{number} untagged" for number in tag), str(numbers), *(f"({word})" for word in mode))
    return " ".join(filter(None, words)) or "all"


def _list_ports(database: Ovsdb, where: list[list[Any]]) -> list[Port]:
    rows = database.select("Port", where, "name", "external_ids", "vlan_mode", "tag", "trunks")
    return [Port(row["_uuid"], str(row.get("name")), ovsdb.read_map(row.get("external_ids")), row) for row in rows]


def _remove(database: Ovsdb, port: Port) -> None:
    """Take a port out of its bridge; its row and its interface's go with the last one that names them."""
    database.transact(
        {
            "op": "mutate",
            "table": "Bridge",
            "where": [["ports", "includes", port.uuid]],
            "mutations": [["ports", "delete", port.uuid]],
        }
    )


def _is_left_behind(port: Port) -> bool:
    """Whether its owner is gone: the VF is nobody's, so a port of ours is; of ovs-cni's, by its namespace."""
    if port.ids.get("owner") == OWNER:
        return True
    netns = port.ids.get("contNetns", "")
    return port.ids.get("owner") == _OVS_CNI and netns.startswith("/") and not Path(netns).exists()


def _describe(port: Port) -> str:
    owner = port.ids.get("owner")
    return f", made by {owner[:80]!r}" if owner else ""


def _wait_for_port(database: Ovsdb, netlink: Netlink, representor: Link, what: str) -> None:
    """Wait until the datapath has the port. Raises DeviceError with ovs-vswitchd's own words when it never does."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        rows = database.select("Interface", [["name", "==", representor.name]], "ofport", "error")
        errors = [str(said) for row in rows for said in ovsdb.list_set(row.get("error")) if said]
        numbers = [number for row in rows for number in ovsdb.list_set(row.get("ofport"))]
        if errors or not rows or -1 in numbers:
            raise DeviceError(f"{what} failed: {errors[0] if errors else 'ovs-vswitchd refused it'}", hint=_HINT)
        now = netlink.find(representor.ifindex)
        if numbers and now and now.master:
            return
        if time.monotonic() > deadline:
            raise DeviceError(f"{what} failed: ovs-vswitchd did not take it in {_PATIENCE:.0f} seconds", hint=_HINT)
        time.sleep(_PAUSE)
