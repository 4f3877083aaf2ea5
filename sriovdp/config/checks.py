"""Which words are allowed in the config file. Each check gives the value back, or raises ValueError with a sentence."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal

from sriovdp.config.ranges import MAX_VFS, VfIndices
from sriovdp.config.values import MacPolicy, PfName
from sriovdp.errors import DeviceError
from sriovdp.model import KERNEL_DRIVER, USERSPACE_DRIVERS, PciAddress

_PREFIX_LENGTH = 253 - len("requests.")
"""The kubelet checks the name with `requests.` before it (IsExtendedResourceName, k8s.io/kubernetes pkg/apis/core)."""

_NETDEV_LENGTH = 15
"""IFNAMSIZ of linux/if.h without the final zero."""

_DEVICE_TYPES = ("netDevice", "accelerator", "auxNetDevice")
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
    if not _NAME.fullmatch(text) or len(text) > 63:  # noqa: PLR2004 (length of a Kubernetes name)
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
    for known in (USERSPACE_DRIVERS | {KERNEL_DRIVER}) - {text}:
        if text.lower().replace("_", "-") == known.replace("_", "-"):
            raise ValueError(f"there is no driver of this name; did you mean '{known}'?")
    return text


def check_driver_selected(text: str) -> str:
    """Check a driver name in a selector, where `kernel` would never match."""
    if text == KERNEL_DRIVER:
        raise ValueError("here a driver goes by its own name; write that of the VF's kernel driver, like iavf")
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


def check_device_type(text: str) -> str:
    """Check what kind of device a pool offers; upstream knows three kinds."""
    if text in _DEVICE_TYPES[1:]:
        raise ValueError(f"this kind of device is not supported yet; allowed here: {_DEVICE_TYPES[0]}")
    if text not in _DEVICE_TYPES:
        raise ValueError(suggest(text, _DEVICE_TYPES))
    return text


def check_mac(text: str) -> MacPolicy:
    """Check where a VF's admin MAC comes from."""
    match text:
        case "stable" | "keep":
            return text
    raise ValueError("allowed here: stable (made from the PF's MAC and the VF's index), keep (left as it is)")


def check_count(value: object) -> int | Literal["max"]:
    """Check a number of VFs."""
    if value == "max":
        return "max"
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_VFS:
        return value
    raise ValueError(f"allowed here: a whole number from 0 to {MAX_VFS} without quotes, or max")


def suggest(word: str, known: Sequence[str], allowed: Sequence[str] = ()) -> str:
    """What to write instead: the known word that looks alike, else all that are allowed (those known, unless given)."""
    folded = {name.lower(): name for name in known}
    close = get_close_matches(word.lower()[:99], folded, n=1)
    return f"did you mean '{folded[close[0]]}'?" if close else f"allowed here: {', '.join(allowed or known)}"
