"""The key `representor` of a network: the bridge that a VF's representor is put into, and its VLANs there.

`vlan` and `trunk` are those of ovs-cni's configuration.
"""

from dataclasses import dataclass
from typing import Any

from cni.policy import Policy
from cni.protocol import keys
from sriovdp.limits import MAX_VLAN
from sriovdp.vlans import VlanIds, merge_spans

_KEYS = frozenset({"bridge", "vlan", "trunk"})
_TRUNK = 'VLANs like "5,20-29", or a list of {"id": N} and {"minID": N, "maxID": M}'
_SPAN_KEYS = (frozenset({"id"}), frozenset({"minID", "maxID"}))
_MOST_SPANS = MAX_VLAN  # there are no more VLANs


@dataclass(frozen=True, slots=True)
class Bridging:
    """`vlan` is that of frames without a tag, `trunk` those that pass with their tag.

    Without both, what the bridge gives to a new port passes.
    """

    bridge: str
    vlan: int | None = None
    trunk: VlanIds = VlanIds()  # noqa: RUF009 - it cannot be changed

    @property
    def vlans(self) -> VlanIds:
        """All VLANs that pass; empty for what the bridge gives."""
        return VlanIds.of({*self.trunk, *(() if self.vlan is None else (self.vlan,))})

    def __str__(self) -> str:
        return self.bridge


def read_bridging(key: str, value: Any) -> Bridging | None:
    """Read the key. Raises CniError with what is allowed."""
    if not value:
        return None
    if not isinstance(value, dict) or set(value) - _KEYS:
        raise keys.fault(key, value, "an object with bridge, and perhaps vlan and trunk")
    bridge = keys.text(f"{key}.bridge", value.get("bridge", ""))
    if not keys.is_ifname(bridge) or not bridge.isprintable():
        raise keys.fault(f"{key}.bridge", bridge, "the name of a bridge of the node")
    vlan = value.get("vlan")
    return Bridging(
        bridge,
        None if vlan is None else _read_vlan(f"{key}.vlan", vlan),
        _read_trunk(f"{key}.trunk", value.get("trunk") or []),
    )


def read_vlans(key: str, value: Any, allowed: str = 'VLANs like "100-110,200"') -> VlanIds | None:
    """Read VLANs that may pass with their tag: `100-110,200`, or one number. Raises CniError with what is allowed."""
    if value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise keys.fault(key, value, allowed)
    try:
        return VlanIds.parse(str(value), least=1)
    except ValueError:
        raise keys.fault(key, value, f"{allowed}, from 1 to {MAX_VLAN}") from None


def forbids_bridging(policy: Policy, wanted: Bridging) -> bool:
    """Whether the node does not allow the bridge."""
    return wanted.bridge not in policy.bridges


def _read_trunk(key: str, value: Any) -> VlanIds:
    if isinstance(value, str | int):
        return read_vlans(key, value, _TRUNK) or VlanIds()
    if not isinstance(value, list) or len(value) > _MOST_SPANS:
        raise keys.fault(key, value, _TRUNK)
    spans = []
    for entry in value:
        if not isinstance(entry, dict) or set(entry) not in _SPAN_KEYS:
            raise keys.fault(key, entry, _TRUNK)
        numbers = {name: _read_vlan(f"{key}.{name}", number) for name, number in entry.items()}
        first, last = numbers.get("minID", numbers.get("id", 0)), numbers.get("maxID", numbers.get("id", 0))
        if first > last:
            raise keys.fault(key, entry, f"{_TRUNK}, the lower number first")
        spans.append(range(first, last + 1))
    return VlanIds(merge_spans(spans))


def _read_vlan(key: str, value: Any) -> int:
    number: int = keys.number(1, MAX_VLAN)(key, value)
    return number
