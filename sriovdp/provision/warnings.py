"""What a config says in vain, or what a node does in spite of it, as sentences. No I/O."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from sriovdp.config.values import Config, PfConfig, PfSelect
from sriovdp.model import ZERO_MAC, Node, PhysicalFunction, name_vf
from sriovdp.provision.advice import warn_of_refused
from sriovdp.provision.eswitch import warn_of_mode
from sriovdp.provision.steps import SetAdminMac, SetNumVfs, Step
from sriovdp.provision.wishes import count_vfs, is_infiniband, must_stay


def warn_of_entries(config: Config, node: Node, used: Sequence[PfConfig]) -> Iterator[str]:
    """Entries of the config that have no PF; `used` are the others."""
    for number, entry in enumerate(config.physical_functions):
        if not any(other is entry for other in used):
            taken_before = any(entry.select.matches(pf) for pf in node.pfs)
            why = "an earlier entry has every PF that it matches" if taken_before else "no PF of this node matches"
            yield f"physicalFunctions[{number}] ({_write_select(entry.select)}): {why}"


def warn_of_pf(
    pf: PhysicalFunction, entry: PfConfig, refused: Mapping[int, str], *, is_unlisted: bool = False
) -> Iterator[str]:
    """What its entry says in vain of one PF, and what of the PF is to be known. `is_unlisted`: see `lists_none`."""
    count = count_vfs(pf, entry)
    if entry.externally_managed and isinstance(entry.num_vfs, int) and count < entry.num_vfs:
        yield (
            f"{pf.name} has {count} VFs, numVfs is {entry.num_vfs}, and externallyManaged leaves it to others to "
            "create them"
        )
    for vfs in entry.vfs:
        if vfs.indices.last >= count and not entry.externally_managed:
            yield f"{pf.name} has no VF {vfs.indices.last} of range {vfs.indices}: it gets {count} VFs"
    wanted = any(entry.vf(index).mac != "keep" for index in range(count))
    if wanted and pf.netdev is None:
        yield f"admin MACs of VFs of {pf.name} are left as they are: the PF has no netdev here to set them through"
    elif is_unlisted and len(refused) < len(pf.vfs) == count:
        yield from warn_of_refused(pf, entry, [vf.index for vf in pf.vfs], "lists no")
    elif not pf.sets_vfs or (refused and len(pf.vfs) == count):
        yield from warn_of_refused(pf, entry, range(count) if not pf.sets_vfs else sorted(refused))
    yield from _warn_of_kind(pf, entry, count)


def _warn_of_kind(pf: PhysicalFunction, entry: PfConfig, count: int) -> Iterator[str]:
    if any(must_stay(pf, entry.vf(index)) for index in range(count)):
        yield (
            f"VFs of {pf.name} stay on their kernel driver: {pf.driver} is bifurcated, DPDK uses a VF through it, and "
            "would find nothing behind vfio-pci; write driver: kernel"
        )
    given = any(not isinstance(entry.vf(index).mac, str) for index in range(count))
    if given and is_infiniband(pf):
        yield f"{pf.name} is InfiniBand: its VFs get GUIDs, the MACs of the config have no effect"
    for vf in pf.vfs:
        if vf.traits.noiommu and not entry.vf(vf.index).noiommu:
            name = name_vf(pf.name, vf.index, vf.address)
            yield f"{name} is on vfio-pci without an IOMMU, and no noiommu: true allows that"
    yield from warn_of_mode(pf, entry)


def warn_of_twins(taken: Sequence[tuple[PhysicalFunction, PfConfig]], steps: Collection[Step]) -> Iterator[str]:
    """VFs that keep one MAC, which a bond gave to their PFs' VFs."""
    changed = {step.pf for step in steps if isinstance(step, SetNumVfs)}
    changed_vfs = {step.address for step in steps if isinstance(step, SetAdminMac)}
    seen: dict[str, str] = {}
    for pf, _ in taken:
        for vf in pf.vfs:
            if vf.settings is None or pf.address in changed or vf.address in changed_vfs:
                continue
            name, mac = name_vf(pf.name, vf.index, vf.address), vf.settings.mac
            if mac != ZERO_MAC and seen.setdefault(mac, name) != name:
                yield f"{name} has the MAC {mac} of {seen[mac]}; set numVfs to 0, apply, and set it back"


def _write_select(select: PfSelect) -> str:
    fields: Mapping[str, tuple[object, ...]] = {
        "pfNames": select.pf_names,
        "pciAddresses": select.pci_addresses,
        "vendors": select.vendors,
        "devices": select.devices,
        "rootDevices": select.root_devices,
        "numaNodes": select.numa_nodes,
    }
    return ", ".join(f"{name} {' or '.join(map(str, values))}" for name, values in fields.items() if values)
