"""Every key of a network of ours, once: how it is read, what it does, in which mode, and what can forbid it.

Parsing, "did you mean", the warnings about keys without effect, the node's policy and the tables in docs/cni.md come
from here. A new key needs a line in KEYS, a field in NetConf, and the code that uses it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cni.policy import Policy
from cni.protocol import keys
from cni.protocol.bridging import forbids_bridging, read_bridging, read_vlans
from sriovdp.limits import MAX_MTU, MAX_QOS, MAX_RATE, MAX_VLAN, MIN_MTU

DRIVERS = ("kernel", "vfio-pci", "igb_uio", "uio_pci_generic")
LEVELS = {"panic": 50, "error": 40, "warning": 30, "info": 20, "debug": 10}
DEFAULT_LEVEL = "info"

_MAX_VF = 255
_SYSCTL = re.compile(r"net/(?:ipv4|ipv6|mpls)/(?:conf|neigh)/IFNAME/[a-z0-9_]+")
_P_KEY = re.compile(r"0[xX][0-9a-fA-F]{1,4}")
_MAX_P_KEY = 0x7FFF
_FORBIDDEN_NAMES = frozenset({"eth0", "eth1", "lo"})
_SWITCH = keys.choice({"on": True, "off": False})

Forbid = Callable[[Policy, Any], bool]


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `values` and `meaning` are its row in docs/cni.md.

    `parse` reads the value; None: another key or function does. `field` is the value's name in NetConf, or in its
    `settings` when `on_pf`. A wrong value of a `lenient` key is a warning. `kernel_only`: no effect in DPDK mode.
    `needs` is another key without which it has no effect. `policy` is the node's key that can forbid the value, and
    `forbids` says whether it does. `also` are other spellings that people write, for "did you mean". `since_2017` is
    the table that it stands in.
    """

    name: str
    values: str
    meaning: str
    parse: keys.Parse | None = None
    field: str = ""
    on_pf: bool = False
    lenient: bool = False
    kernel_only: bool = False
    needs: str = ""
    policy: str = ""
    forbids: Forbid | None = None
    also: tuple[str, ...] = ()
    since_2017: bool = False


def _sysctls(key: str, value: Any) -> dict[str, str]:
    """Sysctls of the interface, in the form of the tuning plugin; they vanish with the interface from the pod."""
    if not isinstance(value, dict):
        raise keys.fault(key, value, "an object")
    sysctls = {}
    for name, setting in value.items():
        path = name.replace(".", "/")
        if not _SYSCTL.fullmatch(path) or not isinstance(setting, str):
            raise keys.fault(f"sysctl.{name}", setting, 'a text, for a name like "net.ipv4.conf.IFNAME.arp_filter"')
        sysctls[path] = setting
    return sysctls


def _pf_name(key: str, value: Any) -> str | None:
    if value == "":
        return None
    if not keys.is_ifname(keys.text(key, value)):
        raise keys.fault(key, value, "the netdev of a PF, like enp2s0")
    return str(value)


def _pod_name(key: str, value: Any) -> str | None:
    if value == "":
        return None
    if keys.text(key, value) in _FORBIDDEN_NAMES or not keys.is_ifname(value):
        raise keys.fault(key, value, "a name for an interface, and neither eth0, eth1 nor lo")
    return str(value)


