"""GC: releasing what the runtime no longer knows of (specification, section 4)."""

from collections.abc import Mapping
from typing import Any

from cni.protocol.spec import INVALID_CONFIG
from sriovdp.errors import CniError, InUseError
from sriovdp.kernel import netns
from sriovdp.state.journal import Attachment

_KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")  # libcni sends both


def parse_valid(raw: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Container id and CNI_IFNAME of each attachment that stays.

    Raises CniError when there is no such list: that would be every attachment of the network.
    """
    listed = next((raw[key] for key in _KEYS if raw.get(key) is not None), None)
    try:
        return {(entry["containerID"], entry["ifname"]) for entry in listed}  # type: ignore[union-attr] # None raises
    except (TypeError, KeyError):
        raise CniError(
            INVALID_CONFIG,
            f"{_KEYS[0]} is {listed!r}",
            hint='it must be a list of {"containerID": ..., "ifname": ...}; an empty one releases all',
        ) from None


def is_garbage(attachment: Attachment, network: str, valid: set[tuple[str, str]]) -> bool:
    """Whether an attachment is of that network and not listed. Other networks may be other runtimes'."""
    return attachment.network == network and (attachment.container_id, attachment.ifname) not in valid


def refuse_if_running(attachment: Attachment) -> None:
    """Raise InUseError when programs run in the sandbox: a runtime that forgets a pod does not make it an idle one."""
    running = netns.find_processes(netns.NetnsId(attachment.netns_dev, attachment.netns_ino))
    if running and attachment.netns_ino:
        raise InUseError(
            f"VF {attachment.device} stays with {attachment.owner}: process {running[0]} runs in its sandbox",
            hint="end it, or let the runtime send DEL",
        )
