"""`cni` of the config file: what a network may ask of this node. Who writes a network is not root here."""

from dataclasses import dataclass
from typing import Annotated

from sriovdp.config import words
from sriovdp.config.keys import Key
from sriovdp.limits import MAX_VLAN
from sriovdp.vlans import VlanIds

_DRIVERS: tuple[words.NetworkDriver, ...] = ("kernel", "vfio-pci", "igb_uio", "uio_pci_generic")
_ALL_VLANS = VlanIds.parse(f"0-{MAX_VLAN}")


@dataclass(frozen=True, slots=True)
class CniAllow:
    """Which values networks may have. Another one is refused with CNI code 7."""

    trust: Annotated[bool, Key("Networks may set `trust` to `on`.")] = True
    spoofchk_off: Annotated[bool, Key("Networks may set `spoofchk` to `off`.")] = True
    promisc: Annotated[bool, Key("Networks may set `promisc`.")] = True
    allmulti: Annotated[bool, Key("Networks may set `allmulti`.")] = True
    mac: Annotated[bool, Key("Networks may set `mac`, and pods theirs (`runtimeConfig.mac`, CNI_ARGS).")] = True
    guid: Annotated[
        bool,
        Key("Networks may set `guid`, and pods theirs (`infinibandGUID`). A subnet manager gives partitions by GUID."),
    ] = True
    drivers: Annotated[
        tuple[words.NetworkDriver, ...], Key("Values of `driver`, and of `dpdk_driver` in networks of 2017.")
    ] = _DRIVERS
    vlans: Annotated[words.VlanRanges, Key("Port VLANs: `0,100-199`. 0 clears the VLAN.")] = _ALL_VLANS
    bridges: Annotated[
        tuple[words.NetdevName, ...],
        Key("Bridges that networks may put representors of VFs into (`representor`). None if not given."),
    ] = ()
    sysctls: Annotated[
        tuple[words.SysctlPattern, ...],
        Key("Patterns for names of `sysctl`, like `net.ipv4.conf.IFNAME.arp_*`."),
    ] = ("*",)


_ALLOW_ALL = CniAllow()


@dataclass(frozen=True, slots=True)
class CniConfig:
    """What a network may ask of this node. By default as much as sriov-cni allows, but for paths of files."""

    allow: Annotated[CniAllow, Key("Which values networks may have. Others are refused with CNI code 7.")] = _ALLOW_ALL
    log_folders: Annotated[
        tuple[words.FilePath, ...], Key("Folders below which `logFile` may be. `[]` allows none.")
    ] = ("/var/log",)
    device_info_folders: Annotated[
        tuple[words.FilePath, ...], Key("Folders below which `CNIDeviceInfoFile` may be, which Multus fills in.")
    ] = ("/var/run/k8s.cni.cncf.io/devinfo/cni",)
    state_folders: Annotated[
        tuple[words.FilePath, ...], Key("Folders below which `cniDir` of the 2017 plugin may be.")
    ] = ("/var/lib/cni",)
    allocation: Annotated[
        words.Allocation,
        Key(
            "Whether the kubelet must have given a VF to the pod that gets it: `required`, `when-known` (not while the "
            "kubelet does not answer) or `ignored`."
        ),
    ] = "when-known"
