"""VLANs that a VF may tag with, where its PF's driver has a list of them."""

from pathlib import Path

from cni.protocol.spec import DEVICE_FAILURE
from cni.vf.settings import Vf
from sriovdp.errors import CniError
from sriovdp.kernel.device_name import find_vf_index
from sriovdp.kernel.sysfs import Sysfs, read_link
from sriovdp.kernel.vlan_trunk import find_trunk, read_trunk, set_trunk
from sriovdp.state.journal import Attachment, read_boot_id
from sriovdp.vlans import VlanIds


def judge_trunk(sysfs: Sysfs, vf: Vf, wanted: VlanIds | None) -> str | None:
    """What the list is now, for the journal; None when the network has none.

    Raises CniError when the driver has no list: then nothing would keep the pod out of other VLANs. KernelError.
    """
    if not wanted:
        return None
    path = None if vf.index is None else find_trunk(sysfs, vf.address, vf.index)
    if path is None:
        driver = read_link(sysfs.pci(vf.address) / "physfn/driver") or "no driver"
        raise CniError(
            DEVICE_FAILURE,
            f"{vf}: setting vlanTrunk failed: its PF's driver, {driver}, has no list of VLANs (sriov/N/trunk in sysfs)",
            hint="use the driver of the NIC's vendor (Intel's ice or i40e, NVIDIA's mlx5_core), or a PF in switchdev "
            "mode with the key representor, whose bridge keeps VLANs apart; or leave vlanTrunk out",
        )
    return str(read_trunk(path))


def apply_trunk(sysfs: Sysfs, attachment: Attachment, wanted: VlanIds | None) -> None:
    """Let these VLANs pass and no other. Raises KernelError, VerifyError."""
    if wanted and (path := _find(sysfs, attachment)):
        set_trunk(path, wanted)


def restore_trunk(sysfs: Sysfs, attachment: Attachment) -> None:
    """Make the list as it was; one that is gone went with its VF. Raises KernelError, VerifyError."""
    if attachment.trunk is None or attachment.boot_id != read_boot_id():
        return
    if path := _find(sysfs, attachment):
        set_trunk(path, VlanIds.parse(attachment.trunk) if attachment.trunk else VlanIds())


def compare_trunk(sysfs: Sysfs, attachment: Attachment, wanted: VlanIds | None) -> list[str]:
    """What is not as ADD made it, a sentence. Raises KernelError."""
    if not wanted or attachment.trunk is None:
        return []
    path = _find(sysfs, attachment)
    now = read_trunk(path) if path else VlanIds()
    return [] if now == wanted else [f"VLANs that it may use are {now or 'all'}, {wanted} were set"]


def _find(sysfs: Sysfs, attachment: Attachment) -> Path | None:
    """Its file; None for a VF that is gone."""
    index = find_vf_index(f"{sysfs.root}/bus/pci/devices/{attachment.device}/physfn", attachment.device)
    return None if index is None else find_trunk(sysfs, attachment.device, index)
