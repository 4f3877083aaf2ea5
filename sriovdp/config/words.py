"""Types of single values in the config file, each with its check and its part of the JSON schema.

A check gets a text and gives its meaning, or raises ValueError with what is allowed. A number counts as text where text
is wanted: `vendors: [8086]` is what people write in YAML.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from sriovdp.config import macs, terms
from sriovdp.config.forms import Choice, Number, Special, Word
from sriovdp.config.ranges import VfIndices
from sriovdp.errors import DeviceError
from sriovdp.limits import MAX_HOLD, MAX_MTU, MAX_RATE, MAX_VFS, MAX_VLAN, MIN_MTU
from sriovdp.model import KERNEL_DRIVER, NO_DRIVER, USERSPACE_DRIVERS, PciAddress
from sriovdp.vlans import VlanIds

_PREFIX_LENGTH = 253 - len("requests.")
"""The kubelet checks the name with `requests.` before it (IsExtendedResourceName, k8s.io/kubernetes pkg/apis/core)."""

_NETDEV_LENGTH = 15
"""IFNAMSIZ of linux/if.h without the final zero."""

_LABEL_LENGTH = 63
_NODE_NAME_LENGTH = 253
_PATH_LENGTH = 4096
_MAX_NUMA_NODE = 1023  # NODES_SHIFT of the kernel is 10 at most
_DNS_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_DNS_NAME = rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*"
_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_RANGES = r"[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*"
_ADDRESS = r"(?:[0-9A-Fa-f]{4,}:)?[0-9A-Fa-f]{2}:[01][0-9A-Fa-f]\.[0-7]"
_NETDEV = rf"[^ /:#]{{1,{_NETDEV_LENGTH}}}"

_TEXT: Final = {"type": "string"}
_TEXT_OR_NUMBER: Final = {"type": ["string", "integer"]}
"""For words that YAML may take for a number."""


def _describe(pattern: str, kind: Mapping[str, Any] = _TEXT) -> dict[str, Any]:
    """A JSON schema for texts of this pattern."""
    return {**kind, "pattern": f"^{pattern.replace('(?:', '(')}$"}


def _match(pattern: str, allowed: str, length: int = _PATH_LENGTH, kind: Mapping[str, Any] = _TEXT) -> Word:
    """A word of this pattern that means itself."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if len(text) > length or not compiled.fullmatch(text):
            raise ValueError(allowed)
        return text

    return Word(check, _describe(pattern, kind))


def _check_prefix(text: str) -> str:
    """Check the domain of an extended resource, as the kubelet does."""
    if not re.fullmatch(_DNS_NAME, text) or len(text) > _PREFIX_LENGTH:
        raise ValueError(f"a resource prefix is a DNS name of at most {_PREFIX_LENGTH} characters, like intel.com")
    if text.endswith("kubernetes.io") or text.startswith("requests."):
        raise ValueError("the kubelet keeps kubernetes.io and requests.* for itself; use your own domain")
    return text


def _check_pci_id(text: str) -> str:
    plain = text.strip().lower().removeprefix("0x")
    if not re.fullmatch("[0-9a-f]{4}", text):
        hint = f"; write '{plain}'" if re.fullmatch("[0-9a-f]{4}", plain) else ", like '8086'"
        raise ValueError(f"an id is 4 hex digits in lower case without 0x{hint}")
    return text


def _check_address(text: str) -> PciAddress:
    """Read a PCI address; upper case and a missing domain are fine."""
    try:
        return PciAddress.parse(text)
    except DeviceError as error:
        raise ValueError("no PCI address; write it like 0000:3b:02.6") from error


def _check_driver(text: str) -> str:
    """Check the name of a driver; the common slip is the other dash, which never binds."""
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,54}", text):
        raise ValueError("a driver name is letters, digits, _ and -, like vfio-pci")
    for known in (USERSPACE_DRIVERS | {KERNEL_DRIVER, NO_DRIVER}) - {text}:
        if text.lower().replace("_", "-") == known.replace("_", "-"):
            raise ValueError(f"there is no driver of this name; did you mean '{known}'?")
    return text


def _check_selected_driver(text: str) -> str:
    """Check a driver name in a selector, where `kernel` never matches."""
    if text == KERNEL_DRIVER:
        raise ValueError("write the name of the VF's own kernel driver here, like iavf")
    if text == NO_DRIVER:
        raise ValueError("a device without a driver is in no pool")
    return _check_driver(text)


