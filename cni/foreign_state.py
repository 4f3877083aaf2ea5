"""State of the plugins that this one replaces: their pods keep running, and are torn down by us.

sriov-cni keeps `CONTAINERID-IFNAME` with the whole configuration and the VF's original state, and `pci/ADDRESS` with
the path of the network namespace. The Intel plugin of 2017 keeps `CONTAINERID-IFNAME` for DPDK, with the PCI address.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cni.protocol.netconf import Network
from cni.protocol.wire import Request
from sriovdp.errors import SriovdpError
from sriovdp.kernel import drivers, netns
from sriovdp.kernel.sysfs import Sysfs, read_text
from sriovdp.model import USERSPACE_DRIVERS, PciAddress, VfSettings
from sriovdp.state.journal import Attachment, Original, read_boot_id

logger = logging.getLogger(__name__)

_PROTOCOLS = {0x88A8: "802.1ad", 0xA888: "802.1ad"}  # the second is how v2.8 cached it
_LINK_STATES = ("auto", "enable", "disable")


@dataclass(frozen=True, slots=True)
class Predecessor:
    """What another plugin left in one folder."""

    folder: Path = Path("/var/lib/cni/sriov")

    def find(self, request: Request, network: Network, netns_fd: int | None, sysfs: Sysfs) -> Attachment | None:
        """The attachment of the request's container as that plugin made it, to be released; None without one."""
        document = self._read(self._cache(request.container_id, request.ifname))
        device = _read_device(document)
        if device is None:
            return None
        sandbox = netns.NetnsId(0, 0)
        if netns_fd is not None and netns.is_namespace(netns_fd):
            sandbox = netns.identify(netns_fd)
        original = _read_original(document, drivers_of(sysfs, device))
        return Attachment(
            container_id=request.container_id,
            ifname=request.ifname,
            network=network.name,
            device=device,
            mode="kernel" if original.name else "dpdk",
            original=original,
            netns=request.netns,
            netns_dev=sandbox.dev,
            netns_ino=sandbox.ino,
            boot_id=read_boot_id(),
            config=network.raw,
            args=request.args,
            path=request.path,
            phase="releasing",
            released=not self._is_owned_by(device, request.netns),
        )

    def forget(self, attachment: Attachment) -> None:
        """Remove that plugin's files of the attachment, once our journal has it."""
        self._cache(attachment.container_id, attachment.ifname).unlink(missing_ok=True)
        if not attachment.released:
            (self.folder / "pci" / attachment.device).unlink(missing_ok=True)

    def find_owner(self, device: str) -> str | None:
        """Who has the VF by that plugin, in words; None when nobody, or when their sandbox is gone."""
        path = read_text(self.folder / "pci" / device)
        if not path or not _is_alive(path):
            return None
        caches = [name for name, document in self._caches() if _read_device(document) == device]
        # without a cache it was released: sriov-cni forgets to remove the other file in DPDK mode
        return f"{caches[0]} (attached by sriov-cni to {path})" if caches else None

    def _is_owned_by(self, device: str, path: str) -> bool:
        """Whether the VF is still this sandbox's, as far as that plugin tells."""
        owner = read_text(self.folder / "pci" / device)
        return not owner or not path or owner == path

    def _cache(self, container_id: str, ifname: str) -> Path:
        return self.folder / f"{container_id}-{ifname}"

    def _caches(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for path in sorted(self.folder.glob("*-*")):
            if path.is_file():
                yield path.name, self._read(path)

    def _read(self, path: Path) -> Mapping[str, Any]:
        try:
            document = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.error("the state %s of another plugin can not be understood: %s", path, error)
            return {}
        return document if isinstance(document, dict) else {}


def drivers_of(sysfs: Sysfs, device: PciAddress) -> str:
    """The VF's driver now, empty when it has none or is gone."""
    try:
        return drivers.current_driver(sysfs, device) or ""
    except SriovdpError:
        return ""


def _read_device(document: Mapping[str, Any]) -> PciAddress | None:
    text = document.get("deviceID") or document.get("pci_addr")
    try:
        return PciAddress.parse(text) if isinstance(text, str) else None
    except SriovdpError:
        return None


def _read_original(document: Mapping[str, Any], driver: str) -> Original:
    """How the VF was before that plugin took it. It never changes a driver, but for the one of 2017 in DPDK mode."""
    if "pci_addr" in document:
        return Original(str(document.get("kernel_driver") or driver), None)
    state: Mapping[str, Any] = document.get("OrigVfState") or {}
    name = str(state.get("HostIFName") or "") if driver not in USERSPACE_DRIVERS else ""
    link_state = state.get("LinkState")
    settings = VfSettings(
        mac=str(state.get("AdminMAC") or ""),
        vlan=int(state.get("Vlan") or 0),
        qos=int(state.get("VlanQoS") or 0),
        vlan_proto=_PROTOCOLS.get(int(state.get("VlanProto") or 0), "802.1Q"),
        spoofchk=state.get("SpoofChk"),
        trust=state.get("Trust"),
        link_state=_LINK_STATES[link_state] if isinstance(link_state, int) and link_state < len(_LINK_STATES) else None,
        min_tx_rate=int(state.get("MinTxRate") or 0),
        max_tx_rate=int(state.get("MaxTxRate") or 0),
    )
    if not settings.mac:
        return Original(driver, None, name or None, mac=state.get("EffectiveMAC") or None, mtu=state.get("MTU") or 0)
    if not name:
        return Original(driver, settings)
    return Original(driver, settings, name, (), state.get("EffectiveMAC") or None, int(state.get("MTU") or 0))


def _is_alive(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return netns.is_namespace(descriptor)
    finally:
        os.close(descriptor)
