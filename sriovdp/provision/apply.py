"""Make the node as the config says: plan, refuse what would hurt, write the intent down, change, read back.

Order for a PF: link up, VFs created with their drivers' autoprobe off, carrier awaited (igb resets the PF when VFs are
created, and a VF driver probed meanwhile finds no PF), then for each VF its admin MAC before its driver.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

from sriovdp.config.values import Config
from sriovdp.errors import DeviceError, KernelError, VerifyError
from sriovdp.inventory import find_netdev_name, take_snapshot
from sriovdp.journal import Journal
from sriovdp.kernel import drivers
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.sysfs import Sysfs, read_link, read_text, write_text
from sriovdp.model import USERSPACE_DRIVERS, NetDevice, Node, PciAddress
from sriovdp.provision.plan import Plan, plan
from sriovdp.provision.steps import BindDriver, SetAdminMac, SetLinkUp, SetNumVfs, Step, VfStep
from sriovdp.provision.usage import list_attached, refuse_if_used

logger = logging.getLogger(__name__)

Report = Callable[[str], None]

_CARRIER_TIMEOUT = 10.0  # seconds; an 82576 takes 1-4 s after its VFs were created
_CARRIER_INTERVAL = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, in order, and what there is to say about the config."""

    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()


def apply(config: Config, sysfs: Sysfs, journal: Journal, report: Report = logger.info) -> Outcome:
    """Make the node as the config says, or change nothing at all when that would disturb whoever uses a VF.

    `report` is told each step when it begins. Raises InUseError (nothing was changed), DeviceError, KernelError,
    JournalError, and VerifyError when the node is not as planned in the end.
    """
    node, todo = _look(config, sysfs, journal)
    for warning in todo.warnings:
        report(f"warning: {warning}")
    if todo.is_empty:
        report("nothing to do: the node is as the config says")
        return Outcome(warnings=todo.warnings)
    refuse_if_used(todo, node, sysfs, journal)
    with Netlink() as netlink:
        for pf, steps in groupby(todo.steps, key=lambda step: step.pf):
            _Change(pf, sysfs, netlink, report).run(list(steps), node, journal)
    _verify(*_look(config, sysfs, journal))
    report(f"done: {len(todo.steps)} steps, read back and verified")
    return Outcome(todo.steps, todo.warnings)


def _look(config: Config, sysfs: Sysfs, journal: Journal) -> tuple[Node, Plan]:
    node = take_snapshot(sysfs)
    return node, plan(config, node, list_attached(journal))


def _verify(_: Node, left: Plan) -> None:
    if not left.is_empty:
        listed = "\n".join(f"  {step}: {step.reason}" for step in left.steps)
        raise VerifyError(
            f"all steps were done, but the node is not as the config says; still to do:\n{listed}",
            hint="something else may change the node at the same time; the kernel log (dmesg) has the drivers' reasons",
        )


@dataclass
class _Change:
    """The change of one PF. `drivers` has the resolved name of each wanted driver: VFs of a PF are all alike."""

    pf: PciAddress
    sysfs: Sysfs
    netlink: Netlink
    report: Report
    drivers: dict[str, str] = field(default_factory=dict)

    def run(self, steps: Sequence[Step], node: Node, journal: Journal) -> None:
        """Do all steps, with the intent and what was there before in the journal."""
        record = {"address": self.pf, "before": _describe(node, self.pf), "steps": [str(step) for step in steps]}
        journal.write_pf(self.pf, {**record, "phase": "changing"})
        link_changed = False
        with self._autoprobe_off():
            for step in steps:
                if link_changed and isinstance(step, SetAdminMac | BindDriver):
                    self._wait_for_carrier()
                    link_changed = False
                self.report(str(step))
                self._do(step)
                link_changed |= isinstance(step, SetLinkUp | SetNumVfs)
        journal.write_pf(self.pf, {**record, "phase": "done"})

    def _do(self, step: Step) -> None:
        match step:
            case SetLinkUp():
                self.netlink.set_link(self._netdev().ifindex, f"setting {step.pf_name} up", state="up")
            case SetNumVfs():
                self._set_num_vfs(step)
            case SetAdminMac():
                self.netlink.set_vf(self._netdev().ifindex, step.index, {"mac": step.wanted})
            case BindDriver():
                self._bind(step)

    @contextmanager
    def _autoprobe_off(self) -> Iterator[None]:
        """Keep drivers off new VFs until each has its MAC: udev may load their module at any moment."""
        switch = self.sysfs.pci(self.pf) / "sriov_drivers_autoprobe"
        before = read_text(switch)
        if before != "1":
            yield
            return
        write_text(switch, "0")
        try:
            yield
        finally:
            write_text(switch, before)

    def _set_num_vfs(self, step: SetNumVfs) -> None:
        """A number that is not 0 can only be changed to 0 (drivers/pci/iov.c, sriov_numvfs_store)."""
        attribute = self.sysfs.pci(self.pf) / "sriov_numvfs"
        try:
            if step.current:
                write_text(attribute, "0")
            if step.wanted:
                write_text(attribute, str(step.wanted))
        except KernelError as error:
            error.hint = (
                "the kernel log (dmesg) has the reason; without room for the VFs' memory, boot with pci=realloc"
            )
            raise

    def _bind(self, step: BindDriver) -> None:
        address = self._vf_address(step)
        if step.again:
            drivers.unbind(self.sysfs, address)
        if step.wanted not in self.drivers:
            self.drivers[step.wanted] = drivers.resolve_driver(self.sysfs, address, step.wanted)
        driver = self.drivers[step.wanted]
        drivers.bind(self.sysfs, address, driver)
        if driver not in USERSPACE_DRIVERS:
            drivers.wait_for_netdev(self.sysfs, address)

    def _vf_address(self, step: VfStep) -> str:
        address = read_link(self.sysfs.pci(self.pf) / f"virtfn{step.index}")
        if address is None:
            raise DeviceError(
                f"{step} failed: {step.pf_name} has no VF {step.index}", hint="see the kernel log (dmesg)"
            )
        return address

    def _netdev(self) -> NetDevice:
        name = find_netdev_name(self.sysfs, self.pf)
        netdev = self.netlink.find(name) if name else None
        if netdev is None:
            raise DeviceError(
                f"the netdev of PF {self.pf} has vanished", hint="see the kernel log (dmesg), then apply again"
            )
        return netdev

    def _wait_for_carrier(self) -> None:
        """Wait for the PF's link; a PF without a cable is told, and its VFs are set up all the same."""
        if find_netdev_name(self.sysfs, self.pf) is None:
            return
        deadline = time.monotonic() + _CARRIER_TIMEOUT
        while not (netdev := self._netdev()).carrier:
            if time.monotonic() > deadline:
                self.report(f"{netdev.name}: no carrier after {_CARRIER_TIMEOUT:.0f} s, going on without")
                return
            time.sleep(_CARRIER_INTERVAL)
        self.report(f"{netdev.name}: has carrier")


def _describe(node: Node, address: PciAddress) -> dict[str, object]:
    """What is about to be changed of a PF, as it is now."""
    pf = next(pf for pf in node.pfs if pf.address == address)
    vfs = [
        {"index": vf.index, "address": vf.address, "driver": vf.driver, "mac": vf.settings.mac if vf.settings else None}
        for vf in pf.vfs
    ]
    return {"up": bool(pf.netdev and pf.netdev.up), "autoprobe": pf.autoprobe, "vfs": vfs}
