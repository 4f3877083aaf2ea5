"""Sound documents of each kind, which the fuzzer then spoils."""

from dataclasses import asdict
from typing import Any

from sriovdp.model import VfSettings
from sriovdp.state.journal import VERSION, Attachment, Original

VF, PF = "0000:01:10.0", "0000:01:00.0"
_MAC = "02:00:00:00:00:01"

NETCONFS: list[dict[str, Any]] = [
    {
        "cniVersion": "1.1.0",
        "name": "red",
        "type": "sriov",
        "deviceID": VF,
        "vlan": 210,
        "vlanQoS": 3,
        "vlanProto": "802.1q",
        "mac": _MAC,
        "mtu": 1500,
        "trust": "on",
        "spoofchk": "off",
        "link_state": "auto",
        "min_tx_rate": 0,
        "max_tx_rate": 100,
        "promisc": True,
        "allmulti": False,
        "driver": "kernel",
        "dad": "off",
        "onUnsupported": "warn",
        "logLevel": "debug",
        "logFile": "/var/log/sriov.log",
        "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"},
        "dns": {"nameservers": ["10.1.1.1"]},
        "ipam": {"type": "host-local", "subnet": "10.1.1.0/24"},
        "capabilities": {"mac": True, "ips": True},
        "runtimeConfig": {
            "mac": _MAC,
            "ips": ["10.1.1.2/24"],
            "CNIDeviceInfoFile": "/var/run/k8s.cni.cncf.io/devinfo/cni/a",
        },
    },
    {
        "if0": "enp1s0",
        "if0name": "north0",
        "vf": 1,
        "l2enable": "true",
        "vlan": 210,
        "cniDir": "/var/lib/cni/vf",
        "dpdk": {"kernel_driver": "igbvf", "dpdk_driver": "igb_uio", "dpdk_tool": "/opt/dpdk-devbind.py"},
    },
    {
        "cniVersion": "1.1.0",
        "name": "red",
        "type": "sriov",
        "cni.dev/valid-attachments": [{"containerID": "c", "ifname": "n"}],
        "prevResult": {
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "net1", "mac": _MAC, "sandbox": "/run/netns/a"}],
            "ips": [{"address": "10.1.1.2/24", "gateway": "10.1.1.1", "interface": 0}],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    },
]

RESULTS: list[dict[str, Any]] = [
    {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.1.1.2/24", "gateway": "10.1.1.1", "interface": 0}],
        "interfaces": [{"name": "net1", "mac": _MAC, "mtu": 1500, "sandbox": "/run/netns/a"}],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "10.1.1.1", "mtu": 1400, "advmss": 1360, "priority": 10, "table": 5, "scope": 0}
        ],
        "dns": {"nameservers": ["10.1.1.1"], "domain": "a", "search": ["b"], "options": ["c"]},
    },
    {"cniVersion": "0.2.0", "ip4": {"ip": "10.1.1.2/24", "gateway": "10.1.1.1", "routes": [{"dst": "10.0.0.0/8"}]}},
    {"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.1.1.2/24"}]},
]

CONFIGS: list[dict[str, Any]] = [
    {
        "physicalFunctions": [
            {
                "select": {"pfNames": ["enp1s0"], "vendors": ["8086"]},
                "numVfs": 4,
                "mtu": 9000,
                "mac": "stable",
                "vfs": [
                    {"range": "0-1", "driver": "vfio-pci", "vlan": 5, "trust": True},
                    {"range": "2-3", "driver": "kernel"},
                ],
            }
        ],
        "resourceList": [
            {
                "resourcePrefix": "intel.com",
                "resourceName": "sriov",
                "selectors": {"drivers": ["igbvf"], "pfNames": ["enp1s0#0-1"]},
            },
            {"resourceName": "dpdk", "deviceType": "netDevice", "selectors": [{"pciAddresses": [VF], "isRdma": False}]},
        ],
        "cdi": True,
    },
    {"resourceList": [{"resourceName": "acc", "deviceType": "accelerator", "selectors": {"devices": ["0d5d"]}}]},
]


def _attachment(**changes: Any) -> dict[str, Any]:
    original = Original(
        "igbvf", VfSettings(_MAC, 0, spoofchk=True, trust=False, link_state="auto"), "eth1", ("a",), _MAC, 1500
    )
    attachment = Attachment(
        "c1",
        "net1",
        "net-a",
        VF,
        "kernel",
        original,
        "/run/netns/a",
        4,
        4026532000,
        "b",
        dict(NETCONFS[0]),
        path="/opt/cni/bin",
        args="K8S_POD_NAMESPACE=a;K8S_POD_NAME=b",
        phase="releasing",
    )
    return {"version": VERSION, **asdict(attachment), **changes}


ATTACHMENTS = [
    _attachment(),
    _attachment(mode="dpdk", phase="attached", result=RESULTS[0], device_info="/var/run/x"),
]
NADS: list[dict[str, Any]] = [
    {"metadata": {"name": "red", "annotations": {"k8s.v1.cni.cncf.io/resourceName": "a/b"}}, "spec": {"config": "{}"}},
    {"cniVersion": "1.0.0", "name": "red", "plugins": [{**NETCONFS[0]}, {"type": "tuning", "mtu": 9000}]},
    {"type": "sriov", "name": "red", "master": "eth1", "vf": 1, "driver": "vfio-pci", "promisc": True},
]
GRANTS: list[dict[str, Any]] = [
    {
        "version": 1,
        "resource": "intel.com/sriov",
        "device": VF,
        "part": "VF 0",
        "driver": "vfio-pci",
        "nodes": [["/dev/vfio/1", "/dev/vfio/1"]],
        "mounts": [],
    }
]
_PF_STATE = {
    "up": True,
    "mtu": 1500,
    "autoprobe": True,
    "vfs": [
        {"index": 0, "driver": "igbvf", "mtu": 1500, "settings": {"mac": "02:00:00:00:00:01", "vlan": 5}},
        {"index": 1, "driver": None, "mtu": None, "settings": None},
    ],
}
RECORDS: list[dict[str, Any]] = [
    {
        "version": 1,
        "address": PF,
        "phase": phase,
        "boot_id": "b1",
        "original": _PF_STATE,
        "before": _PF_STATE,
        "steps": ["enp1s0: make 2 VFs"],
        "allow_host_uplink": False,
        "externally_managed": False,
        "macs": {"0": "02:00:00:00:00:01"},
    }
    for phase in ("changing", "done")
]
CACHES: list[dict[str, Any]] = [
    {
        "cniVersion": "1.0.0",
        "name": "net-a",
        "type": "sriov",
        "deviceID": VF,
        "ContIFNames": "net1",
        "MTU": 1500,
        "OrigVfState": {
            "HostIFName": "eth1",
            "SpoofChk": True,
            "Trust": False,
            "AdminMAC": _MAC,
            "EffectiveMAC": _MAC,
            "Vlan": 0,
            "VlanQoS": 0,
            "VlanProto": 33024,
            "MinTxRate": 0,
            "MaxTxRate": 0,
            "LinkState": 0,
            "MTU": 1500,
        },
    },
    {"pci_addr": VF, "ifname": "north0", "kernel_driver": "ixgbevf", "dpdk_driver": "igb_uio", "dpdk_tool": "/x"},
]
