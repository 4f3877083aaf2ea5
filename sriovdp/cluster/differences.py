"""What policies ask for and the config does not do as sriov-network-operator does: a warning for each."""

from collections.abc import Iterator

from sriovdp.cluster.findings import Findings
from sriovdp.cluster.interface import Interface
from sriovdp.cluster.merge import Group, Merged
from sriovdp.cluster.target import Setup


def warn_of_differences(setup: Setup, findings: Findings) -> None:
    """Note what is not the same for one PF."""
    for group in setup.merged.groups:
        subject = f"{setup.target.subject}: SriovNetworkNodePolicy {group.policy.name}"
        for sentence in (*_compare_group(group, setup.merged), *_compare_names(group, setup.target.interface)):
            findings.warn(subject, sentence)
        if setup.target.is_passed_in and group.policy.spec.device_type == "vfio-pci":
            findings.warn(subject, "is a VF of this machine's host: bind it to vfio-pci yourself, it has no PF here")
    if setup.target.interface and not setup.target.is_passed_in:
        for sentence in _compare_pf(setup.merged, setup.target.interface):
            findings.warn(setup.target.subject, sentence)


def _compare_group(group: Group, merged: Merged) -> Iterator[str]:
    spec = group.policy.spec
    if merged.mtu and spec.mtu != merged.mtu:
        wanted = f"mtu {spec.mtu}" if spec.mtu else "no mtu"
        yield f"has {wanted}, but VF {group.indices} get MTU {merged.mtu}: a PF and all its VFs have one here"
    if spec.vdpa_type:
        yield "vDPA devices are not made here; make them with `vdpa dev add`"
    if spec.bridge:
        yield "bridge is not set up here; add the PF to the Open vSwitch bridge yourself"


def _compare_names(group: Group, interface: Interface | None) -> Iterator[str]:
    if interface is None:
        return
    entries = interface.find_entries(group.policy.spec.nic_selector)
    for entry in entries:
        if entry.indices is not None and entry.name != interface.name:
            yield f"{entry} means VF {entry.indices} of this PF; sriov-network-operator takes all, as it is an altname"
    if len(entries) > 1:
        names = ", ".join(str(entry) for entry in entries)
        yield f"pfNames has {names}, and all count; sriov-network-operator takes one of them"


def _compare_pf(merged: Merged, interface: Interface) -> Iterator[str]:
    if interface.total_vfs is not None and merged.num_vfs > interface.total_vfs:
        yield f"numVfs is {merged.num_vfs}, but the PF can have {interface.total_vfs}: allow more in its firmware"
    if merged.externally_managed and interface.num_vfs is not None and merged.num_vfs > interface.num_vfs:
        yield f"is externallyManaged with numVfs {merged.num_vfs}, but has {interface.num_vfs} VFs"
    if merged.mtu and interface.mtu and interface.mtu > merged.mtu:
        yield f"gets MTU {merged.mtu} and has {interface.mtu} now; sriov-network-operator does not lower it"
    types = {(group.policy.spec.link_type or "").lower() for group in merged.groups} - {""}
    if interface.link_type and types - {interface.link_type}:
        wanted = ", ".join(sorted(types))
        yield f"has link type {interface.link_type}, not {wanted}: change it in the firmware (mlxconfig, LINK_TYPE_P1)"
