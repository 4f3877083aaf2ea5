"""Properties of plans, against a model of the kernel: they lead to the config from anywhere, and do nothing in vain."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sriovdp.config.ranges import VfIndices
from sriovdp.config.values import Config, PfConfig, PfSelect, VfConfig
from sriovdp.model import ZERO_MAC, Eswitch, NetDevice, Node, PciAddress, PhysicalFunction, VirtualFunction
from sriovdp.provision.originals import plan_return
from sriovdp.provision.plan import Leftovers, plan
from sriovdp.provision.settings import make_stable_mac
from sriovdp.provision.steps import BindDriver, SetNumVfs, SetVf, SetVfMtu, Step, VfStep
from sriovdp.state.provisioned import PfState
from tests.provision.kernel_model import RANDOM_MAC, bind, do, make_vf, run

PF_MAC = "52:54:00:aa:00:01"
TOTAL = 5
DRIVERS = (None, "igbvf", "vfio-pci", "igb_uio")
GIVEN_MAC = "02:00:00:00:00:55"
SWITCH = st.sampled_from((None, True, False))


@st.composite
def vfs(draw: Any, pf: PhysicalFunction, index: int) -> VirtualFunction:
    """A VF that anybody may have left in any state."""
    vf = make_vf(pf, index)
    assert vf.settings
    macs = (ZERO_MAC, RANDOM_MAC, make_stable_mac(PF_MAC, index))
    settings = replace(
        vf.settings,
        mac=draw(st.sampled_from(macs)),
        trust=draw(st.booleans()),
        spoofchk=draw(st.booleans()),
        vlan=draw(st.sampled_from((0, 7))),
        max_tx_rate=draw(st.sampled_from((0, 500))),
    )
    vf = bind(replace(vf, settings=settings), draw(st.sampled_from(DRIVERS)))
    if vf.netdev:
        mtu = draw(st.sampled_from((1500, 9000)))
        vf = replace(vf, netdev=replace(vf.netdev, mac=draw(st.sampled_from(macs[1:])), mtu=mtu))
        if draw(st.integers(0, 7)) == 0:
            vf = replace(vf, netdev=None, is_elsewhere=True)  # in somebody's network namespace
    return vf


@st.composite
def pfs(draw: Any) -> PhysicalFunction:
    """A PF with some VFs."""
    netdev = NetDevice("enp1s0", 2, PF_MAC, draw(st.sampled_from((1500, 9000))), up=draw(st.booleans()), carrier=True)
    pf = PhysicalFunction(PciAddress("0000:01:00.0"), "8086", "10c9", "igb", netdev=netdev, total_vfs=TOTAL)
    made = tuple(draw(vfs(pf, index)) for index in range(draw(st.integers(0, TOTAL))))
    mode = draw(st.sampled_from((None, "legacy", "switchdev")))
    eswitch = Eswitch(mode, draw(st.sampled_from((None, 1))), draw(st.sampled_from((None, 0)))) if mode else None
    return replace(pf, vfs=made, autoprobe=draw(st.booleans()), eswitch=eswitch, switchdev=mode == "switchdev")


@st.composite
def configs(draw: Any) -> Config:
    """A config for that PF, with each VF in a range of its own."""
    number = draw(st.sampled_from((*range(TOTAL + 1), "max")))
    wishes = tuple(
        VfConfig(
            VfIndices((range(index, index + 1),)),
            draw(st.sampled_from(("kernel", "vfio-pci", "igb_uio", "none"))),
            draw(st.sampled_from(("stable", "keep", {index: GIVEN_MAC}))),
            draw(SWITCH),
            draw(SWITCH),
            draw(st.sampled_from((None, 0, 7))),
            draw(st.sampled_from((None, 0))),
            draw(st.sampled_from((None, 0, 500))),
        )
        for index in range(TOTAL)
    )
    mtu, mode = draw(st.sampled_from((None, 1500, 9000))), draw(st.sampled_from((None, "legacy", "switchdev")))
    entry = PfConfig(PfSelect(pf_names=("enp1s0",)), number, wishes, mtu, mode)
    return Config((entry,))


def plan_for(config: Config, pf: PhysicalFunction, used: frozenset[str], left: Leftovers | None = None) -> list[Step]:
    """The steps for the one PF."""
    return list(plan(config, Node((pf,)), used, {pf.address: left} if left else {}).steps)


def is_refused(steps: list[Step], pf: PhysicalFunction, used: frozenset[str]) -> bool:
    """Whether a step would change or remove a VF in use."""
    gone = any(isinstance(step, SetNumVfs) for step in steps) and any(vf.address in used for vf in pf.vfs)
    return gone or any(isinstance(step, VfStep) and step.address in used for step in steps)


def find_used(pf: PhysicalFunction, attached: frozenset[int]) -> frozenset[str]:
    """VFs that a pod has, and those whose netdev is elsewhere."""
    elsewhere = {vf.address for vf in pf.vfs if vf.is_elsewhere}
    return frozenset(elsewhere | {vf.address for vf in pf.vfs if vf.index in attached})


@settings(deadline=None)  # a machine may be busy
@given(pfs(), configs(), st.frozensets(st.integers(0, TOTAL - 1), max_size=2))
def test_a_plan_leads_to_the_config_or_is_refused(
    pf: PhysicalFunction, config: Config, attached: frozenset[int]
) -> None:
    """After its steps nothing is left to do, and VFs in use are as they were."""
    used = find_used(pf, attached)
    steps = plan_for(config, pf, used)
    if is_refused(steps, pf, used):
        return
    after = run(pf, steps)
    assert plan_for(config, after, used) == []
    assert [vf for vf in after.vfs if vf.address in used] == [vf for vf in pf.vfs if vf.address in used]
    if steps == []:
        assert after == pf


@settings(deadline=None)  # a machine may be busy
@given(pfs(), configs(), st.integers(0, 40))
def test_an_interrupted_plan_goes_on(pf: PhysicalFunction, config: Config, done: int) -> None:
    """After any part of a plan, a new one leads to the config, and autoprobe is as it was before the first."""
    before = pf.autoprobe
    if is_refused(plan_for(config, pf, find_used(pf, frozenset())), pf, find_used(pf, frozenset())):
        return
    interrupted = run(pf, plan_for(config, pf, frozenset())[:done])
    if any(isinstance(step, SetNumVfs) for step in plan_for(config, pf, frozenset())[:done]):
        interrupted = replace(interrupted, autoprobe=False)
    left = Leftovers(before)
    after = run(interrupted, plan_for(config, interrupted, frozenset(), left))
    assert plan_for(config, after, frozenset(), left) == []
    assert after.autoprobe is before


@settings(deadline=None)  # a machine may be busy
@given(pfs(), configs())
def test_no_step_is_in_vain(pf: PhysicalFunction, config: Config) -> None:
    """No two steps do the same, and without any one of them the config is not reached.

    What a new VF or a new driver has by itself is not known before: those steps are left out here.
    """
    if find_used(pf, frozenset()):
        return
    steps = plan_for(config, pf, frozenset())
    keys = [(type(step), step.index if isinstance(step, VfStep) else None, str(step)) for step in steps]
    assert len(set(keys)) == len(keys)
    for number, step in enumerate(steps):
        if isinstance(step, SetVf | SetVfMtu) and (step.address is None or getattr(step, "current", 0) is None):
            continue
        if isinstance(step, BindDriver) and step.again:
            continue
        others = steps[:number] + steps[number + 1 :]
        if isinstance(step, SetNumVfs):
            others = [other for other in others if not isinstance(other, VfStep)]
        assert plan_for(config, run(pf, others), frozenset()) != [], str(step)


@settings(deadline=None)  # a machine may be busy
@given(pfs(), pfs())
def test_the_way_back_leads_back(was: PhysicalFunction, now: PhysicalFunction) -> None:
    """From any state of a PF to any other that was recorded; a state is no step away from itself."""
    state = replace(PfState.of(was), eswitch=was.eswitch)
    after = now
    for step in plan_return(state, now):
        after = do(after, step)
    assert plan_return(state, after) == ()
    assert [vf.driver for vf in after.vfs] == [vf.driver for vf in was.vfs]
    assert (after.autoprobe, len(after.vfs)) == (was.autoprobe, len(was.vfs))
    if was.eswitch:
        assert after.switchdev is was.switchdev
