"""How a VF was before ib-sriov-cni attached it, by its cache: its netdev's name, its GUID, and which RDMA device went.

The cache is the network with more keys (pkg/types/types.go, NetConf). It has nothing else of the VF, as the plugin
changes nothing else but the link state, which it sets back to `auto`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cni.protocol.keys import is_ifname
from sriovdp.kernel.device_name import find_vf_index
from sriovdp.kernel.netdevs import find_pf_netdev
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.limits import parse_guid
from sriovdp.model import PciAddress, VfSettings
from sriovdp.state.journal import Original

_NO_GUID = ":".join(["00"] * 8)
_PREFIX = "00:00:00:00:fe:80:00:00:00:00:00:00"  # of an address of IPoIB; of it only the GUID behind it is compared
_GONE = -1  # index of an RDMA device that is not known


def is_infiniband(document: Mapping[str, Any]) -> bool:
    """Whether a cache is one of ib-sriov-cni: sriov-cni has the netdev's name in another place."""
    return isinstance(document.get("HostIFNames"), str) and "OrigVfState" not in document


def read_infiniband(document: Mapping[str, Any], sysfs: Sysfs, device: PciAddress, driver: str) -> Original:
    """How the VF was. Raises SriovdpError when its PF cannot be asked."""
    name = document["HostIFNames"]
    if not is_ifname(name):
        return Original(driver, None)
    settings = _read_settings(sysfs, device)
    guid = _read_guid(document)
    if settings is None or guid is None:
        return Original(driver, settings, name)
    settings = replace(settings, node_guid=guid, port_guid=guid)
    if document.get("link_state"):
        settings = replace(settings, link_state="auto")
    return Original(driver, settings, name, mac=f"{_PREFIX}:{guid}")


def read_rdma(document: Mapping[str, Any]) -> dict[str, int]:
    """The RDMA device that went with the VF, as a journal has it."""
    state = document.get("RdmaNetState")
    name = state.get("SandboxRdmaDevName") if isinstance(state, Mapping) else None
    is_isolated = document.get("rdmaIsolation") is True and isinstance(name, str) and name
    return {str(name): _GONE} if is_isolated else {}


def _read_guid(document: Mapping[str, Any]) -> str | None:
    """The GUID that is noted; zeros for one that is none, and None when the plugin set no other."""
    noted = document.get("HostIFGUID")
    if not isinstance(noted, str) or not noted:
        return None
    try:
        return parse_guid(noted)
    except ValueError:
        return _NO_GUID


def _read_settings(sysfs: Sysfs, device: PciAddress) -> VfSettings | None:
    pf, index = find_pf_netdev(sysfs, device), find_vf_index(f"{sysfs.pci(device)}/physfn", device)
    if pf is None or index is None:
        return None
    with Netlink() as netlink:
        found = netlink.find_with_vf(pf, index)
    return found[1] if found else None
