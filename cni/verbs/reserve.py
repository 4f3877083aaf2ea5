"""Reserving the VF of an ADD: which one it is, that it is free, and how it is now."""

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

from cni.device_info import is_written
from cni.foreign_state import ForeignState
from cni.ipam.delegate import IpamError
from cni.policy import Policy
from cni.protocol.netconf import NetConf, Network
from cni.protocol.spec import DEVICE_IN_USE
from cni.protocol.wire import Request
from cni.verbs.add import choose_mode
from cni.verbs.choice import check_pf, list_candidates
from cni.verbs.draft import draft_attachment
from cni.verbs.ownership import Owners, check_owner
from cni.verbs.release import Release, is_alive
from cni.vf.infiniband import check_fit, refuse_twin
from cni.vf.rdma import check_isolation, mention_device
from cni.vf.representor import judge_representor
from cni.vf.settings import Vf, find_vf, is_alone, read_original
from cni.vf.trunk import judge_trunk
from sriovdp.errors import BusyError, CniError, naming
from sriovdp.kernel import netdevs
from sriovdp.kernel.device_name import DeviceName
from sriovdp.kernel.holders import find_holder
from sriovdp.kernel.host_use import find_host_use
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import PciAddress, find_pod, is_userspace
from sriovdp.state.journal import Attachment, Journal, Original

logger = logging.getLogger(__name__)


