"""State of the plugins that this one replaces: their pods keep running, and sriovdp releases their VFs.

sriov-cni keeps `CONTAINERID-IFNAME` with the whole configuration and the VF's original state, and `pci/ADDRESS` with
the path of the network namespace. ib-sriov-cni keeps the former alone, in a folder beside it. The Intel plugin of 2017
keeps `CONTAINERID-IFNAME` for DPDK, with the PCI address.

A network's `cniDir` names such a folder, and its author is not root. So only root's word counts: the folder is below
one of the node's policy, it and all above it belong to root, and each file is root's, regular and small.
"""

import errno
import logging
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cni.foreign_infiniband import read_rdma
from cni.foreign_original import read_original
from cni.policy import STATE_FOLDER, Policy, find_place
from cni.protocol.netconf import Network
from cni.protocol.wire import Request
from sriovdp.errors import SriovdpError
from sriovdp.kernel import netns
from sriovdp.kernel.beneath import open_beneath
from sriovdp.kernel.netdevs import find_netdev, list_parents
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs, list_names
from sriovdp.model import PciAddress
from sriovdp.reading import UnreadableError, parse_object
from sriovdp.state.journal import Attachment, read_boot_id

logger = logging.getLogger(__name__)

_MAX_SIZE = 1 << 20  # bytes of a file; sriov-cni keeps the whole network configuration in it


@dataclass(frozen=True, slots=True)
class ForeignState:
    """What another plugin left in one folder."""

    folder: Path = STATE_FOLDER

    @classmethod
    def choose(cls, named: str | None, policy: Policy, default: "ForeignState", caller: str) -> "ForeignState":
        """The folder that a network names, when the policy has it, else the default one with a warning."""
        place = find_place(named, policy.state_folders) if named else None
        if named and place is None:
            folders = ", ".join(map(str, policy.state_folders)) or "no folder"
            logger.warning("%s: cniDir %r is ignored: this node allows %s (cni.stateFolders)", caller, named, folders)
        return cls(place.folder / place.relative) if place else default

    def beside(self, name: str) -> "ForeignState":
        """What is left in another folder beside this one."""
        return ForeignState(self.folder.parent / name)

    def find(self, request: Request, network: Network, netns_fd: int | None, sysfs: Sysfs) -> Attachment | None:
        """The attachment of the request's container as that plugin made it, to be released; None without one."""
        document = self._read(_name_cache(request.container_id, request.ifname))
        device = _read_device(document)
        if device is None:
            return None
        is_sandbox = netns_fd is not None and netns.is_namespace(netns_fd)
        sandbox = netns.identify(netns_fd) if netns_fd is not None and is_sandbox else netns.NetnsId(0, 0)
        original = read_original(document, sysfs, device)
        is_dpdk = original.name is None
        return Attachment(
            container_id=request.container_id,
            ifname=request.ifname,
            network=network.name,
            device=device,
            rdma=read_rdma(document),
            mode="dpdk" if is_dpdk else "kernel",
            original=original,
            netns=request.netns,
            netns_dev=sandbox.dev,
            netns_ino=sandbox.ino,
            boot_id=read_boot_id(),
            config=network.raw,
            args=request.args,
            path=request.path,
            phase="releasing",
            released=not self._is_owned_by(
                device, request.netns, None if is_dpdk or not is_sandbox else netns_fd, sysfs
            ),
        )

    def forget(self, attachment: Attachment) -> None:
        """Remove that plugin's files of the attachment, once our journal has it."""
        self._remove(_name_cache(attachment.container_id, attachment.ifname))
        if not attachment.released:
            self._remove(f"pci/{attachment.device}")

    def find_owner(self, device: str) -> str | None:
        """Who has the VF by that plugin, in words; None when no container has it, or its sandbox is gone."""
        path = self._read_text(f"pci/{device}")
        if not path or not _is_alive(path):
            return None
        caches = [name for name, document in self._caches() if _read_device(document) == device]
        # without a cache it was released: sriov-cni forgets to remove the other file in DPDK mode
        return f"{caches[0]} (attached by sriov-cni to {path})" if caches else None

    def _is_owned_by(self, device: PciAddress, path: str, netns_fd: int | None, sysfs: Sysfs) -> bool:
        """Whether the VF still is this sandbox's, by that plugin's word, else by where its netdev is."""
        owner = self._read_text(f"pci/{device}")
        if owner:
            return not path or owner == path
        if netns_fd is None:
            return True
        # plugins before sriov-cni 2.1 say no more: it is in the sandbox, or came home from it under its old name
        if find_netdev(sysfs, device):
            return True
        return netns.run_in(netns_fd, _has_device, list_parents(sysfs, device))

    def _caches(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for name in sorted(list_names(self.folder)):
            if "-" in name:
                yield name, self._read(name)

    def _read(self, name: str) -> Mapping[str, Any]:
        text = self._read_text(name)
        if not text:
            return {}
        try:
            return parse_object(text.encode())
        except UnreadableError as error:
            logger.error("%s/%s: state of another plugin cannot be read: %s", self.folder, name, error)
            return {}

    def _read_text(self, name: str) -> str | None:
        """A file's content; None when it is not there, or is not trusted."""
        try:
            descriptor = open_beneath(self.folder, name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ENOTDIR:
                logger.error("%s/%s: state of another plugin cannot be read: %s", self.folder, name, error.strerror)
            return None
        try:
            if fault := _find_fault(os.fstat(descriptor)) or _find_fault_above(self.folder):
                logger.error("%s/%s: state of another plugin is ignored: %s", self.folder, name, fault)
                return None
            return os.read(descriptor, _MAX_SIZE).decode(errors="replace").strip()
        finally:
            os.close(descriptor)

    def _remove(self, name: str) -> None:
        folder, base = os.path.split(name)
        with suppress(OSError):
            parent = open_beneath(self.folder, folder or ".", os.O_PATH | os.O_DIRECTORY)
            try:
                os.unlink(base, dir_fd=parent)
            finally:
                os.close(parent)


def _name_cache(container_id: str, ifname: str) -> str:
    return f"{container_id}-{ifname}"


def _find_fault(state: os.stat_result) -> str | None:
    """Why a file is not trusted."""
    if not stat.S_ISREG(state.st_mode):
        return "it is no regular file"
    if state.st_uid != 0 or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others than root can write it"
    return f"it is larger than {_MAX_SIZE >> 20} MiB" if state.st_size > _MAX_SIZE else None


def _find_fault_above(folder: Path) -> str | None:
    """Why a folder is not trusted: others than root can put files there, or another folder in its place."""
    real = folder.resolve()
    for path in (real, *real.parents):
        state = path.stat()
        is_shared = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        # in a sticky folder like /tmp only root can replace what is root's
        if state.st_uid != 0 or (is_shared and (path == real or not state.st_mode & stat.S_ISVTX)):
            return f"others than root can write {path}"
    return None


def _has_device(parents: Collection[str]) -> bool:
    """Run in the sandbox."""
    with Netlink() as netlink:
        return netlink.find_by_parent(parents) is not None


def _read_device(document: Mapping[str, Any]) -> PciAddress | None:
    text = document.get("deviceID") or document.get("pci_addr")
    try:
        return PciAddress.parse(text) if isinstance(text, str) else None
    except SriovdpError:
        return None


def _is_alive(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return False
    try:
        return netns.is_namespace(descriptor)
    finally:
        os.close(descriptor)
