"""Which words are allowed in the config file. Each check gives the value back, or raises ValueError with a sentence."""

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Literal, get_args

from sriovdp.config.ranges import MAX_VFS, VfIndices
from sriovdp.config.values import (
    DeviceType,
    HealthCondition,
    Order,
    PfName,
    Placement,
    RootDevice,
    VdpaType,
)
from sriovdp.errors import DeviceError
from sriovdp.model import KERNEL_DRIVER, NO_DRIVER, USERSPACE_DRIVERS, PciAddress

_PREFIX_LENGTH = 253 - len("requests.")
"""The kubelet checks the name with `requests.` before it (IsExtendedResourceName, k8s.io/kubernetes pkg/apis/core)."""

_NETDEV_LENGTH = 15
"""IFNAMSIZ of linux/if.h without the final zero."""

_LABEL_LENGTH = 63
_NODE_NAME_LENGTH = 253
_PATH_LENGTH = 4096
_LINK_TYPES = ("ether", "infiniband")
_LINK_ALIASES = {"eth": "ether", "ethernet": "ether", "ib": "infiniband"}
_P_KEY = re.compile(r"0x[0-9a-f]{4}")
_ACPI_INDEX = re.compile(r"[0-9]{1,10}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_PREFIX = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PCI_ID = re.compile(r"[0-9a-f]{4}")
_DRIVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,54}")
_NETDEV = re.compile(rf"[!-~]{{1,{_NETDEV_LENGTH}}}")


def check_prefix(text: str) -> str:
    """Check the domain of an extended resource, as the kubelet does."""
    if not _PREFIX.fullmatch(text) or len(text) > _PREFIX_LENGTH:
        raise ValueError(f"a resource prefix is a DNS name of at most {_PREFIX_LENGTH} characters, like intel.com")
    if text.endswith("kubernetes.io") or text.startswith("requests."):
        raise ValueError("the kubelet keeps kubernetes.io and requests.* for itself; use your own domain")
    return text


def check_name(text: str) -> str:
    """Check the name part of an extended resource, as the kubelet does."""
    if not _NAME.fullmatch(text) or len(text) > _LABEL_LENGTH:
        raise ValueError("a resource name is 1-63 of A-Z a-z 0-9 . _ - and begins and ends with a letter or digit")
    return text


def check_pci_id(text: str) -> str:
    """Check a vendor or device id."""
    if not _PCI_ID.fullmatch(text):
        plain = text.strip().lower().removeprefix("0x")
        hint = f"; write '{plain}'" if _PCI_ID.fullmatch(plain) else ", like '8086'"
        raise ValueError(f"an id is 4 hex digits in lower case without 0x{hint}")
    return text


def check_address(text: str) -> PciAddress:
    """Read a PCI address; upper case and a missing domain are fine."""
    try:
        return PciAddress.parse(text)
    except DeviceError as error:
        raise ValueError("no PCI address; write it like 0000:3b:02.6") from error


def check_driver(text: str) -> str:
    """Check the name of a driver; its spelling with the wrong dash is the classic that never binds."""
    if not _DRIVER.fullmatch(text):
        raise ValueError("a driver name is letters, digits, _ and -, like vfio-pci")
    for known in (USERSPACE_DRIVERS | {KERNEL_DRIVER, NO_DRIVER}) - {text}:
        if text.lower().replace("_", "-") == known.replace("_", "-"):
            raise ValueError(f"there is no driver of this name; did you mean '{known}'?")
    return text


def check_driver_selected(text: str) -> str:
    """Check a driver name in a selector, where `kernel` would never match."""
    if text == KERNEL_DRIVER:
        raise ValueError("here a driver goes by its own name; write that of the VF's kernel driver, like iavf")
    if text == NO_DRIVER:
        raise ValueError("a device without a driver is in no pool")
    return check_driver(text)


def check_netdev(text: str) -> str:
    """Check the name of a PF's netdev, where VF ranges are not meant."""
    if "#" in text:
        raise ValueError(f"here a PF is named whole; write '{text.partition('#')[0]}' and the ranges under `vfs`")
    if not _NETDEV.fullmatch(text) or "/" in text or ":" in text:
        raise ValueError(f"a netdev name is 1-{_NETDEV_LENGTH} ASCII characters without blanks, / : and #")
    return text


def check_pf_name(text: str) -> PfName:
    """Read `name` or `name#0-3,5`."""
    name, hash_sign, ranges = text.partition("#")
    return PfName(check_netdev(name), VfIndices.parse(ranges) if hash_sign else None)


def check_root_device(text: str) -> RootDevice:
    """Read `address` or `address#0-3,5`."""
    address, hash_sign, ranges = text.partition("#")
    return RootDevice(check_address(address), VfIndices.parse(ranges) if hash_sign else None)


def check_device_type(text: str) -> DeviceType:
    """Check what kind of device a pool offers."""
    match text:
        case "netDevice" | "accelerator" | "auxNetDevice":
            return text
    raise ValueError(suggest(text, get_args(DeviceType)))


def check_link_type(text: str) -> str:
    """Check a link type, as `ip link` shows it behind `link/`."""
    if text not in _LINK_TYPES:
        raise ValueError(suggest(_LINK_ALIASES.get(text.lower(), text), _LINK_TYPES))
    return text


