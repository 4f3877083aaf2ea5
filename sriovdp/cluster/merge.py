"""Policies of one PF put together, in sriov-network-operator's order (api/v1/helper.go): later ones override.

The order is that of falling priority numbers, then of names, so number 0 comes last and wins. Groups of VFs of an
earlier policy stay where the ranges do not overlap. Where the operator loses or unites what nobody asked it to, this
does not, and a warning says so. Two policies of one priority that want the same VF are a fault.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sriovdp.cluster.findings import Findings
from sriovdp.cluster.reading import Read
from sriovdp.cluster.specs import PolicySpec
from sriovdp.config.ranges import VfIndices

Policy = Read[PolicySpec]


@dataclass(frozen=True, slots=True)
class Group:
    """VFs of one PF that a policy is about."""

    policy: Policy
    indices: VfIndices

    def overlaps(self, other: "Group") -> bool:
        """Whether the two have a VF in common."""
        return any(a.start < b.stop and b.start < a.stop for a in self.indices.spans for b in other.indices.spans)


@dataclass(frozen=True, slots=True)
class Merged:
    """What policies make of one PF. `groups` has those of the highest priority first."""

    groups: tuple[Group, ...]
    num_vfs: int
    mtu: int | None
    eswitch_mode: str | None
    externally_managed: bool

    @property
    def winner(self) -> Policy:
        """The policy of the highest priority."""
        return self.groups[0].policy


def sort_policies(policies: Iterable[Policy]) -> list[Policy]:
    """Policies in the order in which they are applied: the one that wins comes last."""
    return sorted(policies, key=lambda policy: (-policy.spec.priority, policy.name))


def merge(groups: Sequence[Group], subject: str, findings: Findings) -> Merged:
    """Put the groups of one PF together; they are in the order of `sort_policies`. `subject` names the PF."""
    merged = _start(groups[0])
    for group in groups[1:]:
        merged = _add(merged, group, subject, findings)
    return merged


def _start(group: Group) -> Merged:
    spec = group.policy.spec
    return Merged((group,), spec.num_vfs, spec.mtu, spec.eswitch_mode, spec.externally_managed)


def _add(merged: Merged, group: Group, subject: str, findings: Findings) -> Merged:
    new, spec = _start(group), group.policy.spec
    equal = spec.priority == merged.winner.spec.priority
    for lost in (old for old in merged.groups if old.overlaps(group)):
        _say_overlap(lost, group, subject, findings)
    kept = tuple(old for old in merged.groups if not old.overlaps(group))
    if not kept and not equal:
        return new
    _check_agreement(merged, group, subject, findings)
    for old in kept:
        if old.policy.spec.resource_name == spec.resource_name:
            sentence = f"VF {old.indices} and {group.indices} are both set up for {spec.resource_name}"
            findings.warn(_name(subject, old, group), f"{sentence}; sriov-network-operator sets up the latter only")
    mtus = [mtu for mtu in (merged.mtu, spec.mtu) if mtu is not None]
    return replace(
        new,
        groups=(group, *kept),
        num_vfs=max(merged.num_vfs, spec.num_vfs),
        mtu=max(mtus, default=None),
        eswitch_mode=spec.eswitch_mode or merged.eswitch_mode,
    )


def _say_overlap(lost: Group, group: Group, subject: str, findings: Findings) -> None:
    names = _name(subject, lost, group)
    if lost.policy.spec.priority == group.policy.spec.priority:
        both = f"VF {lost.indices} and VF {group.indices} overlap, and both have priority {group.policy.spec.priority}"
        findings.refuse(names, f"{both}; give one a lower number, or give each its own VFs with #")
    else:
        findings.warn(names, f"{lost.policy.name} gets no VF here: {group.policy.name} has the higher priority")


def _check_agreement(merged: Merged, group: Group, subject: str, findings: Findings) -> None:
    """What two policies that share a PF must not differ in."""
    spec, old = group.policy.spec, merged.groups[0]
    names = _name(subject, old, group)
    if spec.externally_managed != merged.externally_managed:
        findings.refuse(names, "externallyManaged differs; give both the same")
    if merged.eswitch_mode and not spec.eswitch_mode:
        kept = f"eSwitchMode {merged.eswitch_mode} of the policy of lower priority stays"
        findings.warn(names, f"{kept}; sriov-network-operator loses it")
    elif merged.eswitch_mode and spec.eswitch_mode != merged.eswitch_mode:
        sentence = f"eSwitchMode is {merged.eswitch_mode} and {spec.eswitch_mode}"
        if spec.priority == old.policy.spec.priority:
            findings.refuse(names, f"{sentence}; give both the same")
        else:
            findings.warn(names, f"{sentence}; {spec.eswitch_mode} has the higher priority")
    for one in merged.groups:
        types = (one.policy.spec.link_type or "").lower(), (spec.link_type or "").lower()
        if all(types) and types[0] != types[1]:
            findings.refuse(_name(subject, one, group), "linkType differs; a PF has one")


def _name(subject: str, one: Group, other: Group) -> str:
    names = " and ".join(sorted({one.policy.name, other.policy.name}))
    return f"{subject}: SriovNetworkNodePolicy {names}"
