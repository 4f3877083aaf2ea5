"""Doing steps at one PF, one after the other, each read back by the caller.

Order in time for a PF whose VFs are created: drivers' autoprobe off, the VFs, their settings, drivers for user space;
then the PF's carrier is awaited (igb resets the PF when VFs are created, and a VF driver probed meanwhile finds no PF),
then kernel drivers are bound, and their netdevs awaited together.
"""

import errno
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

from sriovdp.errors import DeviceError, KernelError, SriovdpError, VerifyError, keep_first_error
from sriovdp.kernel import drivers
from sriovdp.kernel.abilities import list_doubts, list_wanted
from sriovdp.kernel.busy import retry_while_busy
from sriovdp.kernel.device_name import DeviceName
from sriovdp.kernel.netdevs import find_netdev
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.sysfs import Sysfs, list_names, read_link, read_text, write_text
from sriovdp.model import KERNEL_DRIVER, NO_DRIVER, ZERO_MAC, PciAddress, VfSettings, is_userspace
from sriovdp.provision.eswitch import ModeChange
from sriovdp.provision.holding import HeldVfs
from sriovdp.provision.steps import (
    BindDriver,
    ClearOverride,
    SetAdminMac,
    SetAutoprobe,
    SetEswitchMode,
    SetGuid,
    SetLink,
    SetMtu,
    SetNumVfs,
    SetVf,
    SetVfMac,
    SetVfMtu,
    Step,
    VfStep,
)
from sriovdp.provision.waiting import Report, Wait, report_waits

_SILENCE = 10.0  # seconds at one step after which it is reported that it is still being waited for
_BUSY_PATIENCE = 30.0  # seconds for a setting; VFs may be in reset for a while after they were made or set
_ENABLE_PATIENCE = 10.0  # seconds for sriov_numvfs, as while the PF's firmware is in reset
_NETDEV_PATIENCE = 30.0  # seconds for a VF's netdev after its driver was bound
_CARRIER_TIMEOUT = 10.0  # seconds; an 82576 takes 1-4 s after its VFs were created
_CARRIER_INTERVAL = 0.1
_REFUSALS = {
    # net/core/rtnetlink.c, do_setvfinfo: the driver has no such setting; others: mellanox/mlx4/cmd.c, mlx4_set_vf_mac,
    # of a host whose e-switch is a DPU's mellanox/mlx5/core/eswitch.c, mlx5_eswitch_get_vport; linux/errno.h, ENOTSUPP
    "PF": frozenset({errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EPERM, 524}),
    # what drivers of VFs answer whose PF does not agree: iavf EACCES, ixgbevf EPERM, igbvf and bnxt_en EADDRNOTAVAIL
    "VF": frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.EADDRNOTAVAIL, errno.EINVAL}),
}
_NETDEVS_GET_IT = "the netdevs of VFs on kernel drivers get the MACs, other VFs keep what they have"
_GONE_HINT = "was its card pulled out? See the kernel log (dmesg); then apply again"
_RENAME_TIMEOUT = 5.0  # seconds; udev gives a new netdev its name while we look for it


