"""A PF of a node as policies see it: from a look at the node, or from a SriovNetworkNodeState."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from sriovdp.cluster.findings import Findings
from sriovdp.cluster.manifest import Manifest
from sriovdp.cluster.specs import NicSelector, PfName
from sriovdp.config.wording import show
from sriovdp.errors import DeviceError
from sriovdp.model import PciAddress, PhysicalFunction

_LINK_TYPES = {"ether": "eth", "infiniband": "ib"}


@dataclass(frozen=True, slots=True)
class Interface:
    """A PF, or in a virtual machine a VF of the host. `total_vfs`, `num_vfs` and `mtu` are None where not known."""

    address: PciAddress
    name: str = ""
    altnames: tuple[str, ...] = ()
    vendor: str = ""
    device: str = ""
    link_type: str = ""
    net_filter: str = ""
    total_vfs: int | None = None
    num_vfs: int | None = None
    mtu: int | None = None

    @classmethod
    def of(cls, pf: PhysicalFunction) -> Self:
        """A PF of a node that was looked at."""
        netdev = pf.netdev
        return cls(
            pf.address,
            netdev.name if netdev else "",
            netdev.altnames if netdev else (),
            pf.vendor,
            pf.device,
            _LINK_TYPES.get(pf.traits.link_type or "", ""),
            total_vfs=pf.total_vfs,
            num_vfs=len(pf.vfs),
            mtu=netdev.mtu if netdev else None,
        )

    def find_entries(self, selector: NicSelector) -> list[PfName]:
        """Entries of `pfNames` that mean this PF, by its name or another of its names."""
        return [entry for entry in selector.pf_names if entry.name in {self.name, *self.altnames} - {""}]

    def is_meant(self, selector: NicSelector) -> bool:
        """Whether a policy's selector means this PF."""
        return (
            (not selector.vendor or selector.vendor == self.vendor)
            and (not selector.device_id or selector.device_id == self.device)
            and (not selector.root_devices or self.address in selector.root_devices)
            and (not selector.pf_names or bool(self.find_entries(selector)))
            and (not selector.net_filter or selector.net_filter == self.net_filter)
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.address})" if self.name else str(self.address)


def read_interfaces(state: Manifest, findings: Findings) -> list[Interface]:
    """The PFs of a SriovNetworkNodeState's status. What other versions write there beside them does not matter."""
    status = state.tree.get("status")
    entries = status.get("interfaces") if isinstance(status, dict) else None
    if entries in (None, []):
        findings.warn(state.place(), "has no status.interfaces: nothing is known of the PFs of this node")
        return []
    if not isinstance(entries, list):
        findings.refuse(state.place(("status", "interfaces")), f"must be a list, not {show(entries)}")
        return []
    return [*_read_entries(state, entries, findings)]


def _read_entries(state: Manifest, entries: list[Any], findings: Findings) -> Iterator[Interface]:
    seen = set()
    for number, entry in enumerate(entries):
        place = state.place(("status", "interfaces", number))
        try:
            found = _read_entry(entry)
        except (ValueError, DeviceError) as error:
            findings.refuse(place, str(error))
            continue
        if found.address in seen:
            findings.refuse(place, f"{found.address} is there a second time")
        seen.add(found.address)
        yield found


def _read_entry(entry: Any) -> Interface:
    if not isinstance(entry, dict):
        raise ValueError(f"must be an object, not {show(entry)}")  # noqa: TRY004 (a fault of the file)
    altnames = entry.get("altNames") or []
    is_fine = isinstance(altnames, list) and all(isinstance(name, str) for name in altnames)
    if not is_fine:
        raise ValueError("altNames must be a list of texts")
    return Interface(
        PciAddress.parse(_take(entry, "pciAddress", str) or ""),
        _take(entry, "name", str) or "",
        tuple(altnames),
        _take(entry, "vendor", str) or "",
        _take(entry, "deviceID", str) or "",
        (_take(entry, "linkType", str) or "").lower(),
        _take(entry, "netFilter", str) or "",
        _take(entry, "totalvfs", int) or 0,
        _take(entry, "numVfs", int) or 0,
        _take(entry, "mtu", int),
    )


def _take(entry: Mapping[str, Any], key: str, kind: type) -> Any:
    value = entry.get(key)
    if value is None or type(value) is kind:
        return value
    if kind is str and type(value) is int:  # ids that look like numbers
        return str(value)
    raise ValueError(f"{key} must be a {'text' if kind is str else 'whole number'}, not {show(value)}")
