"""vDPA devices of the node, by the PCI function that they are made of."""

from collections import defaultdict
from collections.abc import Mapping

from sriovdp.kernel.sysfs import Folder
from sriovdp.model import PciAddress, VdpaDevice, is_pci_address

_KINDS = {"vhost_vdpa": "vhost", "virtio_vdpa": "virtio"}
_NODE = "vhost-vdpa-"


def list_vdpa(root: Folder) -> Mapping[str, tuple[VdpaDevice, ...]]:
    """List vDPA devices by the PCI address above them. `root` is that of sysfs."""
    bus = root.folder("bus/vdpa/devices")
    found: defaultdict[str, tuple[VdpaDevice, ...]] = defaultdict(tuple)
    for name in sorted(bus.names):
        parents = list_pci_parts(bus.target(name) or "")
        if parents:
            found[parents[-1]] += (_read(bus.folder(name)),)
    return found


def list_pci_parts(path: str) -> tuple[PciAddress, ...]:
    """PCI addresses in a path of sysfs, from the root port down."""
    return tuple(PciAddress(part) for part in path.split("/") if is_pci_address(part))


def _read(device: Folder) -> VdpaDevice:
    node = next((f"/dev/{name}" for name in sorted(device.names) if name.startswith(_NODE)), None)
    return VdpaDevice(device.name, _KINDS.get(device.link("driver") or ""), node)
