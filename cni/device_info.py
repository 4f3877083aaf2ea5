"""The device-info file of the Device Information Specification 1.1.0, which Multus puts into the network status.

Multus names the file in runtimeConfig; it is ours to write where the device plugin has not written one (section 5.1.2).
A network's author can name it too. So it is below a folder of the node's policy, no file is overwritten, and only the
file that ADD made is removed.
"""

import json
import logging
import os
import stat
from dataclasses import replace
from typing import Any

from cni.policy import Policy, find_place
from sriovdp.errors import SriovdpError
from sriovdp.kernel.beneath import open_beneath
from sriovdp.kernel.device_name import DeviceName
from sriovdp.kernel.representors import find_representor
from sriovdp.kernel.sysfs import Sysfs, read_link
from sriovdp.reading import UnreadableError, parse_object
from sriovdp.state.journal import Attachment

logger = logging.getLogger(__name__)

_VERSION = "1.1.0"
_MAX_SIZE = 4096  # bytes; ours have some hundred


def is_written(path: str, policy: Policy) -> bool:
    """Whether something is at that path already, which counts as the device plugin's file."""
    place = find_place(path, policy.device_info_folders)
    if place is None:
        return False
    try:
        os.close(open_beneath(place.folder, place.relative, os.O_PATH))
    except FileNotFoundError:
        return False
    except OSError:
        return True  # a link, for one: writing it will fail with the reason
    return True


def write_device_info(attachment: Attachment, policy: Policy, sysfs: Sysfs) -> Attachment:
    """Write the attachment's file unless it is there. Gives the attachment with what identifies the file.

    Raises SriovdpError when the policy does not have its folder, or it cannot be written.
    """
    path = attachment.device_info
    place = find_place(path, policy.device_info_folders)
    try:
        if place is None:
            raise SriovdpError(f"writing the device-info file {path!r} failed: it is below no folder that is allowed")
        place.folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        descriptor = open_beneath(place.folder, place.relative, flags, 0o644)
    except FileExistsError:
        return replace(attachment, device_info="")
    except OSError as error:
        raise _failure(path, error) from error
    try:
        state = os.fstat(descriptor)
        attachment = replace(attachment, device_info_dev=state.st_dev, device_info_ino=state.st_ino)
        os.write(descriptor, json.dumps(_describe(sysfs, attachment)).encode())
    except OSError as error:
        remove_device_info(attachment, sysfs)
        raise _failure(path, error) from error
    finally:
        os.close(descriptor)
    return attachment


def _failure(path: str, error: OSError) -> SriovdpError:
    return SriovdpError(f"writing the device-info file {path} failed: {error.strerror}")


def remove_device_info(attachment: Attachment, sysfs: Sysfs) -> None:
    """Remove the file that ADD wrote. What is there in its place is not ours, and no reason to keep the VF."""
    if not attachment.device_info:
        return
    try:
        _remove_ours(attachment)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        name = DeviceName(sysfs, attachment.device)
        logger.warning("%s: did not remove the device-info file %r: %s", name, attachment.device_info, error)


def _remove_ours(attachment: Attachment) -> None:
    parent, name = os.path.split(attachment.device_info)
    folder = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        state = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("it is no regular file now")
        made = (attachment.device_info_dev, attachment.device_info_ino)
        if (state.st_dev, state.st_ino) != made and (any(made) or not _is_about(folder, name, attachment.device)):
            raise ValueError("another program made it")
        os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)


def _is_about(folder: int, name: str, device: str) -> bool:
    """Whether the file is what ADD writes: of one that was killed before it could note which file it made."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        document = parse_object(os.read(descriptor, _MAX_SIZE))
    except UnreadableError:
        return False
    finally:
        os.close(descriptor)
    pci = document.get("pci")
    return document.get("version") == _VERSION and isinstance(pci, dict) and pci.get("pci-address") == device


def _describe(sysfs: Sysfs, attachment: Attachment) -> dict[str, Any]:
    pci = {"pci-address": attachment.device}
    if pf := read_link(sysfs.pci(attachment.device) / "physfn"):
        pci["pf-pci-address"] = pf
    if attachment.rdma:
        pci["rdma-device"] = ",".join(attachment.rdma)
    if representor := find_representor(sysfs, attachment.device):
        pci["representor-device"] = representor
    return {"type": "pci", "version": _VERSION, "pci": pci}