@dataclass
class Change:
    """The change of one PF, to be run once. `resolved` has the real name of each wanted driver: VFs are all alike.

    `link_lost`: the PF's link may still be down from something that was done before. `held` has the locks of its VFs.
    """

    pf: PciAddress
    sysfs: Sysfs
    report: Report
    resolved: dict[str, str] = field(default_factory=dict)
    link_lost: bool = False
    held: HeldVfs | None = None
    refused: dict[int, str] = field(default_factory=dict)
    """Out: whose driver took no MAC or GUID that this program makes, by VF index; see `PfRecord.refused`."""
    made_vfs: bool = False
    """Out: whether the VFs that are there now were made by this change."""
    netlink: Netlink = field(init=False)
    wait: Wait = field(init=False)
    _autoprobe: str | None = None
    _ifindex: int | None = None
    _new: Mapping[int, VfSettings] | None = None
    _default: VfSettings | None = None
    _awaited: list[str] = field(default_factory=list)
    _unset: dict[int, SetAdminMac] = field(default_factory=dict)
    _mode: ModeChange = field(init=False)

    def __post_init__(self) -> None:
        self._mode = ModeChange(self.pf, self.report, drivers.current_driver(self.sysfs, self.pf))

    def run(self, steps: Sequence[Step]) -> None:
        """Do all steps. Raises DeviceError, KernelError and VerifyError beginning with the step that failed."""
        companions = [step for step in steps if isinstance(step, BindDriver) and is_userspace(step.wanted)]
        with (
            report_waits(self.report, _SILENCE) as self.wait,
            Netlink(_BUSY_PATIENCE, self.wait.explain) as self.netlink,
            self._autoprobe_kept(),
        ):
            for step in chain(steps, self._list_netdev_macs()):
                self.report(str(step))
                self.wait.begin(str(step))
                try:
                    self._do(step, companions)
                except SriovdpError as error:
                    error.message = f"{step} failed: {error.message.removeprefix(f'{error.subject}: ')}"
                    error.hint = "; ".join(filter(None, (error.hint, *self._list_doubts(step))))
                    raise
            self.wait_for_carrier()
            for address in self._awaited:
                self._wait_for_netdev(address)

    def _wait_for_netdev(self, address: str) -> str:
        driver = drivers.current_driver(self.sysfs, address)
        self.wait.begin(f"{DeviceName(self.sysfs, address)}: waiting for its netdev")
        self.wait.explain(f"{driver} has not made it; waiting for up to {_NETDEV_PATIENCE:.0f} s")
        return drivers.wait_for_netdev(self.sysfs, address, patience=_NETDEV_PATIENCE)

    def _list_doubts(self, step: Step) -> Iterator[str]:
        """What is known of the PF's driver that may be why a step failed."""
        named: Mapping[type, Sequence[str]] = {SetAdminMac: ("mac",), SetNumVfs: ("vfs",)}
        names = list_wanted(step.changes) if isinstance(step, SetVf) else named.get(type(step))
        if names:  # the PF may be gone, which is no error of its own here
            driver = read_link(self.sysfs.root / "bus/pci/devices" / self.pf / "driver")
            yield from list_doubts(driver, names)

    def _do(self, step: Step, companions: Sequence[BindDriver]) -> None:
        match step:
            case SetLink():
                self._set_link(step)
            case SetMtu():
                what = f"setting MTU {step.wanted} of {step.pf_name}"
                self.netlink.set_link(self._pf_ifindex(), what, mtu=step.wanted)
                self.link_lost = True
            case SetNumVfs():
                self._set_num_vfs(step)
            case SetEswitchMode():
                self._mode.change(step)
                self._ifindex, self.link_lost = None, True
            case SetAutoprobe():
                write_text(self.sysfs.pci(self.pf) / "sriov_drivers_autoprobe", str(int(step.wanted)))
            case BindDriver():
                self._bind(step, {self._vf_address(other) for other in companions})
            case _:
                self._set_vf(step)

    def _set_vf(self, step: SetAdminMac | SetGuid | SetVf | SetVfMtu | SetVfMac | ClearOverride) -> None:
        match step:
            case SetAdminMac():
                self._set_admin_mac(step)
            case SetVfMac():
                self._set_vf_mac(step)
            case SetGuid():
                self._set_guid(step)
            case SetVf():
                if "max_tx_rate" in step.changes:
                    self.wait_for_carrier()
                if step.address or not self._is_set(step):
                    self.netlink.set_vf(self._pf_ifindex(), step.index, step.changes)
            case SetVfMtu():
                self._set_vf_mtu(step)
            case ClearOverride():
                write_text(self.sysfs.pci(self._vf_address(step)) / "driver_override", "\n")

    def _set_guid(self, step: SetGuid) -> None:
        """Set it, unless the driver looks after GUIDs by itself (mlx4): then the kernel reports none."""
        if step.address or step.index in self.netlink.guids(self._pf_ifindex()):
            with self._tolerant(step, "PF"):
                self.netlink.set_guids(self._pf_ifindex(), step.index, step.wanted)

    def _set_admin_mac(self, step: SetAdminMac) -> None:
        with self._tolerant(step if step.derived else None, "PF"):
            self.netlink.set_vf(self._pf_ifindex(), step.index, {"mac": step.wanted})
        if step.index in self.refused:
            self._unset[step.index] = step

    @contextmanager
    def _tolerant(self, step: VfStep | None, who: str) -> Iterator[None]:
        """Note a refusal of what this program made; it is reported once for a PF, as all its VFs are alike."""
        try:
            yield
        except KernelError as error:
            if step is None and error.errno == errno.EOPNOTSUPP:
                error.hint = "the PF's driver takes no admin MACs: write mac: stable or keep in place of MACs"
            is_ours = error.errno == errno.EPERM and not _is_privileged()  # this process may not, whatever the driver
            if step is None or is_ours or error.errno not in _REFUSALS[who]:
                raise
            if who not in self.refused.values():
                outcome = "VFs keep what they have" if who == "VF" or isinstance(step, SetGuid) else _NETDEVS_GET_IT
                self.report(f"warning: {step} failed: {error.message}; {outcome}")
            self.refused[step.index] = who

    def _list_netdev_macs(self) -> Iterator[Step]:
        """For VFs whose admin MAC was refused just now; those that have a netdev were bound meanwhile."""
        for index, step in self._unset.items():
            driver = drivers.current_driver(self.sysfs, address := self._vf_address(step))
            if driver is not None and not is_userspace(driver):
                place = PciAddress(address)
                yield SetVfMac(step.pf, step.pf_name, step.reason, index, place, None, step.wanted)

    def _set_vf_mac(self, step: SetVfMac) -> None:
        """Many drivers take another MAC only while the netdev is down (net/ethernet/eth.c, eth_mac_addr).

        One that takes it in silence and keeps its own refuses it too.
        """
        netdev = self._vf_netdev(self._vf_address(step))
        if netdev.mac == step.wanted:
            return
        what = f"setting MAC {step.wanted} of {netdev.name}"
        with self._tolerant(step, "VF"):
            if netdev.up:
                self.netlink.set_link(netdev.ifindex, f"setting {netdev.name} down", state="down")
            with keep_first_error(lambda: self._put_up_again(netdev)):
                self.netlink.set_link(netdev.ifindex, what, address=step.wanted)
            after = self.netlink.find(netdev.ifindex)
            if after is not None and after.mac != step.wanted:
                raise KernelError(f"{what} was taken, and it has {after.mac}", errno=errno.EOPNOTSUPP)

    def _put_up_again(self, netdev: Link) -> None:
        if netdev.up:
            self.netlink.set_link(netdev.ifindex, f"setting {netdev.name} up", state="up")

    @contextmanager
    def _autoprobe_kept(self) -> Iterator[None]:
        """Leave autoprobe as it was, also after a failure, which is the error even where this fails too."""
        with keep_first_error(self._put_autoprobe_back):
            yield

    def _put_autoprobe_back(self) -> None:
        if self._autoprobe is not None:
            write_text(self.sysfs.pci(self.pf) / "sriov_drivers_autoprobe", self._autoprobe)

    def _set_link(self, step: SetLink) -> None:
        state = "up" if step.up else "down"
        self.netlink.set_link(self._pf_ifindex(), f"setting {step.pf_name} {state}", state=state)
        self.link_lost = step.up

    def _set_num_vfs(self, step: SetNumVfs) -> None:
        """A number that is not 0 can only be changed to 0 (drivers/pci/iov.c, sriov_numvfs_store).

        Drivers are kept off the new VFs until each has its MAC: udev may load their module at any moment.
        """
        switch = self.sysfs.pci(self.pf) / "sriov_drivers_autoprobe"
        if step.wanted and read_text(switch) == "1":
            self._autoprobe = "1"
            write_text(switch, "0")
        if step.current and step.wanted:
            self._mode.note()
        if step.current:
            self._write_num_vfs(0, step.pf_name)
        self.made_vfs = True  # what is there from here on
        if step.wanted:
            self._write_num_vfs(step.wanted, step.pf_name)
            self._mode.finish()
        if self.held:  # their addresses are not always known before
            folder = self.sysfs.pci(self.pf)
            links = (read_link(folder / name) for name in list_names(folder) if name.startswith("virtfn"))
            self.held.hold(filter(None, links))
        self._new = None
        self.link_lost = step.wanted > 0  # without VFs there is no wait for it

    def _write_num_vfs(self, wanted: int, pf_name: str) -> None:
        """Write the number and read it back. Raises KernelError, and VerifyError when the driver made another number.

        A write succeeds all the same when the driver ignores it (bnxt_en with the PF down, broadcom/bnxt/bnxt_sriov.c)
        or makes fewer VFs (drivers/pci/iov.c, sriov_numvfs_store).
        """
        attribute = self.sysfs.pci(self.pf) / "sriov_numvfs"
        try:
            retry_while_busy(lambda: write_text(attribute, str(wanted)), _ENABLE_PATIENCE, self.wait.explain)
        except KernelError as error:
            error.hint = "the kernel log (dmesg) has the reason"
            if error.errno == errno.ENOMEM:
                error.hint += "; without room for the VFs' memory, boot with pci=realloc"
            raise
        made = read_text(attribute)
        if made is None:
            raise DeviceError(f"{pf_name} ({self.pf}): this PF is gone", hint=_GONE_HINT)
        if made == str(wanted):
            return
        message = f"the driver of {pf_name} accepted sriov_numvfs {wanted}, but there are {made} VFs"
        name = find_netdev(self.sysfs, self.pf)
        if name and (netdev := self.netlink.find(name)) and not netdev.up:
            raise VerifyError(
                f"{message}: {pf_name} is down, and its driver makes and removes no VFs then",
                hint=f"set it up, `ip link set {pf_name} up`, then try again",
            )
        raise VerifyError(message, hint="the kernel log (dmesg) has the reason; it may lack resources for more VFs")

    def _is_set(self, step: SetVf) -> bool:
        """Whether a new VF has by itself what is wanted: what a NIC does not have need not be switched off."""
        if self._new is None:
            found = self.netlink.vf_settings(self._pf_ifindex())
            self._new, self._default = found or {}, VfSettings(ZERO_MAC) if found is None else None
        now = self._new.get(step.index, self._default)
        values = {name: getattr(now, name) for name in step.changes} if now else {}
        return bool(now) and all(
            values[name] == wanted or (values[name] is None and not wanted) for name, wanted in step.changes.items()
        )

    def _bind(self, step: BindDriver, companions: set[str]) -> None:
        address = self._vf_address(step)
        if step.wanted == NO_DRIVER:
            drivers.unbind(self.sysfs, address)
            return
        if not is_userspace(step.wanted):
            self.wait_for_carrier()
        if step.again:
            drivers.unbind(self.sysfs, address)
        if step.wanted not in self.resolved:
            self.resolved[step.wanted] = drivers.resolve_driver(self.sysfs, address, step.wanted)
        drivers.bind(self.sysfs, address, self.resolved[step.wanted], companions, noiommu=step.noiommu)
        self.resolved[step.wanted] = drivers.current_driver(self.sysfs, address) or self.resolved[step.wanted]
        if step.again or step.wanted == KERNEL_DRIVER:
            self._awaited.append(address)

    def _set_vf_mtu(self, step: SetVfMtu) -> None:
        netdev = self._vf_netdev(self._vf_address(step))
        if netdev.mtu != step.wanted:
            self.netlink.set_link(netdev.ifindex, f"setting MTU {step.wanted} of {netdev.name}", mtu=step.wanted)

    def _vf_netdev(self, address: str) -> Link:
        deadline = time.monotonic() + _RENAME_TIMEOUT
        while True:
            name = self._wait_for_netdev(address)
            if netdev := self.netlink.find(name):
                return netdev
            if time.monotonic() > deadline:
                raise DeviceError(
                    f"{DeviceName(self.sysfs, address)}: its netdev {name} has vanished",
                    hint="see the kernel log (dmesg)",
                )
            time.sleep(_CARRIER_INTERVAL)

    def _vf_address(self, step: VfStep) -> str:
        address = read_link(self.sysfs.pci(self.pf) / f"virtfn{step.index}")
        if address is None:
            raise DeviceError(f"{step.pf_name} has no VF {step.index}", hint="see the kernel log (dmesg)")
        return address

    def _pf_ifindex(self) -> int:
        """The PF's netdev keeps its index as long as the PF keeps its driver, whatever it is renamed to."""
        if self._ifindex is None:
            self._ifindex = self._pf_netdev().ifindex
        return self._ifindex

    def _pf_netdev(self) -> Link:
        name = find_netdev(self.sysfs, self.pf)
        netdev = self.netlink.find(name) if name else None
        if netdev is None:
            raise DeviceError(
                f"{self.pf}: the netdev of this PF has vanished", hint="see the kernel log (dmesg), then apply again"
            )
        return netdev

    def wait_for_carrier(self) -> None:
        """Wait for the PF's link if a step took it. A missing cable is reported, and VFs are set up all the same."""
        if not self.link_lost or find_netdev(self.sysfs, self.pf) is None:
            return
        self.link_lost = False
        deadline = time.monotonic() + _CARRIER_TIMEOUT
        while (netdev := self._pf_netdev()).up and not netdev.carrier:
            if time.monotonic() > deadline:
                self.report(f"{netdev.name}: no carrier after {_CARRIER_TIMEOUT:.0f} s, going on without")
                return
            time.sleep(_CARRIER_INTERVAL)
        self.report(f"{netdev.name}: {'has carrier' if netdev.up else 'is down'}")


def _is_privileged() -> bool:
    """Whether this process has CAP_NET_ADMIN, without which the kernel asks no driver (linux/capability.h: bit 12)."""
    lines = (read_text("/proc/self/status") or "").splitlines()
    held = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) >> 12 & 1)
