"""The difference between a node and its config, as the steps that remove it. No I/O."""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from sriovdp.config.values import Config, PfConfig, PfSelect, VfConfig
from sriovdp.errors import DeviceError
from sriovdp.kernel.drivers import is_bound_as_wanted
from sriovdp.model import KERNEL_DRIVER, USERSPACE_DRIVERS, Node, PhysicalFunction, VirtualFunction
from sriovdp.provision.steps import BindDriver, SetAdminMac, SetLinkUp, SetNumVfs, Step


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they are to be done: PF after PF. `warnings` are sentences about the config."""

    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the node is as the config says."""
        return not self.steps


def plan(config: Config, node: Node, attached: Collection[str] = ()) -> Plan:
    """Find what has to be done to a node. PFs that are not in the config are left alone.

    `attached` has the PCI addresses of VFs that a pod has: their MAC is the pod's business until it gives them back.
    Raises DeviceError when a PF can not have as many VFs as the config wants.
    """
    entries = [(pf, config.find_pf(pf)) for pf in node.pfs]
    taken = [(pf, entry) for pf, entry in entries if entry is not None]
    steps = [step for pf, entry in taken for step in _plan_pf(pf, entry, attached)]
    warnings = [warning for pf, entry in taken for warning in _warn_of_pf(pf, entry)]
    for number, entry in enumerate(config.physical_functions):
        if not any(other is entry for _, other in taken):
            taken_before = any(entry.select.matches(pf) for pf in node.pfs)
            why = "an earlier entry has every PF that it matches" if taken_before else "no PF of this node matches"
            warnings.append(f"physicalFunctions[{number}] ({_write_select(entry.select)}): {why}")
    return Plan(tuple(steps), tuple(warnings))


def make_stable_mac(pf_mac: str, index: int) -> str:
    """Admin MAC of a VF that is the same after each boot and on no other node.

    The first 6 bytes of SHA-256 of `PFMAC/INDEX` (PF MAC in lower case, index decimal), made a locally administered
    unicast address: bit 1 of the first byte set, bit 0 cleared (IEEE 802, clause 8.4).
    """
    digest = hashlib.sha256(f"{pf_mac.lower()}/{index}".encode()).digest()
    return bytes([digest[0] & 0xFC | 0x02, *digest[1:6]]).hex(":")


def _plan_pf(pf: PhysicalFunction, entry: PfConfig, attached: Collection[str]) -> Iterator[Step]:
    wanted = _count_vfs(pf, entry)
    current = len(pf.vfs)
    if wanted and pf.netdev and not pf.netdev.up:
        yield SetLinkUp(pf.address, pf.name, "VFs of a PF that is down have no link")
    vfs: list[VirtualFunction | None] = [*pf.vfs]
    if current != wanted:
        yield SetNumVfs(pf.address, pf.name, current, wanted, f"numVfs is {entry.num_vfs}, there are {current}")
        vfs = [None] * wanted
    for number, vf in enumerate(vfs):
        index = vf.index if vf else number
        wish = entry.vf(index)
        if vf and vf.address in attached:
            wish = replace(wish, mac="keep")
        mac = _plan_mac(pf, index, vf, wish)
        if mac:
            yield mac
        if driver := _plan_driver(pf, index, vf, wish, mac):
            yield driver


def _count_vfs(pf: PhysicalFunction, entry: PfConfig) -> int:
    wanted = pf.total_vfs if entry.num_vfs == "max" else entry.num_vfs
    if entry.num_vfs != 0 and pf.total_vfs == 0:
        raise DeviceError(
            f"splitting {pf.name} ({pf.address}) into VFs failed: its driver {pf.driver or '(none)'} offers no SR-IOV",
            hint="switch SR-IOV on in the machine's and the NIC's firmware, or take this PF out of physicalFunctions",
        )
    if wanted > pf.total_vfs:
        raise DeviceError(
            f"splitting {pf.name} ({pf.address}) into {wanted} VFs failed: it can have at most {pf.total_vfs}",
            hint=f"write numVfs: {pf.total_vfs} or max, or raise the limit in the NIC's firmware settings",
        )
    return wanted


def _plan_mac(pf: PhysicalFunction, index: int, vf: VirtualFunction | None, wanted: VfConfig) -> SetAdminMac | None:
    """A step when the admin MAC is to be stable and is not; none where the PF has no netdev to set it through."""
    if wanted.mac == "keep" or pf.netdev is None or (vf and vf.settings is None):
        return None
    mac = make_stable_mac(pf.netdev.mac, index)
    current = vf.settings.mac if vf and vf.settings else None
    if current == mac:
        return None
    reason = "the MAC has to be the same after each boot" if vf else "a new VF"
    return SetAdminMac(pf.address, pf.name, index, vf.address if vf else None, current, mac, reason)


def _plan_driver(
    pf: PhysicalFunction, index: int, vf: VirtualFunction | None, wanted: VfConfig, mac: SetAdminMac | None
) -> BindDriver | None:
    if vf is None:
        return BindDriver(pf.address, pf.name, index, None, None, wanted.driver, "a new VF has no driver")
    if not is_bound_as_wanted(vf.driver, wanted.driver):
        target = "its kernel driver" if wanted.driver == KERNEL_DRIVER else wanted.driver
        reason = f"the config wants {target}, it has {vf.driver or 'no driver'}"
        return BindDriver(pf.address, pf.name, index, vf.address, vf.driver, wanted.driver, reason)
    if vf.driver is not None and vf.driver not in USERSPACE_DRIVERS and (mac or _has_stale_mac(vf, wanted)):
        reason = "a driver takes an admin MAC over when it is bound"
        return BindDriver(pf.address, pf.name, index, vf.address, vf.driver, vf.driver, reason, again=True)
    return None


def _has_stale_mac(vf: VirtualFunction, wanted: VfConfig) -> bool:
    """Whether a crash came between setting the admin MAC and binding the driver again.

    A netdev that is up is left alone: somebody on this host uses it and may have given it this MAC.
    """
    if wanted.mac == "keep" or vf.netdev is None or vf.settings is None or vf.netdev.up:
        return False
    return vf.netdev.mac != vf.settings.mac


def _warn_of_pf(pf: PhysicalFunction, entry: PfConfig) -> Iterator[str]:
    count = _count_vfs(pf, entry)
    for vfs in entry.vfs:
        if vfs.indices.last >= count:
            yield f"{pf.name} has no VF {vfs.indices.last} of range {vfs.indices}: it gets {count} VFs"
    stable = any(entry.vf(index).mac == "stable" for index in range(count))
    if stable and pf.netdev is None:
        yield f"admin MACs of VFs of {pf.name} are left as they are: the PF has no netdev here to set them through"
    elif stable and len(pf.vfs) == count and any(vf.settings is None for vf in pf.vfs):
        yield f"admin MACs of VFs of {pf.name} are left as they are: they can not be read"


def _write_select(select: PfSelect) -> str:
    fields = {
        "pfNames": select.pf_names,
        "pciAddresses": select.pci_addresses,
        "vendors": select.vendors,
        "devices": select.devices,
    }
    return ", ".join(f"{name} {' or '.join(values)}" for name, values in fields.items() if values)