def _l2(key: str, value: Any) -> bool:
    """The application note says it is a string, and uses a boolean."""
    words = {"true": True, "false": False, "": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    return keys.flag(key, value)


def _pf_only(key: str, value: Any) -> None:
    """hustcat's plugin moves the PF itself into the pod."""  # noqa: D403 - a name
    if value not in (False, "", "false"):
        raise keys.fault(key, value, "left out or false: sriovdp attaches VFs and never a PF")


def _p_key(key: str, value: Any) -> None:
    """Read a partition key as ib-kubernetes does; it sets the key at the subnet manager, and nothing is set here.

    It takes hexadecimal digits, and 15 bits: the 16th says how a port is a member (pkg/ib-utils, IsPKeyValid).
    """
    if value == "":
        return
    if not _P_KEY.fullmatch(keys.text(key, value)) or not 0 < int(value, 16) <= _MAX_P_KEY:
        allowed = f"a partition key from 0x1 to {_MAX_P_KEY:#x}, without the bit 0x8000 for full membership"
        raise keys.fault(key, value, allowed)


def _any_forbidden(policy: Policy, sysctls: Mapping[str, str]) -> bool:
    return any(not policy.allows_sysctl(name) for name in sysctls)


KEYS: tuple[Key, ...] = (
    Key("cniVersion", "`0.1.0` to `1.1.0`", "shape of the result; left out, it is 0.1.0"),
    Key("name", "letters, digits, `_`, `.`, `-`", "the network's name. Multus fills it in"),
    Key("type", "`sriov`, `ib-sriov`", "this plugin; the second is for [InfiniBand](#infiniband)"),
    Key(
        "deviceID", "PCI address",
        "the VF. Multus fills it in from the NetworkAttachmentDefinition's annotation "
        "`k8s.v1.cni.cncf.io/resourceName`; `runtimeConfig.deviceID` serves as well",
    ),
    Key("pciBusID", "PCI address", "as `deviceID`, which wins"),
    Key(
        "vlan", "0 to 4094",
        "port VLAN, set on the PF and unseen in the pod; 0 clears it; left out, it stays as it is",
        keys.number(0, MAX_VLAN), "vlan", on_pf=True, also=("vlanid", "vid", "portvlan"),
        policy="allow.vlans", forbids=lambda policy, value: not policy.allows_vlan(value),
    ),
    Key("vlanQoS", "0 to 7", "priority of that VLAN", keys.number(0, MAX_QOS), "qos", on_pf=True, also=("qos", "pcp")),
    Key(
        "vlanProto", "`802.1q`, `802.1ad`", "the latter where the NIC has it",
        keys.choice({"802.1q": "802.1Q", "802.1ad": "802.1ad"}, fold=True), "vlan_proto", on_pf=True,
        also=("vlanprotocol",),
    ),
    Key(
        "mac", "unicast MAC", "`runtimeConfig.mac` wins over `MAC=` of CNI_ARGS, and that over this key",
        field="mac", also=("macaddress", "hwaddr"), policy="allow.mac", forbids=lambda policy, _: not policy.mac,
    ),
    Key(
        "guid", "8 bytes, `02:00:00:00:00:00:00:01`",
        "node GUID and port GUID of an InfiniBand VF. `runtimeConfig.infinibandGUID` wins over `guid` of `args.cni`, "
        "and that over this key",
        field="guid", also=("infinibandguid", "nodeguid", "portguid"),
        policy="allow.guid", forbids=lambda policy, _: not policy.guid,
    ),
    Key(
        "pkey", "`0x1` to `0x7fff`",
        "partition key: ib-kubernetes reads it, and adds the GUID to that partition at the subnet manager. Nothing is "
        "set on the node",
        _p_key, lenient=True, also=("partitionkey",),
    ),
    Key(
        "ibKubernetesEnabled", "`true`, `false`",
        "the pod is attached only when ib-kubernetes has given it a GUID (`mellanox.infiniband.app: configured` in "
        "`args.cni`)",
        keys.flag,
    ),
    Key(
        "rdmaIsolation", "`true`, `false`",
        "the VF's RDMA device goes into the pod's network namespace too: see [RDMA](#rdma)",
        keys.flag, "rdma_isolation", kernel_only=True, also=("rdma", "isrdma"),
    ),
    Key("vfioPciMode", "`true`, `false`", "not needed: the VF's driver says it", keys.flag),
    Key(
        "spoofchk", "`on`, `off`", "MAC spoof check, set on the PF", _SWITCH, "spoofchk", on_pf=True,
        also=("spoofcheck", "spoof"),
        policy="allow.spoofchkOff", forbids=lambda policy, value: not value and not policy.spoofchk_off,
    ),
    Key(
        "trust", "`on`, `off`", "whether the PF trusts the VF; set on the PF", _SWITCH, "trust", on_pf=True,
        also=("trusted",), policy="allow.trust", forbids=lambda policy, value: value and not policy.trust,
    ),
    Key(
        "link_state", "`auto`, `enable`, `disable`", "set on the PF; some NICs refuse it",
        keys.choice({word: word for word in ("auto", "enable", "disable")}), "link_state", on_pf=True,
    ),
    Key(
        "min_tx_rate", "Mbit/s, 0 is none", "set on the PF; left out, it stays as it is",
        keys.number(0, MAX_RATE), "min_tx_rate", on_pf=True, also=("minrate",),
    ),
    Key(
        "max_tx_rate", "Mbit/s, 0 is unlimited", "set on the PF; left out, it stays as it is",
        keys.number(0, MAX_RATE), "max_tx_rate", on_pf=True, also=("maxrate", "rate"),
    ),
    Key(
        "mtu", "68 to 65535",
        "of the interface in the pod. In DPDK mode it is reported and set nowhere, and more than the PF's is refused",
        keys.number(MIN_MTU, MAX_MTU), "mtu",
    ),
    Key(
        "promisc", "`true`, `false`", "of the interface in the pod; most NICs want `trust` for it",
        keys.flag, "promisc", kernel_only=True, also=("promiscuous",),
        policy="allow.promisc", forbids=lambda policy, value: value and not policy.promisc,
    ),
    Key(
        "allmulti", "`true`, `false`", "of the interface in the pod; most NICs want `trust` for it",
        keys.flag, "allmulti", kernel_only=True, also=("allmulticast",),
        policy="allow.allmulti", forbids=lambda policy, value: value and not policy.allmulti,
    ),
    Key(
        "driver", ", ".join(f"`{name}`" for name in DRIVERS),
        "bound for this attachment, and the one of before at its end. The pod gets no device node by it: that is the "
        "pool's to give",
        keys.choice({name: name for name in DRIVERS}), "driver", also=("vfiopci", "dpdkdriver", "devicetype"),
        policy="allow.drivers", forbids=lambda policy, value: value not in policy.drivers,
    ),
    Key(
        "representor", '`{"bridge": "br0", "vlan": 10, "trunk": "5,20-29"}`',
        "in switchdev mode: the bridge, Linux's or Open vSwitch's, that the VF's representor is put into, the VLAN of "
        "frames without a tag, and VLANs that pass with their tag: see [Representors](#representors)",
        read_bridging, "bridging", also=("bridge", "ovsbridge"),
        policy="allow.bridges", forbids=forbids_bridging,
    ),
    Key(
        "vlanTrunk", "`100-110,200`",
        "the VLANs that the pod may use with their tag, and no other: in the bridge of `representor`, else by the PF's "
        "driver, where it has a list of them; see [VLANs that a pod tags](#vlans-that-a-pod-tags)",
        read_vlans, "trunk", also=("trunk", "trunks", "vlantrunks", "vlans"),
        policy="allow.vlans", forbids=lambda policy, value: any(not policy.allows_vlan(vlan) for vlan in value),
    ),
    Key(
        "onUnsupported", "`fail` (default), `warn`",
        "what happens with a setting that the NIC does not have. A VLAN is never left out: it keeps pods apart",
        keys.choice({"fail": False, "warn": True}), "skips_unsupported",
    ),
    Key(
        "dad", "`optimistic` (default), `wait`, `off`",
        "IPv6 duplicate address detection: addresses are usable at once; ADD answers when it is over, and fails for an "
        "address that another host has; or none",
        keys.choice({word: word for word in ("optimistic", "wait", "off")}), "dad", kernel_only=True,
    ),
    Key(
        "sysctl", '`{"net.ipv4.conf.IFNAME.arp_filter": "1"}`', "sysctls of the interface, below `conf` and `neigh`",
        _sysctls, "sysctls", kernel_only=True, also=("sysctls",),
        policy="allow.sysctls", forbids=_any_forbidden,
    ),
    Key(
        "ipam", "an IPAM plugin's configuration",
        "in DPDK mode its addresses are reported and set nowhere; `dhcp` is refused then",
    ),
    Key("dns", "as in the specification", "for the result, unless the IPAM plugin gives its own"),
    Key(
        "logFile", "absolute path",
        "the log of this network's ADDs goes there too: see [Files that a network names](#files-that-a-network-names)",
        keys.absolute_path, "log_file", lenient=True, policy="logFolders",
    ),
    Key(
        "logLevel", ", ".join(f"`{level}`" for level in LEVELS), f"from which level on; default `{DEFAULT_LEVEL}`",
        keys.choice(LEVELS), "log_level", lenient=True, needs="logFile",
    ),
    Key("capabilities", "an object", "which keys of `runtimeConfig` the runtime fills in"),
    Key(
        "runtimeConfig", "`mac`, `infinibandGUID`, `ips`, `deviceID`, `CNIDeviceInfoFile`",
        "what the runtime fills in; `ips` is for the IPAM plugin", policy="deviceInfoFolders",
    ),
    Key("prevResult", "a result", "of the plugin before this one; the runtime fills it in"),
    Key(
        "args", "an object",
        "for the IPAM plugin; `guid` and `mellanox.infiniband.app` of `args.cni` are for InfiniBand",
    ),
    Key(
        "if0", "netdev of a PF",
        "the first VF of this PF is taken whose netdev is on the host, that no pod has, and on which the host has no "
        "address. With a `deviceID`, that one is taken and must be a VF of this PF",
        _pf_name, "if0", since_2017=True,
    ),
    Key(
        "master", "netdev of a PF", "as `if0`, when there is neither `if0` nor a `deviceID`",
        _pf_name, "master", since_2017=True,
    ),
    Key(
        "vf", "0 to 255", "take the VF with this index, and no other",
        keys.number(0, _MAX_VF), "vf", since_2017=True,
    ),
    Key(
        "if0name", "name of an interface",
        "the interface's name in the pod in place of CNI_IFNAME; not `eth0`, `eth1`, `lo`",
        _pod_name, "ifname", since_2017=True,
    ),
    Key("l2enable", '`true`, `"true"`', "no addresses, even with `ipam`", _l2, "l2", since_2017=True),
    Key(
        "dpdk", "`kernel_driver`, `dpdk_driver`, `dpdk_tool`",
        "`dpdk_driver` is bound, and the driver of before comes back on DEL. `dpdk_tool` is ignored: sriovdp binds "
        "drivers itself and never runs a program that a network names. `kernel_driver` is ignored too: the VF's own "
        "driver comes back. No addresses",
        since_2017=True,
    ),
    Key(
        "cniDir", "absolute path",
        "where that plugin kept its state: see [Files that a network names](#files-that-a-network-names)",
        keys.absolute_path, "state_folder", lenient=True, policy="stateFolders", since_2017=True,
    ),
    Key("pfOnly", "`false`", "`true` is refused: sriovdp attaches VFs and never a PF", _pf_only, since_2017=True),
)  # fmt: skip

BY_NAME: Mapping[str, Key] = {key.name: key for key in KEYS}
NAMES = tuple(key.name for key in KEYS)
SPELLINGS: Mapping[str, str] = {other: key.name for key in KEYS for other in (keys.squeeze(key.name), *key.also)}
"""Each key by its squeezed spellings: its own, and those that people write in its place."""
RUNTIME_KEYS = ("mac", "infinibandGUID", "ips", "deviceID", "CNIDeviceInfoFile")


def of_fields(*, on_pf: bool, since_2017: bool = False) -> Iterable[Key]:
    """The keys that are read into fields of that kind."""
    return (key for key in KEYS if key.parse and (key.on_pf, key.since_2017) == (on_pf, since_2017))
