"""Whether a selector takes a device, and which of its fields does not. No I/O.

Meaning and order of the fields are those of sriov-network-device-plugin (pkg/netdevice/netDeviceProvider.go and its
siblings), less its defects: every entry of `pfNames` and `rootDevices` counts, and PF names are matched exactly. A PF
without VFs is taken by its own name in `pfNames`, as upstream did before v3.5: configs for VMs and whole PFs need it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sriovdp.config.terms import PfName, RootDevice
from sriovdp.config.values import Pool, Selector
from sriovdp.model import Subfunction, Traits
from sriovdp.pools.candidates import Candidate


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a selector does not take a device: the field, what it wants, and what the device has (None: nothing).

    `note` names the likely mistake, where one is known.
    """

    field: str
    wanted: tuple[str, ...]
    actual: str | None
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.field} wants {' or '.join(self.wanted)}, the device has {self.actual or 'none'}{note}"


def judge(pool: Pool, candidate: Candidate) -> int | tuple[Rejection, ...]:
    """Number of the pool's first selector that takes the device, from 0; else why the pool does not take it.

    That is the device's type, or one rejection for each selector, in file order.
    """
    if pool.device_type != candidate.device_type:
        return (Rejection("deviceType", (pool.device_type,), candidate.device_type),)
    rejections = []
    for number, selector in enumerate(pool.selectors):
        rejection = reject(selector, candidate)
        if rejection is None:
            return number
        rejections.append(rejection)
    return tuple(rejections)


def is_named_itself(selector: Selector, candidate: Candidate) -> bool:
    """Whether a selector takes a PF, and not VFs of it, by its name in `pfNames`."""
    return candidate.kind == "PF" and bool(selector.pf_names)


def find_selector(pool: Pool, candidate: Candidate) -> int | None:
    """Number of the pool's first selector that takes the device, from 0; None when none does."""
    found = judge(pool, candidate)
    return found if isinstance(found, int) else None


def find_owner(pools: Sequence[Pool], candidate: Candidate) -> tuple[int, int] | None:
    """Numbers of the first pool, in file order, that takes the device, and of its selector; None when none does."""
    for number, pool in enumerate(pools):
        selector = find_selector(pool, candidate)
        if selector is not None:
            return number, selector
    return None


def reject(selector: Selector, candidate: Candidate) -> Rejection | None:
    """The first field of a selector that does not hold for a device, in upstream's order; None when all hold."""
    for field, wanted, actual in (
        ("vendors", selector.vendors, candidate.vendor),
        ("devices", selector.devices, candidate.device),
        ("drivers", selector.drivers, candidate.driver),
        ("pciAddresses", selector.pci_addresses, candidate.address),
        ("acpiIndexes", selector.acpi_indexes, candidate.traits.acpi_index),
    ):
        if wanted and actual not in wanted:
            return Rejection(field, wanted, actual, _explain_device(field, wanted, candidate))
    return _reject_place(selector, candidate) or _reject_trait(selector, candidate)


def _reject_place(selector: Selector, candidate: Candidate) -> Rejection | None:
    if selector.pf_names and not any(_is_named(entry, candidate) for entry in selector.pf_names):
        return _reject_pf_name(selector, candidate)
    if selector.root_devices and not any(_is_below(entry, candidate) for entry in selector.root_devices):
        actual = None if candidate.index is None else f"{candidate.pf.address}#{candidate.index}"
        return Rejection("rootDevices", _write_all(selector.root_devices), actual, _explain_pf(candidate))
    return None


def _reject_trait(selector: Selector, candidate: Candidate) -> Rejection | None:
    traits = candidate.traits
    for field, wanted, actual in (
        ("linkTypes", selector.link_types, traits.link_type),
        ("ddpProfiles", selector.ddp_profiles, traits.ddp_profile),
        ("pKeys", selector.p_keys, traits.p_key),
    ):
        if wanted and actual not in wanted:
            return Rejection(field, wanted, actual)
    if selector.is_rdma and not traits.is_rdma:
        return Rejection("isRdma", ("true",), "false", _explain_no_rdma(traits))
    if selector.vdpa_type and all(device.kind != selector.vdpa_type for device in traits.vdpa):
        kinds = ", ".join(device.kind or "a vDPA device without driver" for device in traits.vdpa)
        return Rejection("vdpaType", (selector.vdpa_type,), kinds or None)
    if selector.aux_types and isinstance(candidate.function, Subfunction):
        kind = candidate.function.kind
        return None if kind in selector.aux_types else Rejection("auxTypes", selector.aux_types, kind)
    return None


def _explain_no_rdma(traits: Traits) -> str:
    if not traits.soft_rdma:
        return "its driver made no RDMA device for it"
    soft = ", ".join(traits.soft_rdma)
    return f"it has soft RoCE only ({soft}), which the kernel removes when its netdev goes into a pod"


@lru_cache(maxsize=1024)
def _write_all(entries: tuple[PfName | RootDevice, ...]) -> tuple[str, ...]:
    """As the config has them; cached, as they are the same for each of a thousand VFs."""
    return tuple(map(str, entries))


def _is_named(entry: PfName, candidate: Candidate) -> bool:
    """Whether it is a VF of the PF with this name, or the PF itself, as upstream had it before v3.5."""
    if candidate.pf.netdev is None or candidate.pf.netdev.name != entry.name:
        return False
    if candidate.index is None:
        return entry.indices is None and not candidate.pf.vfs and not candidate.pf.sfs
    return entry.indices is None or candidate.index in entry.indices


def _is_below(entry: RootDevice, candidate: Candidate) -> bool:
    below = candidate.index is not None and candidate.pf.address == entry.address
    return below and (entry.indices is None or candidate.index in entry.indices)


def _reject_pf_name(selector: Selector, candidate: Candidate) -> Rejection:
    name = candidate.pf.netdev.name if candidate.pf.netdev else None
    actual = None if name is None or candidate.index is None else f"{name}#{candidate.index}"
    note = _explain_pf(candidate)
    if name is None and not note:
        note = f"its PF {candidate.pf.address} has no netdev here"
    return Rejection("pfNames", _write_all(selector.pf_names), actual, note)


def _explain_pf(candidate: Candidate) -> str:
    return "it is not a VF of a PF on this node; use pciAddresses" if candidate.kind == "PF" else ""


def _explain_device(field: str, wanted: Collection[str], candidate: Candidate) -> str:
    if field == "devices" and candidate.kind == "VF" and candidate.pf.device in wanted:
        return f"{candidate.pf.device} is the id of the PF"
    return ""