def _check_netdev(text: str) -> str:
    """Check the name of a PF's netdev, where VF ranges are not meant."""
    if "#" in text:
        raise ValueError(f"a PF has no range here; write '{text.partition('#')[0]}' and put the ranges under `vfs`")
    if not re.fullmatch(rf"[!-~]{{1,{_NETDEV_LENGTH}}}", text) or not re.fullmatch(_NETDEV, text):
        raise ValueError(f"a netdev name is 1-{_NETDEV_LENGTH} ASCII characters without blanks, / : and #")
    return text


def _check_pf_name(text: str) -> terms.PfName:
    name, hash_sign, ranges = text.partition("#")
    return terms.PfName(_check_netdev(name), VfIndices.parse(ranges) if hash_sign else None)


def _check_root_device(text: str) -> terms.RootDevice:
    address, hash_sign, ranges = text.partition("#")
    return terms.RootDevice(_check_address(address), VfIndices.parse(ranges) if hash_sign else None)


def _check_ddp_profile(text: str) -> str:
    """Check the name of a DDP package; these have blanks in them."""
    if not 1 <= len(text) <= _LABEL_LENGTH or not text.isprintable():
        raise ValueError("must be the name of a DDP package, like GTPv1-C/U IPv4/IPv6 payload")
    return text


def _check_path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable() or ".." in text.split("/") or len(text) > _PATH_LENGTH:
        raise ValueError("must be an absolute path without ..")
    return text


def _check_device_path(text: str) -> str:
    if not _check_path(text).startswith("/dev/") or text == "/dev/":
        raise ValueError("a device node is below /dev; it may be a pattern, like /dev/cxi*")
    return text


def _check_permissions(text: str) -> str:
    if not text or set(text) - set("rwm") or len(set(text)) != len(text):
        raise ValueError("allowed here: some of r (read), w (write), m (make the node), like rw")
    return text


def _check_env_name(text: str) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,200}", text):
        raise ValueError("a variable's name is letters, digits and _, and does not begin with a digit")
    if text.startswith("PCIDEVICE_"):
        raise ValueError("PCIDEVICE_* has the container's devices; use another name")
    return text


def _check_text(text: str) -> str:
    if not text.isprintable() or len(text) > _PATH_LENGTH:
        raise ValueError(f"must be a text of at most {_PATH_LENGTH} printable characters")
    return text


def _check_label_key(text: str) -> str:
    domain, slash, name = text.rpartition("/")
    if (slash and not re.fullmatch(_DNS_NAME, domain)) or not re.fullmatch(_NAME, name) or len(name) > _LABEL_LENGTH:
        raise ValueError("must be the key of a label, like feature.node.kubernetes.io/network-sriov.capable")
    return text


def _check_label_value(text: str) -> str:
    if text and (not re.fullmatch(_NAME, text) or len(text) > _LABEL_LENGTH):
        raise ValueError("the value of a label is at most 63 of A-Z a-z 0-9 . _ -; put true and numbers in quotes")
    return text


def _check_count(value: Any) -> int | Literal["max"]:
    if value == "max":
        return "max"
    if type(value) is int and 0 <= value <= MAX_VFS:
        return value
    raise ValueError(f"allowed here: a whole number from 0 to {MAX_VFS} without quotes, or max")


def _word(check: Callable[[str], Any], pattern: str, kind: Mapping[str, Any] = _TEXT) -> Word:
    return Word(check, _describe(pattern, kind))


