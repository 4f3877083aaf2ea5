"""Whether the kubelet gave a VF to the pod that asks for it. The agent knows; the plugin only asks it."""

from dataclasses import dataclass
from typing import Protocol

from cni.policy import Policy
from cni.protocol.spec import DEVICE_IN_USE
from sriovdp.errors import CniError

_HINT = "let the pod request the resource; `allocation` in `cni` of the config file can allow it without"


@dataclass(frozen=True, slots=True)
class Owner:
    """What the kubelet says of a device: `pod` has it, like `default/web`, or no pod; a pool of this node offers it."""

    pod: str = ""
    is_offered: bool = False


class Owners(Protocol):
    """Says who has a device by the kubelet."""

    def __call__(self, device: str, *, fresh: bool) -> Owner | None:
        """The owner as it was last known, or asked of the kubelet just now; None when the kubelet does not answer."""


def ask_nobody(device: str, *, fresh: bool) -> Owner | None:
    """Without an agent nothing is known."""
    del device, fresh
    return None


def check_owner(policy: Policy, owners: Owners, device: str, pod: str, *, is_named: bool, has_pf: bool = True) -> None:
    """Raise CniError when the kubelet gave the VF to another pod, or to none although it is the kubelet's to give.

    `is_named`: the network names the VF; one that is chosen here, as in 2017, no kubelet gave. What is not so as it was
    last known is asked again, as a pod may just have been admitted. A function without a PF may be a NIC of this host,
    and not a VF that a hypervisor gave to it: then only the kubelet's word makes it a pod's.
    """
    if policy.allocation == "ignored":
        return
    for fresh in (False, True):
        is_required = policy.allocation == "required" or not has_pf
        reason = _find_reason(owners(device, fresh=fresh), pod, is_named=is_named, is_required=is_required)
        if not reason:
            return
    raise CniError(DEVICE_IN_USE, f"it is not for {f'pod {pod}' if pod else 'this container'}: {reason}", hint=_HINT)


def _find_reason(owner: Owner | None, pod: str, *, is_named: bool, is_required: bool) -> str:
    if owner is None:
        return "the kubelet does not say which pod has it" if is_required else ""
    if owner.pod:
        return "" if owner.pod == pod else f"the kubelet gave it to pod {owner.pod}"
    return "the kubelet gave it to no pod" if is_required or (is_named and owner.is_offered) else ""
