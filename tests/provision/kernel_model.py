"""The kernel as a pure function: what each step makes of a PF. For properties of plans, thousands of times a second."""

from collections.abc import Iterable
from dataclasses import replace

from sriovdp.model import (
    KERNEL_DRIVER,
    NO_DRIVER,
    USERSPACE_DRIVERS,
    ZERO_MAC,
    Eswitch,
    NetDevice,
    PciAddress,
    PhysicalFunction,
    VfSettings,
    VirtualFunction,
)
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
)

RANDOM_MAC = "02:00:00:00:00:99"
DEFAULT_MTU = 1500


def make_vf(pf: PhysicalFunction, index: int) -> VirtualFunction:
    """A new VF: no driver, no MAC."""
    address = PciAddress(f"0000:01:10.{index}")
    settings = VfSettings(ZERO_MAC, spoofchk=True, trust=False, link_state="auto") if pf.netdev else None
    return VirtualFunction(address, pf.address, index, pf.vendor, "10ca", settings=settings)


def bind(vf: VirtualFunction, driver: str | None) -> VirtualFunction:
    """A netdev driver makes a netdev with the admin MAC of that moment, and the MTU that it likes."""
    if driver is None or driver in USERSPACE_DRIVERS:
        return replace(vf, driver=driver, netdev=None, is_elsewhere=False)
    mac = vf.settings.mac if vf.settings and vf.settings.mac != ZERO_MAC else RANDOM_MAC
    netdev = NetDevice(f"v{vf.index}", 10 + vf.index, mac, DEFAULT_MTU, up=False, carrier=None)
    return replace(vf, driver=driver, netdev=netdev, is_elsewhere=False)


def run(pf: PhysicalFunction, steps: Iterable[Step]) -> PhysicalFunction:
    """Do all steps."""
    for step in steps:
        pf = do(pf, step)
    return pf


def do(pf: PhysicalFunction, step: Step) -> PhysicalFunction:
    """Do one step."""
    match step:
        case SetLink():
            return replace(pf, netdev=replace(_netdev(pf), up=step.up))
        case SetMtu():
            return replace(pf, netdev=replace(_netdev(pf), mtu=step.wanted))
        case SetNumVfs():
            assert step.wanted <= pf.total_vfs
            return replace(pf, vfs=tuple(make_vf(pf, index) for index in range(step.wanted)))
        case SetEswitchMode():
            return _set_mode(pf, step)
        case SetAutoprobe():
            return replace(pf, autoprobe=step.wanted)
    return replace(pf, vfs=tuple(_do_vf(vf, step) if vf.index == step.index else vf for vf in pf.vfs))


def _set_mode(pf: PhysicalFunction, step: SetEswitchMode) -> PhysicalFunction:
    """As ice: not with VFs."""
    if pf.vfs and step.current != step.wanted:
        return pf
    eswitch = Eswitch(step.wanted, step.inline, step.encap)
    return replace(pf, eswitch=eswitch, switchdev=step.wanted == "switchdev")


def _do_vf(
    vf: VirtualFunction, step: SetAdminMac | SetGuid | SetVf | BindDriver | SetVfMtu | SetVfMac | ClearOverride
) -> VirtualFunction:
    match step:
        case BindDriver():
            return bind(vf, {KERNEL_DRIVER: "igbvf", NO_DRIVER: None}.get(step.wanted, step.wanted))
        case SetVfMtu():
            return replace(vf, netdev=replace(vf.netdev, mtu=step.wanted)) if vf.netdev else vf
        case SetVfMac():
            return replace(vf, netdev=replace(vf.netdev, mac=step.wanted)) if vf.netdev else vf
        case SetGuid():
            assert vf.settings
            return replace(vf, settings=replace(vf.settings, node_guid=step.wanted, port_guid=step.wanted))
        case SetAdminMac() | SetVf():
            assert vf.settings, "the PF has no netdev to set it through"
            changes = {"mac": step.wanted} if isinstance(step, SetAdminMac) else dict(step.changes)
            return replace(vf, settings=replace(vf.settings, **changes))
    return vf


def _netdev(pf: PhysicalFunction) -> NetDevice:
    assert pf.netdev, "the PF has no netdev"
    return pf.netdev