class Hold(Protocol):
    """Takes locks."""

    def __call__(self, name: str, timeout: float = ...) -> AbstractContextManager[None]:
        """Hold the lock of that name; after so many seconds of waiting raise BusyError."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Reserves VFs on one node."""

    sysfs: Sysfs
    journal: Journal
    hold: Hold
    foreign_state: ForeignState
    netlink: Netlink
    policy: Policy
    owners: Owners

    def begin(self, held: ExitStack, conf: NetConf, request: Request, netns_fd: int) -> tuple[Vf, Attachment]:
        """Lock the VF as long as `held`, make sure that it is free, and draft its entry in the journal."""
        pod = find_pod(request.args)

        def reserve(device: PciAddress) -> tuple[Vf, Attachment]:
            has_pf = not is_alone(self.sysfs, device)
            check_owner(self.policy, self.owners, device, pod, is_named=conf.device is not None, has_pf=has_pf)
            self._settle_previous(device, request)
            vf = find_vf(self.sysfs, self.netlink, device)
            refuse_unread(vf)
            original = read_original(self.sysfs, self.netlink, vf)
            self._refuse_in_use(vf, original)
            mode = choose_mode(conf, vf, original.driver)
            self._check_infiniband(held, conf, vf, original, mode)
            is_told = not conf.device_info or is_written(conf.device_info, self.policy)
            return vf, replace(
                draft_attachment(request, Network(conf.name, conf.version, conf.raw), device, original, netns_fd),
                mode=mode,
                device_info="" if is_told else conf.device_info,
                representor=judge_representor(self.sysfs, self.netlink, vf, conf.bridging),
                trunk=judge_trunk(self.sysfs, vf, conf.trunk),
                interface=name_in_pod(conf, request),
            )

        if conf.keys_2017 is None or conf.pf is None or conf.device is not None:
            device = conf.require_device()
            if conf.keys_2017 is not None:
                check_pf(self.sysfs, device, conf.keys_2017)
            with naming(DeviceName(self.sysfs, device)):
                held.enter_context(self.hold(device))
                return reserve(device)
        with self.hold(f"pf-{conf.pf}"):
            return self._take_first(held, list_candidates(self.sysfs, self.netlink, conf.keys_2017), reserve, conf)

    def _check_infiniband(self, held: ExitStack, conf: NetConf, vf: Vf, original: Original, mode: str) -> None:
        """Make sure that GUID and RDMA device are to be had; the GUID is this ADD's as long as `held`."""
        check_fit(conf, vf, original)
        if conf.guid:
            held.enter_context(self.hold(f"guid-{conf.guid}"))
            refuse_twin(self.sysfs, self.netlink, vf, conf.guid, self.journal.survey()[0])
        if mode == "kernel":
            if conf.rdma_isolation:
                check_isolation(self.sysfs, vf, vf.address, is_bound=original.name is not None)
            else:
                mention_device(self.sysfs, vf, vf.address)

    def _take_first(
        self,
        held: ExitStack,
        candidates: Iterable[PciAddress],
        reserve: Callable[[PciAddress], tuple[Vf, Attachment]],
        conf: NetConf,
    ) -> tuple[Vf, Attachment]:
        """The first candidate that is free. When there is none, raises CniError with the owner of each.

        Raises BusyError instead as long as another request works on one of them.
        """
        owners: list[str] = []
        is_busy = False
        for device in candidates:
            with ExitStack() as tried:
                try:
                    with naming(DeviceName(self.sysfs, device)):
                        tried.enter_context(self.hold(device, 0))
                        taken = reserve(device)
                except (BusyError, CniError) as error:
                    if isinstance(error, CniError) and error.code != DEVICE_IN_USE:
                        raise
                    owners.append(error.message)
                    is_busy |= isinstance(error, BusyError)
                    continue
                held.enter_context(tried.pop_all())
                return taken
        said = "; ".join(owners) or "none of its VFs has an unused netdev on the host"
        text = f"{conf.pf}: no VF is free: {said}"
        if is_busy:
            raise BusyError(text, hint="one may be free in a moment: repeat the call")
        raise CniError(DEVICE_IN_USE, text, hint="create more VFs, or remove pods")

    def _settle_previous(self, device: PciAddress, request: Request) -> None:
        """Make sure that the VF and the interface are free; take a VF back from an owner whose sandbox is gone.

        Raises CniError naming the owner when there is one.
        """
        attachments, damages = self.journal.survey()
        hint = "it is free once the runtime sends DEL for that attachment"
        for damage in damages:
            if damage.device == device:
                raise CniError(DEVICE_IN_USE, f"it may be attached: {damage.reason}")
        for other in attachments:
            same_interface = (other.container_id, other.ifname) == (request.container_id, request.ifname)
            if other.released or not (other.device == device or same_interface):
                continue
            if other.device != device or (other.phase == "attached" and self._is_in_use(other)):
                name = DeviceName(self.sysfs, other.device)
                raise CniError(DEVICE_IN_USE, f"{name}: it is attached to {other.owner}", hint=hint)
            if whole := self.journal.find_attachment(other.container_id, other.ifname):
                name = DeviceName(self.sysfs, device)
                logger.warning("%s: releasing it first: it was attached to %s, which is gone", name, other.owner)
                try:
                    Release(self.sysfs, self.journal).finish(whole, None)
                except IpamError as error:  # the VF is back; the addresses are the agent's to free
                    logger.warning("%s: released, but the addresses of %s are not: %s", name, other.owner, error)
        if owner := self.foreign_state.find_owner(device):
            raise CniError(DEVICE_IN_USE, f"it is attached to container {owner}", hint=hint)

    def _refuse_in_use(self, vf: Vf, original: Original) -> None:
        """Raise CniError when this host or a program on it uses the VF. Raises KernelError."""
        user, hint = None, "end that program or virtual machine"
        if is_userspace(original.driver):
            user = find_holder(self.sysfs, vf.address)
        elif use := self._find_host_use(vf.address):
            user, hint = f"this host: {use}", "take it away there, and let no network manager set up VFs"
        if user:
            raise CniError(DEVICE_IN_USE, f"{vf}: it is used by {user}", hint=hint)

    def _find_host_use(self, address: PciAddress) -> str:
        """What this host uses a VF for; of a VF with several netdevs each one counts, as a new driver takes all."""
        links = map(self.netlink.find, netdevs.list_netdevs(self.sysfs, address).values())
        return next((use for link in links if link and (use := find_host_use(self.sysfs, link))), "")

    def _is_in_use(self, other: Attachment) -> bool:
        """Whether its sandbox lives. A netdev that is home says no: the inode may be another namespace's by now."""
        number = other.original.dev_port
        is_home = other.mode == "kernel" and netdevs.find_netdev(self.sysfs, other.device, number) is not None
        return is_alive(other) and not is_home


def refuse_unread(vf: Vf) -> None:
    """Raise BusyError of a VF in reset: how it is now is not known, so nothing could be set back to that later."""
    if vf.is_unread:
        raise BusyError(
            f"{vf}: attaching it failed: its settings cannot be read: {vf.explain()}",
            hint="the runtime tries again; see the kernel log (dmesg) for its driver's reason if this lasts",
        )


def name_in_pod(conf: NetConf, request: Request) -> str:
    """What the interface is called in the sandbox."""
    return (conf.keys_2017 and conf.keys_2017.ifname) or request.ifname