Name: TypeAlias = Annotated[
    str,
    _match(
        _NAME,
        "a resource name is 1-63 of A-Z a-z 0-9 . _ - and begins and ends with a letter or digit",
        _LABEL_LENGTH,
        _TEXT_OR_NUMBER,
    ),
]
Prefix: TypeAlias = Annotated[str, _word(_check_prefix, _DNS_NAME, _TEXT_OR_NUMBER)]
PciId: TypeAlias = Annotated[str, _word(_check_pci_id, "[0-9a-f]{4}", _TEXT_OR_NUMBER)]
Address: TypeAlias = Annotated[PciAddress, _word(_check_address, _ADDRESS)]
RootDevice: TypeAlias = Annotated[terms.RootDevice, _word(_check_root_device, f"{_ADDRESS}(?:#{_RANGES})?")]
NetdevName: TypeAlias = Annotated[str, _word(_check_netdev, _NETDEV)]
PfName: TypeAlias = Annotated[terms.PfName, _word(_check_pf_name, f"{_NETDEV}(?:#{_RANGES})?")]
Driver: TypeAlias = Annotated[str, Word(_check_driver, {**_TEXT, "examples": ["kernel", "vfio-pci"]})]
SelectedDriver: TypeAlias = Annotated[str, Word(_check_selected_driver, {**_TEXT, "examples": ["iavf", "vfio-pci"]})]
Indices: TypeAlias = Annotated[VfIndices, _word(VfIndices.parse, _RANGES, {**_TEXT_OR_NUMBER, "minimum": 0})]
Macs: TypeAlias = Annotated[macs.MacPolicy, Special(macs.check_macs, macs.SCHEMA)]
Hold: TypeAlias = Annotated[int, Number(0, MAX_HOLD, "a time in seconds")]
Rate: TypeAlias = Annotated[int, Number(0, MAX_RATE, "a rate in Mbit/s")]
Count: TypeAlias = Annotated[
    int | Literal["max"],
    Special(_check_count, {"anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_VFS}, {"const": "max"}]}),
]
Mtu: TypeAlias = Annotated[int, Number(MIN_MTU, MAX_MTU, "an MTU")]
Vlan: TypeAlias = Annotated[int, Number(0, MAX_VLAN, "a VLAN")]
VlanRanges: TypeAlias = Annotated[VlanIds, _word(VlanIds.parse, _RANGES, {**_TEXT_OR_NUMBER, "minimum": 0})]
NetworkDriver: TypeAlias = Literal["kernel", "vfio-pci", "igb_uio", "uio_pci_generic"]
EswitchMode: TypeAlias = Literal["legacy", "switchdev"]
RdmaMode: TypeAlias = Literal["shared", "exclusive"]
Allocation: TypeAlias = Literal["required", "when-known", "ignored"]
SysctlPattern: TypeAlias = Annotated[
    str, _match(r"[A-Za-z0-9_.*?/-]{1,200}", "must be a pattern for names like net.ipv4.conf.IFNAME.arp_filter")
]
NumaNode: TypeAlias = Annotated[int, Number(0, _MAX_NUMA_NODE, "a NUMA node")]
LinkType: TypeAlias = Annotated[
    str, Choice(("ether", "infiniband"), {"eth": "ether", "ethernet": "ether", "ib": "infiniband"})
]
PKey: TypeAlias = Annotated[
    str, _match("0x[0-9a-f]{4}", "a partition key is 0x and 4 hex digits in lower case, like 0xffff")
]
AcpiIndex: TypeAlias = Annotated[
    str,
    _match(
        "[0-9]{1,10}", "an ACPI index is a number, the one in the device's `acpi_index` in sysfs", kind=_TEXT_OR_NUMBER
    ),
]
DdpProfile: TypeAlias = Annotated[str, Word(_check_ddp_profile)]
AuxType: TypeAlias = Annotated[str, Choice(("sf",))]
Placement: TypeAlias = Annotated[
    terms.Placement, _word(terms.Placement.parse, r"(?:numa|(?:numa\+)?(?:packed|spread|samePF|distinctPF))")
]
FilePath: TypeAlias = Annotated[str, _word(_check_path, "/.*")]
DevicePath: TypeAlias = Annotated[str, _word(_check_device_path, "/dev/.+")]
Permissions: TypeAlias = Annotated[str, _word(_check_permissions, "[rwm]{1,3}")]
EnvName: TypeAlias = Annotated[str, Word(_check_env_name)]
Text: TypeAlias = Annotated[str, Word(_check_text, _TEXT_OR_NUMBER)]
InfoKey: TypeAlias = Annotated[str, Word(lambda text: text if text == "*" else _check_address(text))]
NodeName: TypeAlias = Annotated[
    str,
    _match(_DNS_NAME, "must be the name of a Kubernetes node: lower-case letters, digits, - and .", _NODE_NAME_LENGTH),
]
LabelKey: TypeAlias = Annotated[str, Word(_check_label_key)]
LabelValue: TypeAlias = Annotated[str, Word(_check_label_value, _TEXT_OR_NUMBER)]