def check_p_key(text: str) -> str:
    """Check a partition key, as sysfs writes it."""
    if not _P_KEY.fullmatch(text):
        raise ValueError("a partition key is 0x and 4 hex digits in lower case, like 0xffff")
    return text


def check_acpi_index(text: str) -> str:
    """Check an index that the firmware gave a device."""
    if not _ACPI_INDEX.fullmatch(text):
        raise ValueError("an ACPI index is a number, as `acpi_index` of the device in sysfs tells it")
    return text


def check_ddp_profile(text: str) -> str:
    """Check the name of a DDP package; these have blanks in them."""
    if not 1 <= len(text) <= _LABEL_LENGTH or not text.isprintable():
        raise ValueError("the name of a DDP package is wanted, like GTPv1-C/U IPv4/IPv6 payload")
    return text


def check_aux_type(text: str) -> str:
    """Check a type of auxiliary device; upstream allows one."""
    if text != "sf":
        raise ValueError("allowed here: sf")
    return text


def check_vdpa_type(text: str) -> VdpaType:
    """Check how a vDPA device shows itself to a pod."""
    match text:
        case "vhost" | "virtio":
            return text
    raise ValueError(suggest(text, get_args(VdpaType)))


def check_placement(text: str) -> Placement:
    """Read `numa`, an order like `spread`, or both like `numa+spread`."""
    numa, rest = ("numa", text.removeprefix("numa").removeprefix("+")) if text.startswith("numa") else ("", text)
    match rest:
        case "packed" | "spread" | "samePF" | "distinctPF":
            return Placement(bool(numa), rest)
        case "" if numa and text == "numa":
            return Placement(True)
    orders = ", ".join(get_args(Order))
    raise ValueError(f"allowed here: one of {orders}; before it `numa+` to stay on one NUMA node if that can be")


def check_health(text: str) -> HealthCondition:
    """Check a condition for being healthy."""
    match text:
        case "driver" | "deviceNodes" | "pfUp" | "pfCarrier":
            return text
    raise ValueError(suggest(text, get_args(HealthCondition)))


def check_path(text: str) -> str:
    """Check a path of a container or of the host."""
    if not text.startswith("/") or not text.isprintable() or ".." in text.split("/") or len(text) > _PATH_LENGTH:
        raise ValueError("an absolute path without .. is wanted")
    return text


def check_device_path(text: str) -> str:
    """Check the path of a device node, or a pattern of such paths."""
    if not check_path(text).startswith("/dev/") or text == "/dev/":
        raise ValueError("a device node is below /dev; it may be a pattern, like /dev/cxi*")
    return text


def check_permissions(text: str) -> str:
    """Check what a container may do with a device node."""
    if not text or set(text) - set("rwm") or len(set(text)) != len(text):
        raise ValueError("allowed here: some of r (read), w (write), m (make the node), like rw")
    return text


def check_env_name(text: str) -> str:
    """Check the name of an environment variable."""
    if not _ENV_NAME.fullmatch(text):
        raise ValueError("a variable's name is letters, digits and _, and begins with no digit")
    if text.startswith("PCIDEVICE_"):
        raise ValueError("PCIDEVICE_* tells the container which devices it has; use another name")
    return text


def check_text(text: str) -> str:
    """Check a text that goes to a container."""
    if not text.isprintable() or len(text) > _PATH_LENGTH:
        raise ValueError(f"a text of at most {_PATH_LENGTH} printable characters is wanted")
    return text


def check_info_key(text: str) -> str:
    """Check whom an entry of `additionalInfo` is about."""
    return text if text == "*" else check_address(text)


def check_node_name(text: str) -> str:
    """Check the name of a Kubernetes node."""
    if not _PREFIX.fullmatch(text) or len(text) > _NODE_NAME_LENGTH:
        raise ValueError("the name of a Kubernetes node is wanted: lower-case letters, digits, - and .")
    return text


def check_label_key(text: str) -> str:
    """Check the key of a label, with or without a domain."""
    domain, slash, name = text.rpartition("/")
    if (slash and not _PREFIX.fullmatch(domain)) or not _NAME.fullmatch(name) or len(name) > _LABEL_LENGTH:
        raise ValueError("a label's key is wanted, like feature.node.kubernetes.io/network-sriov.capable")
    return text


def check_label_value(text: str) -> str:
    """Check the value of a label, which may be empty."""
    if text and (not _NAME.fullmatch(text) or len(text) > _LABEL_LENGTH):
        raise ValueError("a label's value is at most 63 of A-Z a-z 0-9 . _ - in quotes, if it is true or a number")
    return text


def check_count(value: object) -> int | Literal["max"]:
    """Check a number of VFs."""
    if value == "max":
        return "max"
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_VFS:
        return value
    raise ValueError(f"allowed here: a whole number from 0 to {MAX_VFS} without quotes, or max")


def check_between(low: int, high: int, what: str) -> Callable[[object], int]:
    """Make a check for a whole number from `low` to `high`."""

    def check(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError(f"{what} is a whole number from {low} to {high} without quotes")

    return check


def suggest(word: str, known: Sequence[str]) -> str:
    """What to write instead: the known word that looks alike, else all that there are."""
    folded = {name.lower(): name for name in known}
    close = get_close_matches(word.lower()[:99], folded, n=1)
    return f"did you mean '{folded[close[0]]}'?" if close else f"allowed here: {', '.join(known)}"
